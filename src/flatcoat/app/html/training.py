"""What training said, as curves: loss and its terms, rate, gradients, sparse health, and how its negatives fared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flatcoat.app.html.page import Figure, Section
from flatcoat.app.html.plots import Line, line_chart, moving_mean
from flatcoat.app.html.svg import number
from flatcoat.app.html.tables import Table
from flatcoat.errors import FlatcoatError

MOST = 240  # points of a line
ROWS = 25  # of the table behind a chart
LIMITS = {"saturation": 0.8, "noise": 0.2, "dead": 0.1, "same": 0.5}
"""Of a side's texts, the share at which a sparse model's training raises an alarm (training/health.py)."""
BESIDE = (
    ("loss", "loss", "loss, moving mean"),
    ("of the best", "negatives/of_best", "share of draws among the best documents"),
    ("effective draws", "negatives/effective", "share"),
    ("accepted draws", "negatives/accepted", "share"),
    ("staleness", "negatives/stale", "steps since they followed the model"),
)
NOISY = ("loss", "gradient norm")
SAID = {"saturation": "texts that hold a heaviest term", "noise": "weight on punctuation, stop words, special tokens",
        "dead": "texts without a term", "same": "texts represented as another"}  # fmt: skip

Log = list[dict[str, Any]]


def read_log(path: Path) -> Log:
    """The lines of a training's log. Raises FlatcoatError on a line that is not JSON; a last line cut short is left out."""
    found: Log = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for i, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise FlatcoatError(f"{path}:{i}: not a line of JSON ({error})") from error
    return found


def logs_of(folder: Path) -> list[tuple[str, Path]]:
    """The logs below a run's folder, in the order of their trainings: (heading, file)."""
    found = []
    stages = folder / "stages"
    for stage in sorted(stages.iterdir()) if stages.is_dir() else []:
        for name in ("training", "training-query"):
            path = stage / name / "log.jsonl"
            side = " (queries' tower)" if name == "training-query" else ""
            if path.is_file():
                found.append((f"Training: {stage.name}{side}", path))
    own = folder / "training" / "log.jsonl"
    return [*found, ("Training", own)] if own.is_file() else found


def line_of(log: Log, name: str, label: str = "", most: int = MOST) -> Line:
    """A value of the log over steps; means of windows where it has more than `most` steps."""
    pairs = [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]
    pairs = [(step, value) for step, value in pairs if math.isfinite(value)]
    size = math.ceil(len(pairs) / most) or 1
    windows = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    mean = [(sum(s for s, _ in w) / len(w), sum(v for _, v in w) / len(w)) for w in windows]
    return Line(label or name, [s for s, _ in mean], [v for _, v in mean])


def table_of(lines: Sequence[Line]) -> Table:
    """The lines' values at some of their steps."""
    rows = []
    for line in lines:
        places = sorted({round(i * (len(line.x) - 1) / (ROWS - 1)) for i in range(ROWS)}) if line.x else []
        rows += [[line.label, f"{line.x[i]:g}", number(line.y[i])] for i in places]
    return Table(["value", "step", "mean around it"], rows)


def _names(log: Log, prefix: str) -> list[str]:
    names = dict.fromkeys(name for line in log for name in line)
    return [name for name in names if name.startswith(prefix)]


def training_section(section: Section, heading: str, log: Log, *, vocabulary: int | None = None) -> Section:
    """Curves of one log in a section; what the log does not have is left out."""
    if not log:
        return section.missing("The log holds no step yet.")
    seconds = [line["seconds"] for line in log if "seconds" in line]
    steps = f"{len(log)} steps"
    size = math.ceil(len(log) / MOST)
    windows = (
        f" Curves are means of {size} steps each; thick ones are moving means."
        if size > 1
        else " Thick curves are moving means."
    )
    section.text(f"{steps}, {number(sum(seconds), 3)} s in steps.{windows}")
    for title, names, y_label, log_scale in _groups(log):
        lines = [line for name in names if (line := line_of(log, name, _plain(name))).x]
        if lines:
            section.figure(
                _figure(f"{heading}: {title}", lines, y_label, log=log_scale, smooth=title in NOISY), half=True
            )
    _health(section, heading, log, vocabulary)
    return section


