"""Every check there is: what it looks at, when it is made, and the published mistake that it would have caught.

`docs/checks.md` is made of this list (`scripts/checks_page.py`). A test holds it to the code: every name that a check gives stands here,
and every entry has a planted fault that is found and a clean case that passes.
"""

from __future__ import annotations

from typing import NamedTuple

CHECK, RUN, TRAIN, ENCODE, INDEX, SEARCH = "check", "run", "train", "encode", "index", "search"
MINE, RERANK, EVALUATE, FIDELITY, ABLATE = "mine", "rerank", "evaluate", "fidelity", "ablate"
READY = (CHECK, RUN, TRAIN, ABLATE)
NOTES = ("recipe", "hint")  # names of lines that are no check


class Check(NamedTuple):
    """One check: the name that `--allow` takes, the function that makes it, what it is of, and what it has cost somebody."""

    name: str
    function: str
    of: str
    finds: str
    when: tuple[str, ...]
    mistake: str
    source: str


_RECIPES = (
    Check("sources", "ready.sources_there", "recipes", "a model, file or collection that is not there", READY,
          "a run that stops after an hour at the name of a file", ""),
    Check("splits", "settings.splits", "recipes", "a measured split that is the training's", READY,
          "leaks of train into test, counted over a whole leaderboard", "embeddings-benchmark/mteb#1036"),
    Check("warmup", "settings.warmup", "recipes", "a learning rate that never gets to its peak", READY,
          "a published recipe warmed up for 95 % of its steps", "PeterGriffinJin/Search-R1#28"),
    Check("temperature", "settings.temperature", "recipes", "cosines at a temperature that leaves the softmax flat", READY,
          "cosines in a cross-entropy without a scale: the loss stays high, however good the model",
          "huggingface/sentence-transformers#3179"),
    Check("few-negatives", "settings.few_negatives", "recipes", "next to nothing that competes with the positive", READY,
          "a loss of 0 at the default batch size, without given negatives", "facebookresearch/DPR#243"),
    Check("negatives-window", "settings.window", "recipes", "ranks to mine from that are not there, too few, or easy", (*READY, MINE),
          "what mining could not find, silent or counted wrongly", "huggingface/sentence-transformers#3504"),
    Check("measure-depth", "settings.measure_depth", "recipes", "a measure that looks as deep as the corpus is", READY,
          "a recall that says nothing of the system", "stanford-futuredata/ColBERT#280"),
    Check("ramp", "settings.ramp", "recipes", "a sparse regulariser at full weight from the first step", READY,
          "representations that die: queries of no term", "naver/splade#31"),
    Check("probes", "settings.probes", "recipes", "an inverted file of which few cells are searched", READY,
          "ten cells, one searched: 31.2 nDCG@10 in place of 36.5", "deepset-ai/haystack#747"),
)  # fmt: skip

_COLLECTIONS = (
    Check("reading", "judgements.read_well", "collections", "what the reader had to skip or mend", (CHECK,),
          "ids that come twice, in a corpus and its judgements", "castorini/pyserini#1902"),
    Check("empty-texts", "texts.empty_texts", "collections", "documents without text", (*READY, ENCODE, INDEX),
          "4 % of a TREC corpus indexed without its body", "castorini/anserini#654"),
    Check("repeated-texts", "texts.repeated_texts", "collections", "documents with the text of another", (*READY, ENCODE, INDEX),
          "27.8 million passages of MS MARCO v2 that are there twice: one is judged, the others count as wrong",
          "microsoft/msmarco#8"),
    Check("encoding", "texts.broken_characters", "collections", "characters read in another encoding", (*READY, ENCODE, INDEX),
          "MS MARCO's passages; mending them raised MRR", "castorini/anserini#945, castorini/anserini#1212"),
    Check("language", "texts.vocabulary_fit", "collections", "texts that a model's vocabulary does not know", (*READY, ENCODE),
          "an English SPLADE over other languages", "naver/splade#28"),
    Check("echo", "texts.echoes", "collections", "questions that stand word for word in their answers", READY,
          "inverse cloze pairs that teach copying, unless the sentence is taken out", "arXiv 1906.00300"),
    Check("only-judged", "collection.only_judged", "collections", "a corpus of judged documents alone", READY,
          "58.6 nDCG@10 on TREC-COVID in place of 31.9", "class notes"),
    Check("leakage", "collection.leakage", "collections", "test queries that are training queries", READY,
          "30 % of the test questions of open-domain QA stand in train, reworded", "arXiv 2008.02637"),
    Check("shared-positives", "collection.leakage", "collections", "answers of the test that are answers in train", READY,
          "what looks like generalisation is memory of documents", "arXiv 2008.02637"),
    Check("no-positive", "judgements.answered", "collections", "queries that nothing answers", (*READY, MINE),
          "means over other sets of queries, which cannot be compared", "joaopalotti/trectools#25"),
    Check("absent", "judgements.absent", "collections", "answers that the corpus has not", (*READY, MINE),
          "BEIR's ArguAna judges a document that is not there", "beir-cellar/beir#101, beir-cellar/beir#172"),
    Check("truncation", "collection.truncated", "collections", "documents that the model cuts off", (*READY, ENCODE),
          "texts clipped in silence at 128 or 256 tokens, and disappointment",
          "huggingface/sentence-transformers#364, simonw/llm-sentence-transformers#8"),
)  # fmt: skip

