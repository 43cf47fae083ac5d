"""Progress on stderr, with rate and time left; nothing where stderr is no terminal, or with --quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from flatcoat.records import Item, Track, silent


def tracker(quiet: bool) -> Track:
    """The `Track` of a command."""
    return silent if quiet or not sys.stderr.isatty() else _track


def _track(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, rate="")
        for item in items:
            yield item
            speed = progress.tasks[0].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")


def say(text: str, quiet: bool = False) -> None:
    """One line to stderr."""
    if not quiet:
        sys.stderr.write(f"flatcoat: {text}\n")
        sys.stderr.flush()