def curves_beside(section: Section, heading: str, logs: Mapping[str, Log]) -> Section:
    """The same values of several logs in one chart each: a line a log, of those that have the value."""
    for title, name, y_label in BESIDE:
        lines = [line for label, log in logs.items() if (line := line_of(log, name, label)).x]
        if name == "loss":  # noise of a dozen lines hides them all
            lines = [Line(line.label, line.x, moving_mean(line.y)) for line in lines]
        if lines:
            section.figure(_figure(f"{heading}: {title}", lines, y_label))
    return section


def _plain(name: str) -> str:
    return name.split("/", 1)[-1]


def _groups(log: Log) -> Iterator[tuple[str, list[str], str, bool]]:
    """(title, names in the log, axis, whether logarithmic) of each chart."""
    parts = _names(log, "loss/")
    yield "loss", ["loss"] if len(parts) == 1 else ["loss", *parts], "loss", False
    yield "learning rate", ["rate"], "rate", False
    yield "gradient norm", ["gradient_norm"], "norm, before clipping", False
    yield "gradient of each term", _names(log, "gradient/"), "norm on the served encoder", False
    yield "gradient of each term on the cross-encoder", _names(log, "gradient_cross/"), "norm", False
    yield "dev", ["dev"], "measure on the dev split", False
    yield "terms a text", _names(log, "active/"), "terms, mean of the batch", True
    yield "sparsity's weight λ", _names(log, "lambda/"), "λ", True
    shares = [f"negatives/{name}" for name in ("accepted", "effective", "of_best")]
    yield "negatives, shares", shares, "share", False
    yield "negatives, staleness", ["negatives/stale"], "steps since they followed the model", False
    others = [n for n in _names(log, "negatives/") if n not in (*shares, "negatives/stale")]
    for name in others:
        yield f"negatives, {_plain(name)}", [name], _plain(name), False
    yield "negatives a query", ["negatives"], "in the loss, masked ones left out", False


def _figure(
    title: str, lines: Sequence[Line], y_label: str, *, log: bool = False, limits: Sequence[tuple[str, float]] = (), smooth: bool = False
) -> Figure:  # fmt: skip
    draw = lambda n, t, w: line_chart(n, t, lines, w, y_label=y_label, log=log, limits=limits, smooth=smooth)  # noqa: E731
    return Figure(title, draw, table_of(lines))


def _health(section: Section, heading: str, log: Log, vocabulary: int | None) -> None:
    """A sparse model's signs of life, with the level of each alarm."""
    if vocabulary:
        ends = [(side, line.y[-1]) for side in ("query", "document") if (line := line_of(log, f"active/{side}")).y]
        if ends:
            said = "; ".join(f"{side}: {number(v, 3)} terms, {v / vocabulary:.2%}" for side, v in ends)
            section.text(f"At the end, of a vocabulary of {vocabulary} terms: {said}.")
    alarms = []
    for name, limit in LIMITS.items():
        lines = [line for side in ("query", "document") if (line := line_of(log, f"{name}/{side}", side)).x]
        alarms += [alarm for line in lines if (alarm := _alarm(log, name, line.label, limit))]
        if lines:
            title, limits = f"{heading}: {name}", [("alarm above", limit)]
            section.figure(_figure(title, lines, f"share: {SAID[name]}", limits=limits), half=True)
    section.items(alarms, kind="warning")


def _alarm(log: Log, name: str, side: str, limit: float) -> str | None:
    over = [line["step"] for line in log if line.get(f"{name}/{side}", 0.0) > limit]
    if not over:
        return None
    return f"{name}, {side}: above {limit:g} at {len(over)} of the steps that were looked at, first at step {over[0]} ({SAID[name]})"