_DENSE = (
    Check("pooling", "towers.pooling", "dense models", "a pooling that is not the checkpoint's",
          (*READY, ENCODE, SEARCH), "CLS where the mean is right: 37.0 nDCG@10 in place of 50.8",
          "arcee-ai/DALM#92, lm-sys/FastChat#2926"),
    Check("best-pooling", "best_pooling.pooling_by_measure", "dense models", "another pooling that is far better on judged pairs",
          (CHECK,), "a checkpoint whose settings were lost", "nixiesearch/nixiesearch#465"),
    Check("prompt", "towers.lengths", "dense models", "a prompt other than the checkpoint's", (*READY, ENCODE),
          "E5 without its prefixes, in a benchmark's own evaluator", "embeddings-benchmark/mteb#642"),
    Check("prompts", "checkpoint.prompts", "dense models", "prompts that a checkpoint declares and nobody uses", (*READY, ENCODE),
          "E5 without its prefixes, in a benchmark's own evaluator", "embeddings-benchmark/mteb#642"),
    Check("length", "towers.lengths", "dense models", "a length other than the checkpoint's", (*READY, ENCODE),
          "a model trained at 128 tokens, measured at 512", "class notes"),
    Check("similarity", "checkpoint.similarity", "dense models", "a checkpoint that compares by a distance", (*READY, ENCODE),
          "another metric in the index than the model's: other documents", "deepset-ai/haystack#747"),
    Check("normalisation", "towers.normalisation", "dense models", "unit vectors on one side only", (CHECK, FIDELITY),
          "dot products where cosines were meant", "deepset-ai/haystack#747"),
)  # fmt: skip

_VECTORS = (
    Check("finite", "vectors.finite", "vectors", "numbers that are none", (*READY, ENCODE, INDEX),
          "an encoder that gave NaN for every text, released", "qdrant/fastembed#688"),
    Check("dead", "vectors.there", "vectors", "vectors of zeros", (*READY, ENCODE, INDEX),
          "representations that die", "taoshen58/LexMAE#2"),
    Check("collapse", "vectors.spread_out", "vectors", "texts that are all alike to the model", (*READY, ENCODE, INDEX),
          "one position wins every maximum: nDCG 0.02 in place of 0.65", "texttron/tevatron#36"),
    Check("normalisation", "vectors.of_unit_length", "vectors", "lengths other than the 1 that is said", (*READY, ENCODE, INDEX),
          "dot products where cosines were meant", "deepset-ai/haystack#747"),
    Check("hashes", "files.read_manifest", "vectors", "a file that is not as it was written", (CHECK,),
          "an index that was damaged, opened, and gave the wrong documents", "mem0ai/mem0#7117"),
)  # fmt: skip

