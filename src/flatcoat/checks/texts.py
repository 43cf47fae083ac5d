"""What is wrong with the texts of a collection: empty, repeated, of broken characters, of another language; questions that stand in
their answers.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from flatcoat.checks.base import Finding, ok
from flatcoat.checks.sampling import evenly
from flatcoat.columns import text_hash
from flatcoat.data.store import Collection

SAMPLE = 2000  # texts that are read
HASHED = 100_000  # texts that are compared with one another
PAIRS = 300
MOST_EMPTY, MOST_REPEATED, MOST_BROKEN, MOST_ECHOED = 0.01, 0.05, 0.01, 0.2
MOST_UNKNOWN, MOST_PIECES = 0.05, 4.0
# scripts without spaces between words: there a character counts as one
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+")
# UTF-8 read as Windows-1252 or Latin-1, and what stands for bytes that could not be read
BROKEN = re.compile("\ufffd|â€[\x80-\xbf™œ“¦˜”]|â\x80[\x80-\xbf]|Ã[\x80-\xbf©¨¼¶¤±³¡]|Â[\xa0-\xbf]")


def _sample(collection: Collection, most: int) -> list[str]:
    return list(collection.documents.texts(evenly(len(collection.documents), most)))


def empty_texts(collection: Collection) -> list[Finding]:
    """The share of documents without text, of an even sample: they are found for every query, or for none.

    4 % of Core18's documents have no body (castorini/anserini#654); a text in a field of another name is read as nothing, too.
    """
    texts = _sample(collection, SAMPLE)
    share = float(np.mean([not text.strip() for text in texts])) if texts else 0.0
    said = f"{share:.1%} of documents have no text"
    if share > MOST_EMPTY:
        level = "error" if share > 0.5 else "warning"
        return [Finding(level, "empty-texts", said, "is the text in a field of another name?")]
    return [ok("empty-texts", said)]


def repeated_texts(collection: Collection) -> list[Finding]:
    """The share of documents whose text another has, case and white space folded; of the first ones where there are very many.

    MS MARCO v2 has 27.8 million passages twice (microsoft/msmarco#8): of equal texts one is judged, the others count as wrong.
    """
    texts = collection.documents.texts(np.arange(min(HASHED, len(collection.documents))))
    distinct = len({text_hash(" ".join(text.lower().split())) for text in texts})
    share = 1 - distinct / max(1, len(texts))
    said = f"{share:.1%} of {len(texts)} documents have the text of another"
    if share > MOST_REPEATED:
        return [Finding("warning", "repeated-texts", said, "keep one of each: the others count as wrong answers")]
    return [ok("repeated-texts", said)]


def broken_characters(collection: Collection) -> list[Finding]:
    """The share of documents with characters that were read in another encoding than they were written in.

    MS MARCO's passages were (castorini/anserini#945, allenai/ir_datasets#12); mending them raised MRR (castorini/anserini#1212).
    """
    texts = _sample(collection, SAMPLE)
    odd = [text for text in texts if BROKEN.search(text)]
    share = len(odd) / max(1, len(texts))
    if share > MOST_BROKEN:
        match = BROKEN.search(odd[0])
        near = odd[0][max(0, match.start() - 12) : match.end() + 8] if match else ""
        message = f"{share:.1%} of documents have broken characters, as in {near!r}"
        return [Finding("warning", "encoding", message, "read the source in the encoding that it was written in")]
    return [ok("encoding", f"{share:.1%} of documents have broken characters")]


def echoes(collection: Collection, split: str) -> list[Finding]:
    """The share of judged pairs whose question stands word for word in its answer: matching words is then enough.

    Inverse cloze pairs keep the sentence in one of ten passages for that reason (Lee et al. 2019, arXiv 1906.00300).
    """
    judged = np.asarray(collection.judgements(split))
    judged = judged[judged[:, 2] > 0]
    judged = judged[evenly(len(judged), PAIRS)] if len(judged) else judged
    asked = [_folded(collection.queries.text(int(row))) for row in judged[:, 0]]
    long = [i for i, text in enumerate(asked) if len(text.split()) >= 3]
    share = (
        float(np.mean([asked[i] in _folded(collection.documents.text(int(judged[i, 1]))) for i in long]))
        if long
        else 0.0
    )
    said = f"{share:.0%} of questions of {split!r} stand word for word in their answers"
    if share > MOST_ECHOED:
        return [Finding("warning", "echo", said, "what is measured is copying: take the question out of the document")]
    return [ok("echo", said)]


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def vocabulary_fit(tokenizer: Any, collection: Collection) -> list[Finding]:
    """Whether a tokenizer knows the documents' language: unknown tokens, and tokens a word, on a sample.

    An English vocabulary spells other scripts letter by letter, and a sparse model has no other terms (naver/splade#28).
    """
    texts = _sample(collection, PAIRS)
    words = max(1, sum(max(len(text.split()), len(WORD.findall(text))) for text in texts))
    made = tokenizer(list(texts), truncation=False, verbose=False, add_special_tokens=False)["input_ids"]
    ids = [token for row in made for token in row]
    unknown = sum(token == tokenizer.unk_token_id for token in ids) / max(1, len(ids))
    said = f"{unknown:.1%} of tokens are unknown to the vocabulary, {len(ids) / words:.1f} tokens a word"
    if unknown > MOST_UNKNOWN or len(ids) > MOST_PIECES * words:
        return [Finding("warning", "language", said, "was the model made for this language?")]
    return [ok("language", said)]
