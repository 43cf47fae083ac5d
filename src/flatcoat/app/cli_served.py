"""The verbs of what is there: its speed, a report of it, serving it, bringing it out of an engine, sending it to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatcoat.app.cli_options import CollectionName, Device, Json, ModelName, Out, Quiet


def speed(
    model: ModelName, collection: CollectionName,
    split: Annotated[str, typer.Option(help="Whose queries and judgements.")] = "test",
    documents: Annotated[int, typer.Option(help="Most documents; a cross-encoder reads as many pairs, of 10 queries or more.")] = 512,
    queries: Annotated[int, typer.Option(help="Most queries.")] = 200,
    device: Device = "auto", as_json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure each precision of a model on this machine and a sample of a collection: its rate, how far its vectors are from fp32's,
    and what it costs of nDCG@10 when queries and documents are both encoded so.
    """
    from flatcoat.app.verbs_speed import speed as verb

    verb(model, collection, split, documents, queries, device, as_json, quiet)


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run or an ablation.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes; report.html in the folder unless said.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for each chart as SVG and PNG, each table as LaTeX and Markdown.")
    ] = None,
) -> None:
    """Make a run's or an ablation's report again from its folder, computing nothing anew."""
    from flatcoat.app.verbs_report import report as verb

    verb(folder, out, figures)


def serve(
    folder: Annotated[Path | None, typer.Argument(help="The folder of a run.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine --keys is wanted.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8080,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    retriever: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated, the first is the default.")] = None,
    reranker: Annotated[str | None, typer.Option(help="A model that re-ranks; none for none.")] = None,
    keys: Annotated[Path | None, typer.Option(help="TOML of hashed keys: read = [...], write = [...].")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Let other machines in without a key.")] = False,
    new_key: Annotated[bool, typer.Option("--new-key", help="Print a key and its hash, and serve nothing.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Take no documents.")] = False,
    max_k: Annotated[int, typer.Option(help="The deepest rank given.")] = 1000,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.")] = 2_000_000,
    max_query: Annotated[int, typer.Option(help="Characters of a query.")] = 4000,
    max_concurrent: Annotated[int, typer.Option(help="Requests at once, a worker.")] = 256,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8; as the documents, unless said.")] = None,
    device: Device = "auto", threads: Annotated[int | None, typer.Option(help="Of one worker's model.")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Answer over HTTP, with a page to look at: search, explanations, embeddings, re-ranking, and documents that come and go."""
    from flatcoat.app.verbs_serve import serve as verb

    verb(
        folder, host, port, workers, retriever, reranker, keys, no_keys, new_key, read_only, max_k, max_body, max_query, max_concurrent,
        precision, device, threads, quiet,
    )  # fmt: skip


def pull(
    index: Annotated[Path, typer.Argument(help="An index that is in an engine.")], out: Out,
    field: Annotated[str | None, typer.Option(help="Which vectors, where it holds several.")] = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Bring vectors back out of an engine, into a folder of vectors."""
    from flatcoat.app.verbs_engine import pull as verb

    verb(index, out, field, quiet)


def push(
    model: Annotated[str, typer.Argument(help="A model's folder, or a run's.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; write the folder to look at.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where --dry-run writes; NAME-push unless said.")] = None,
    license: Annotated[str | None, typer.Option(help="The Hub's name of a licence; none unless said.")] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Send a model and its card to the Hugging Face Hub, in one commit."""
    from flatcoat.app.verbs_hub import push as verb

    verb(model, repo, private, dry_run, out, license, quiet)
