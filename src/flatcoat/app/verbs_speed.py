"""The verb that measures precisions: speed; and `--precision auto` of encode and rerank, which takes the quickest that it allows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatcoat.app.progress import say, tracker
from flatcoat.data.collection import open_collection
from flatcoat.data.store import Collection
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import digest, read_json, write_json
from flatcoat.records import Run

if TYPE_CHECKING:
    from flatcoat.app.speed import Row, Speed
    from flatcoat.models.base import Precision, Runtime

AUTO = "auto"
SAMPLE, ASKED = 256, 128  # documents (or pairs) and queries that `auto` measures on


def speed(
    model: str, collection: str, split: str, documents: int, queries: int, device: str, as_json: bool, quiet: bool
) -> None:  # fmt: skip
    """`flatcoat speed`."""
    from flatcoat.app.run import machine
    from flatcoat.app.speed import measure_encoder, measure_scorer
    from flatcoat.app.speed_sample import pairs_of, sample_of
    from flatcoat.app.verbs_rerank import load_scorer
    from flatcoat.models.base import runtime_of
    from flatcoat.models.source import resolve

    runtime = runtime_of(device, "fp32")
    resolve(model)  # what is no model is said before a collection is read
    opened = open_collection(collection)
    if split not in opened.splits and split != "test":  # "test" is what nobody said, and may be absent
        opened.judgements(split)
    sample = sample_of(opened, split, documents, queries)
    scorer = load_scorer(model, runtime)
    if _encodes(scorer):
        found = measure_encoder(getattr(scorer, "encoder", scorer), sample, track=tracker(quiet))
    else:
        found = measure_scorer(scorer, pairs_of(sample), track=tracker(quiet))
    if as_json:
        said = {"model": model, "collection": collection, "device": runtime.device, **found.as_json()}
        sys.stdout.write(json.dumps({**said, "machine": machine()}, ensure_ascii=False) + "\n")
    else:
        _show(found)


def _encodes(scorer: Any) -> bool:
    """Whether a scorer is an encoder too: all but cross-encoders are."""
    return hasattr(getattr(scorer, "encoder", scorer), "encode_documents")


def _show(found: Speed) -> None:
    """The table, what it was measured on, and the quickest."""
    from flatcoat.app.html.run_report import machine_line
    from flatcoat.app.run import machine
    from flatcoat.app.speed import LOSS, MEASURE

    vectors = found.unit == "documents"
    near = ["least cosine", "mean cosine"] if vectors else ["greatest score change / sd"]
    rows = [["precision", f"{found.unit}/s", "x fp32", *near, MEASURE, f"Δ {MEASURE} [95 %]"]]
    for row in found.rows:
        shown = [_number(row.least), _number(row.mean)] if vectors else [_number(row.apart)]
        rows.append([row.precision, f"{row.rate:.1f}", f"{row.times:.2f}", *shown, f"{row.quality:.4f}", _change(row)])
    sys.stdout.write("".join("\t".join(row) + "\n" for row in rows))
    sys.stdout.write(f"{_measured_on(found)}; {machine_line(machine())}\n")
    best = found.quickest()
    sys.stdout.write(f"quickest within {LOSS * 100:g} %: {_named(best)}\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _change(row: Row) -> str:
    return f"{row.change:+.2%} [{row.low:+.2%}, {row.high:+.2%}]"


def _named(row: Row) -> str:
    return row.precision if row.precision == "fp32" else f"{row.precision} ({row.times:.1f}x fp32)"


def _measured_on(found: Speed) -> str:
    pairs = f", {found.pairs} pairs" if found.pairs else ""
    return f"{found.queries} queries, {found.documents} documents{pairs}; {found.gold}"


def choose_to_encode(
    model: Any, source: str, opened: Collection, out: Path, split: str | None, quiet: bool
) -> Precision:
    """The precision of `encode --precision auto`; the one that was chosen before where work in `out` was begun under it.

    A choice lies in `.OUT.precision.json` until the folder is done (`chosen_for`). It counts only for the same model, texts and
    device, and only where `OUT.partial` holds vectors of that precision.

    Raises:
        Misuse: the collection has no such split.
        FlatcoatError: fp32's own vectors are not finite, or nothing can be measured.
    """
    from flatcoat.app.encode import facts_of

    if split is not None:
        opened.query_rows(split)
    facts = facts_of(model, source, "queries" if split else "documents", opened.documents.fingerprint)
    asked = {"split": split, "queries": opened.queries.fingerprint if split else None, "device": model.runtime.device}
    of, note = digest({**facts, **asked}), chosen_for(out)
    kept = _kept(note, of, out)
    if kept is not None:
        say(f"--precision auto: {kept}, as {out}.partial was begun", quiet)
        return kept
    chosen = measured_to_encode(model, opened, quiet)
    write_json(note, {"of": of, "precision": chosen})
    return chosen


def chosen_for(out: Path) -> Path:
    """Where the choice for a folder lies while it is being written."""
    return out.with_name(f".{out.name}.precision.json")


def _kept(note: Path, of: str, out: Path) -> Precision | None:
    """The choice under which a folder was begun."""
    done = out.with_name(f"{out.name}.partial") / "done.json"
    if not (note.is_file() and done.is_file()):
        return None
    said, begun = read_json(note), read_json(done)
    precision = said.get("precision")
    return precision if said.get("of") == of and begun.get("facts", begun).get("precision") == precision else None


def measured_to_encode(model: Any, opened: Collection, quiet: bool) -> Precision:
    """The quickest precision that loses at most 0.2 %, measured on up to 256 documents; fp32 where they are too few to tell."""
    from flatcoat.app.speed import measure_encoder
    from flatcoat.app.speed_sample import TooFew, sample_of

    judged = next((split for split in ("test", "dev", *opened.splits) if split in opened.splits), "test")
    try:
        sample = sample_of(opened, judged, SAMPLE, ASKED)
    except TooFew as few:
        return _nothing_to_tell(few, quiet)
    return _told(measure_encoder(model, sample, track=tracker(quiet)), quiet)


def choose_to_rerank(scorer: Any, run: Run, opened: Collection, split: str | None, k: int, quiet: bool) -> Precision:
    """The precision of `rerank --precision auto`, measured on up to 256 pairs of those to be read; fp32 where they are too few."""
    from flatcoat.app.speed import measure_scorer
    from flatcoat.app.speed_sample import TooFew, pairs_of_run

    try:
        pairs = pairs_of_run(run, opened, split, k, SAMPLE)
    except TooFew as few:
        return _nothing_to_tell(few, quiet)
    return _told(measure_scorer(scorer, pairs, track=tracker(quiet)), quiet)


def _nothing_to_tell(few: FlatcoatError, quiet: bool) -> Precision:
    say(f"--precision auto: fp32, for nothing can be measured: {few}", quiet)
    return "fp32"


def _told(found: Speed, quiet: bool) -> Precision:
    from flatcoat.app.speed import MEASURE

    best = found.quickest()
    change = "" if best.precision == "fp32" else f", {MEASURE} {_change(best)}"
    say(f"--precision auto: {_named(best)}, {best.rate:.1f} {found.unit}/s{change}: {_measured_on(found)}", quiet)
    return best.precision


def first_runtime(device: str, precision: str, *, workers: str | None = None) -> Runtime:
    """The runtime that a verb begins with; that of fp32 where `precision` is auto, until it is chosen.

    Raises:
        Misuse: no such device or precision, or `auto` for workers.
    """
    from flatcoat.models.base import runtime_of

    if precision == AUTO and workers:
        raise Misuse(
            "--precision auto: measures on this machine alone; with --workers, say one (flatcoat speed measures)"
        )
    return runtime_of("cpu" if workers else device, "fp32" if precision == AUTO else precision)
