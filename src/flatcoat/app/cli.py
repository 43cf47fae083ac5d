"""The command line. Results go to stdout, progress to stderr; exit 0 done, 1 could not, 2 misused.

Only typer is imported here: each verb imports what it uses when it runs.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from flatcoat.app.cli_options import (
    Allow,
    Changes,
    CollectionName,
    Device,
    Html,
    Json,
    ModelName,
    Out,
    Precision,
    PrecisionOrAuto,
    Quiet,
    RecipeFile,
    Strict,
    Workers,
)
from flatcoat.app.cli_served import pull, push, report, serve, speed
from flatcoat.errors import FlatcoatError

app = typer.Typer(
    name="flatcoat", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train, check and serve neural retrievers on your own documents.",
)  # fmt: skip


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe (TOML), or a folder of documents of your own.")],
    out: Out, resume: bool = typer.Option(False, help="Go on in a folder, redoing what has changed."),
    changes: Changes = None, allow: Allow = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Run every stage of a recipe: read, train, index, search, evaluate."""
    from flatcoat.app.verbs import run as verb

    verb(recipe, out, resume, changes, allow, quiet, as_json)


@app.command()
def train(recipe: RecipeFile, out: Out, changes: Changes = None, allow: Allow = None, quiet: Quiet = False) -> None:
    """Train a recipe's model. A training that was killed goes on from its last checkpoint."""
    from flatcoat.app.verbs import train as verb

    verb(recipe, out, changes, allow, quiet)


@app.command()
def encode(
    model: ModelName, collection: CollectionName, out: Out,
    queries: Annotated[str | None, typer.Option(help="Encode the queries of this split in place of the documents.")] = None,
    pooling: Annotated[str | None, typer.Option(help="Another pooling than the checkpoint's.")] = None,
    query_length: Annotated[int | None, typer.Option(help="Most tokens of a query.")] = None,
    document_length: Annotated[int | None, typer.Option(help="Most tokens of a document.")] = None,
    precision: PrecisionOrAuto = "fp32", device: Device = "auto", strict: Strict = False, allow: Allow = None, quiet: Quiet = False,
    workers: Workers = None,
) -> None:  # fmt: skip
    """Encode a collection's documents, or a split's queries, into a folder of vectors: dense, sparse, or several a text, as the
    model gives them.
    """
    from flatcoat.app.verbs import encode as verb

    verb(
        model, collection, out, queries, pooling, query_length, document_length, precision, device, strict, allow, quiet,
        workers,
    )  # fmt: skip


@app.command()
def index(
    source: Annotated[str, typer.Argument(help="A folder of vectors; for --kind bm25 a collection.")], out: Out,
    kind: Annotated[
        str | None, typer.Option(help="exact, scan, bits, sq, hnsw, ivf, inverted, pruned, multivector or bm25; scan unless said.")
    ] = None,
    changes: Changes = None, copy: Annotated[bool, typer.Option(help="Copy the vectors into the index.")] = False,
    engine: Annotated[str | None, typer.Option(help="Load into qdrant:URL, postgresql:URL or milvus:URL; --kind exact or hnsw.")] = None,
    name: Annotated[str | None, typer.Option(help="The collection's name in the engine; else the folder's.")] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="More vectors of the same documents, or NAME=FOLDER; may be repeated.")
    ] = None,
    collection: Annotated[str | None, typer.Option(help="Whose titles, texts and metadata go into the engine.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Load anew what is in the engine under this name.")] = False,
    allow: Allow = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build an index that fits the vectors: exact for any, inverted or pruned for sparse ones, multivector for those of late
    interaction, the others for dense ones. --set takes the kind's settings, as in --set rescore=10 or --set stem=false.
    """
    if engine is not None:
        from flatcoat.app.verbs_engine import index as load

        load(source, out, engine, name, kind, also or [], collection, replace, copy, changes, quiet)
        return
    from flatcoat.app.verbs import index as verb
    from flatcoat.app.verbs_engine import refuse_without_engine

    refuse_without_engine({"--name": name, "--also": also, "--collection": collection, "--replace": replace})
    verb(source, out, kind or "scan", changes, copy, quiet, allow)


@app.command()
def update(
    index: Annotated[Path, typer.Argument(help="An inverted, pruned or multi-vector index, or one in an engine.")],
    add: Annotated[
        list[str] | None, typer.Option(help="Vectors of new documents; in an engine NAME=FOLDER for each field; may be repeated.")
    ] = None,
    delete: Annotated[Path | None, typer.Option(help="A file of document ids, one a line; done before --add.")] = None,
    collection: Annotated[str | None, typer.Option(help="Whose titles, texts and metadata go into the engine.")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Delete documents from an index, and add others, where it lies."""
    from flatcoat.app.verbs_sparse import update as verb

    verb(index, add or [], delete, collection, quiet)