_SPARSE = (
    Check("dead", "sparse.health", "sparse models", "texts of no term", (*READY, ENCODE, INDEX),
          "all-zero representations", "taoshen58/LexMAE#2, naver/splade#31"),
    Check("collapse", "sparse.health", "sparse models", "texts of one representation", (*READY, ENCODE, INDEX),
          "the first token is a sink that wins every maximum", "texttron/tevatron#36"),
    Check("all-active", "sparse.health", "sparse models", "a large share of the vocabulary in each text", (*READY, ENCODE, INDEX),
          "all dimensions active and nDCG 0 with one backbone, and no diagnosis", "huggingface/sentence-transformers#3431"),
    Check("noise", "sparse.health", "sparse models", "weight on punctuation, stop words and special tokens", (*READY, ENCODE, INDEX),
          "which term brought which expansion, nobody could say", "naver/splade#70"),
    Check("saturation", "sparse.health", "sparse models", "terms that nearly every text has", (*READY, ENCODE, INDEX),
          "terms of high document frequency that cost every query", "arXiv 2505.15070"),
    Check("noise", "sparse.clean_top", "sparse models", "no content among a question's heaviest terms", (*READY, ENCODE),
          "which term brought which expansion, nobody could say", "naver/splade#70"),
    Check("aggregate", "towers.aggregation", "sparse models", "a sum where the checkpoint has a maximum", (*READY, ENCODE),
          "an export without the maximum kept a fifth of the terms", "elastic/eland#827"),
    Check("vocabulary", "belongs.same_vocabulary", "sparse models", "terms numbered otherwise on the two sides", (SEARCH, FIDELITY),
          "ids of one vocabulary, looked up in another", "xhluca/bm25s#91"),
)  # fmt: skip

_LATE = (
    Check("normalisation", "late.unit_length", "late interaction", "token vectors that are not of unit length", (*READY, ENCODE, INDEX),
          "long vectors win every maximum", "deepset-ai/haystack#747"),
    Check("collapse", "late.alike", "late interaction", "texts whose token vectors are all the same", (*READY, ENCODE, INDEX),
          "a model that tells nothing apart", "texttron/tevatron#36"),
    Check("dead", "late.alike", "late interaction", "texts without vectors", (*READY, ENCODE, INDEX),
          "documents that are never found", "taoshen58/LexMAE#2"),
    Check("marker", "late.markers", "late interaction", "markers that the tokenizer reads as words", (*READY, ENCODE),
          "\"[Q]\" as three tokens", "stanford-futuredata/ColBERT#351, terrierteam/pyterrier_dr#10"),
    Check("expansion", "late.expansion", "late interaction", "queries filled up beyond their length", (*READY, ENCODE),
          "padded with [CLS] in place of [MASK]", "sebastian-hofstaetter/neural-ranking-kd#1"),
    Check("punctuation", "late.punctuation", "late interaction", "vectors that stand for punctuation", (*READY, ENCODE),
          "an index without the skip list of the original", "lightonai/pylate#5"),
    Check("query-truncation", "late.cut_queries", "late interaction", "queries that are cut off", (CHECK,),
          "texts clipped in silence", "huggingface/sentence-transformers#364"),
)  # fmt: skip

_CROSS = (
    Check("labels", "cross.one_label", "cross-encoders", "a classifier of several labels", (CHECK,),
          "a model of two labels, read as one score", "huggingface/sentence-transformers#568"),
    Check("collapse", "cross.spread", "cross-encoders", "one score for all pairs", (*READY, RERANK),
          "a softmax over a single logit: 1.0 for every candidate", "rohitg00/agentmemory#724"),
    Check("related", "cross.related", "cross-encoders", "answers that score below other documents", (CHECK,),
          "scores sorted the wrong way in a reranker", "langchain-ai/langchain#22556"),
    Check("truncation", "cross.cut_pairs", "cross-encoders", "pairs that are cut off", (CHECK,),
          "texts clipped in silence", "huggingface/sentence-transformers#364"),
)  # fmt: skip

_TEACHERS = (
    Check("teacher-scale", "teacher.same_scale", "teachers", "scores spread far wider or narrower than the student's", READY,
          "MarginMSE on a teacher's sigmoid; raw or normalised, changed back and forth",
          "huggingface/sentence-transformers#3540, lightonai/pylate#66"),
    Check("teacher-range", "teacher.squeezed", "teachers", "a file of scores between 0 and 1", READY,
          "MarginMSE on a teacher's sigmoid", "huggingface/sentence-transformers#3540"),
    Check("teacher-constant", "teacher.says_something", "teachers", "one score for all of a query's documents", READY,
          "a softmax over a single logit: 1.0 for every pair", "rohitg00/agentmemory#724"),
    Check("teacher-order", "teacher.right_way_up", "teachers", "answers below other documents", READY,
          "the label \"not relevant\" taken for the score", "huggingface/sentence-transformers#568"),
    Check("teacher-weaker", "teacher.stronger", "teachers", "a teacher that ranks worse than its student", READY,
          "which model may teach", "FlagOpen/FlagEmbedding#949, FlagOpen/FlagEmbedding#815"),
    Check("teacher-covers", "teacher.covers", "teachers", "training queries without a teacher's scores", READY,
          "distillation asked for, and no scores", "FlagOpen/FlagEmbedding#1170"),
)  # fmt: skip