@app.command()
def export(
    vectors: Annotated[Path, typer.Argument(help="A folder of sparse vectors.")], out: Out,
    to: Annotated[str, typer.Option(help="ciff or anserini (JSONL).")] = "ciff",
    scale: Annotated[float, typer.Option(help="Weights times this, rounded.")] = 100.0, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write sparse vectors for other engines (Lucene, Anserini, PISA)."""
    from flatcoat.app.verbs_sparse import export as verb

    verb(vectors, to, out, scale, quiet)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A CIFF or JSONL file.")], out: Out,
    of: Annotated[str, typer.Option("--from", help="ciff or anserini (JSONL).")] = "ciff",
    like: Annotated[Path | None, typer.Option(help="Sparse vectors or an index whose vocabulary's numbers to take.")] = None,
    scale: Annotated[float, typer.Option(help="Numbers divided by this.")] = 100.0, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Read sparse vectors that other tools wrote into a folder to index; to search it with a model, say --like."""
    from flatcoat.app.verbs_sparse import bring_in as verb

    verb(file, of, out, like, scale, quiet)


@app.command()
def search(
    model: Annotated[str, typer.Argument(help="A model, bm25, or the folder of a run.")],
    index: Annotated[Path | None, typer.Argument(help="An index; not with the folder of a run.")] = None,
    collection: Annotated[str | None, typer.Argument(help="The collection; not with the folder of a run.")] = None,
    query: Annotated[str | None, typer.Option(help="One question, answered on stdout.")] = None,
    split: Annotated[str | None, typer.Option(help="Search the queries of this split.")] = None,
    k: Annotated[int | None, typer.Option("-k", help="Documents a query: 10 for a question, 1000 for a split.")] = None,
    out: Annotated[str, typer.Option(help="TREC run; - is stdout.")] = "-",
    name: Annotated[str | None, typer.Option(help="Which index of a run's folder.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; as the documents, unless said.")] = None,
    device: Device = "auto", skip_self: Annotated[bool, typer.Option(help="Drop a document with the query's id.")] = False,
    allow: Allow = None, as_json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Search an index with the model that encoded it: a split's queries into a TREC run, or one question to look at."""
    from flatcoat.app.verbs_search import search as verb

    verb(model, index, collection, query, split, k, out, name, precision, device, skip_self, allow, as_json, quiet)


@app.command()
def rerank(
    model: Annotated[str, typer.Argument(help="A cross-encoder, or any model that scores or encodes.")],
    run: Annotated[Path, typer.Argument(help="The TREC run whose best documents are read again.")],
    collection: CollectionName,
    k: Annotated[int, typer.Option("-k", help="Documents a query that are re-ranked; the rest stays below.")] = 100,
    out: Annotated[str, typer.Option(help="TREC run; - is stdout.")] = "-",
    split: Annotated[str | None, typer.Option(help="Only the queries of this split.")] = None,
    precision: PrecisionOrAuto = "fp32", device: Device = "auto", allow: Allow = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Re-rank a run's best documents with a cross-encoder."""
    from flatcoat.app.verbs_rerank import rerank as verb

    verb(model, run, collection, k, out, split, precision, device, quiet, allow)


@app.command()
def fuse(
    runs: Annotated[list[Path], typer.Argument(help="Two or more TREC runs.")], out: str = typer.Option("-", help="- is stdout."),
    by: Annotated[str, typer.Option(help="rank (reciprocal rank) or score (normalised).")] = "rank",
    weights: Annotated[str | None, typer.Option(help="One a run, by commas: 1,0.5")] = None,
) -> None:  # fmt: skip
    """Fuse runs into a hybrid one."""
    from flatcoat.app.verbs_search import fuse as verb

    verb(runs, out, by, weights)


@app.command()
def mine(
    model: Annotated[str, typer.Argument(help="A model, bm25, or a TREC run of the split's queries.")],
    collection: CollectionName,
    out: Annotated[str, typer.Option(help="JSONL; - is stdout.")] = "-",
    split: Annotated[str, typer.Option(help="Whose queries.")] = "train",
    first: Annotated[int, typer.Option(help="First rank, positives taken out.")] = 1,
    last: Annotated[int, typer.Option(help="Last rank.")] = 50,
    absolute_margin: Annotated[float | None, typer.Option(help="Keep scores below the positive's less this.")] = None,
    relative: Annotated[float | None, typer.Option(help="Keep scores below this share of the positive's, as 0.95.")] = None,
    max_score: Annotated[float | None, typer.Option(help="Keep scores up to this.")] = None,
    approximate: Annotated[bool, typer.Option(help="Search a scan index in place of exact.")] = False,
    judge: Annotated[str | None, typer.Option(help="A cross-encoder: what it takes for an answer goes.")] = None,
    judge_above: Annotated[float, typer.Option(help="The probability above which it does.")] = 0.1,
    kind: Annotated[str, typer.Option(help="list, or draw as training does: stochastic, cache, exhaustive, dynnibal.")] = "list",
    per_query: Annotated[int, typer.Option(help="Draws a query, where they are drawn.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    changes: Changes = None, precision: Precision = "fp32", device: Device = "auto", allow: Allow = None, quiet: Quiet = False,
    workers: Workers = None,
) -> None:  # fmt: skip
    """Mine hard negatives for a split's queries. Where they are drawn, --set takes the recipe's keys, as in --set dynnibal.method=best,
    and beta, the inverse temperature (20).
    """
    from flatcoat.app.verbs_mine import mine as verb

    verb(
        model, collection, out, split, first, last, absolute_margin, relative, max_score, approximate, judge, judge_above, kind,
        per_query, seed, changes, precision, device, quiet, workers, allow,
    )  # fmt: skip


@app.command()
def evaluate(
    qrels: Annotated[Path, typer.Argument(help="TREC or BEIR judgements.")],
    runs: Annotated[list[Path], typer.Argument(help="TREC runs.")],
    measures: Annotated[str, typer.Option(help="ir-measures names, by spaces.")] = "nDCG@10 RR@10 R@100",
    by_query: Annotated[bool, typer.Option(help="Each query's values.")] = False,
    compare: Annotated[bool, typer.Option(help="Test the other runs against the first.")] = False,
    html: Html = None, allow: Allow = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Measure runs; a query a run missed scores 0."""
    from flatcoat.app.verbs_judge import evaluate as verb

    verb(qrels, runs, measures, by_query, compare, as_json, html, allow)


@app.command()
def fidelity(
    index: Annotated[Path, typer.Argument(help="An approximate index.")],
    vectors: Annotated[Path, typer.Argument(help="The documents' vectors.")],
    queries: Annotated[Path, typer.Argument(help="The queries' vectors (encode --queries).")],
    qrels: Annotated[Path | None, typer.Option(help="Judgements, for the change of each measure.")] = None,
    measures: Annotated[str, typer.Option(help="ir-measures names, by spaces.")] = "nDCG@10 RR@10 R@100",
    target_recall: Annotated[float | None, typer.Option(help="Find the cheapest setting of this recall@10.")] = None,
    max_loss: Annotated[float | None, typer.Option(help="Find the cheapest setting of this relative loss of the first measure.")] = None,
    html: Html = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Measure an approximate index against exact search, and find the setting that meets a target."""
    from flatcoat.app.verbs_judge import fidelity as verb

    verb(index, vectors, queries, qrels, measures, target_recall, max_loss, as_json, html)


@app.command()
def explain(
    model: Annotated[
        str, typer.Argument(help="A sparse or late-interaction model, a cross-encoder, or the folder of its run.")
    ],
    query: Annotated[str, typer.Argument(help="A question, or any text.")],
    document: Annotated[
        str | None, typer.Argument(help="A text that may answer it; only sparse models do without.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Terms of each text; tokens that are attended to.")] = 10,
    as_json: Json = False,
) -> None:
    """Show what a model sees in texts: a sparse one's heaviest terms, the token behind each, and which two texts share; which
    tokens a late-interaction one matches, with each match's share of the score; what a cross-encoder's query attends to.
    """
    from flatcoat.app.verbs_explain import explain as verb

    verb(model, query, document, k, as_json)


@app.command()
def check(
    things: Annotated[
        list[str],
        typer.Argument(
            help="Models, collections, vectors, indexes, runs and their folders, recipes, a teacher's scores, negatives."
        ),
    ],
    qrels: Annotated[Path | None, typer.Option(help="Judgements, for runs.")] = None,
    on: Annotated[
        str | None,
        typer.Option(help="A collection: what a model cuts off of it, whether a run, an index or a file is of it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is silently wrong; exit 1 where an answer would be."""
    from flatcoat.app.verbs_judge import check as verb

    verb(things, qrels, on, as_json)


@app.command()
def ablate(
    recipe: RecipeFile, out: Annotated[Path, typer.Option(help="The ablation's folder: its table, every result, and what is in work.")],
    seeds: Annotated[int, typer.Option(help="Trainings a variant, each from a seed of its own.")] = 3,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also every two terms at once.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A term, a stage, or 'nll alone': only these; may be repeated.")] = None,
    changes: Changes = None, allow: Allow = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Train a recipe without each of its terms and stages, and show what each is worth. Killed, it goes on where it was."""
    from flatcoat.app.verbs_ablate import ablate as verb

    verb(recipe, out, seeds, pairs, only, changes, allow, quiet, as_json)


@app.command()
def recipe(recipe: RecipeFile, changes: Changes = None, as_json: Json = False) -> None:
    """Show what a recipe resolves to, and draw its learning rate."""
    from flatcoat.app.verbs_recipe import recipe as verb

    verb(recipe, changes, as_json)


for verb in (speed, report, serve, pull, push):
    app.command()(verb)


def main() -> None:
    """The entry point: errors become one line on stderr."""
    try:
        app(standalone_mode=True)
    except FlatcoatError as error:
        sys.stderr.write(f"flatcoat: {error}\n")
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except OSError as error:
        where, said = f"{error.filename}: " if error.filename else "", error.strerror or str(error)
        full = "; free some and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        sys.stderr.write(f"flatcoat: {where}{' '.join(said.split())}{full}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("flatcoat: interrupted; run the same command again to go on\n")
        raise SystemExit(1) from None
    except (RuntimeError, MemoryError) as error:
        from flatcoat.models.memory import is_full

        if not is_full(error):
            raise
        cure = (
            "lower runtime.batch_tokens, runtime.training_batch_tokens or training.batch, or set training.cached=true"
        )
        sys.stderr.write(f"flatcoat: out of memory; {cure}\n")
        raise SystemExit(1) from None