_TRAINING = (
    Check("frozen-batches", "training.frozen_batches", "training", "in-batch negatives that never change", READY,
          "a distributed sampler that gave the same order every epoch", "pytorch/pytorch#31771"),
    Check("false-negatives", "negatives.false_negatives", "training", "given negatives that are answers", READY,
          "mined negatives that are answers nobody judged", "AnswerDotAI/RAGatouille#100"),
    Check("negatives-cover", "negatives.for_all", "training", "training queries without given negatives", READY,
          "what mining could not find, counted wrongly", "huggingface/sentence-transformers#3504"),
    Check("piled-up-gradients", "training.piled_up", "training", "a step that keeps the last step's gradients", (),
          "a forgotten zero_grad", "pytorch/pytorch#47175"),
)  # fmt: skip

_INDEXES = (
    Check("index-model", "belongs.belongs", "indexes", "an index of another model", (SEARCH, FIDELITY),
          "the checkpoint changed after the index was made", "primeqa/primeqa#384"),
    Check("index-corpus", "belongs.belongs", "indexes", "an index of another corpus", (CHECK, SEARCH, FIDELITY),
          "answers named after other documents than were found", "neuml/txtai#496"),
    Check("precision", "belongs.precision", "indexes", "queries at another precision than the documents", (SEARCH,),
          "scores in fewer bits: ties, and other rankings", "embeddings-benchmark/mteb#4932"),
    Check("ids", "index.unique_ids", "indexes", "rows of one id", (CHECK, INDEX),
          "ids that come twice, in a corpus and its judgements", "castorini/pyserini#1902"),
    Check("index-recall", "index.loses", "indexes", "what exact search finds and the index does not", (CHECK,),
          "the same vectors, far worse in another engine; recall that drops with efSearch below k",
          "deepset-ai/haystack#747, facebookresearch/faiss#1244"),
)  # fmt: skip

_RUNS = (
    Check("rank-order", "run.rank_order", "runs", "ranks against scores", (CHECK, EVALUATE, MINE, RERANK),
          "distances in the column of scores: ranking inverted", "mem0ai/mem0#6884, langchain-ai/langchain#2845"),
    Check("upside-down", "run.upside_down", "runs", "relevant documents at the foot of the lists", (CHECK, EVALUATE),
          "an L2 index sorted the wrong way: nDCG 0.04 in place of 0.37", "princeton-nlp/SimCSE#198"),
    Check("missing-queries", "run.missing_queries", "runs", "judged queries without an answer", (CHECK, EVALUATE),
          "means over the queries that a run happens to have", "joaopalotti/trectools#24"),
    Check("strange-queries", "run.strange_queries", "runs", "queries that nobody judged", (CHECK, EVALUATE),
          "ids of run and judgements that do not meet", "AmenRa/ranx#27"),
    Check("strange-documents", "run.strange_documents", "runs", "documents that the corpus has not", (CHECK,),
          "a judged id that is written otherwise in the corpus", "beir-cellar/beir#101"),
    Check("nothing-relevant", "run.relevant_found", "runs", "no relevant document anywhere", (CHECK, EVALUATE),
          "ids of run and judgements that do not meet", "AmenRa/ranx#27"),
    Check("ties", "run.tied", "runs", "one score for all of a query's first ten", (CHECK, EVALUATE),
          "ties broken by document id in one tool, otherwise in another", "usnistgov/trec_eval#22, arXiv 1807.05798"),
    Check("shallow", "run.shallow", "runs", "lists shorter than a measure's cut-off", (CHECK, EVALUATE),
          "R@1000 of lists of 100", "stanford-futuredata/ColBERT#280"),
    Check("self-match", "run.finds_itself", "runs", "queries that find themselves in the corpus", (CHECK, EVALUATE),
          "31.5 nDCG@10 on ArguAna in place of 41.4", "beir-cellar/beir#91"),
    Check("results", "results.same_numbers", "runs", "a table that is not what its rankings give", (CHECK,),
          "published numbers that nobody reaches again", "naver/splade#22, texttron/tevatron#129"),
)  # fmt: skip

CATALOGUE: tuple[Check, ...] = (
    *_RECIPES, *_COLLECTIONS, *_DENSE, *_VECTORS, *_SPARSE, *_LATE, *_CROSS, *_TEACHERS, *_TRAINING, *_INDEXES, *_RUNS,
)  # fmt: skip
