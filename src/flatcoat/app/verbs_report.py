"""The verb that makes a report again: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flatcoat.errors import Misuse

if TYPE_CHECKING:
    from flatcoat.app.html.page import Report


def report(folder: Path, out: Path | None, figures: Path | None) -> None:
    """`flatcoat report`.

    Raises:
        Misuse: the folder is no run's or ablation's, or figures are asked for and what draws them is not installed.
        FlatcoatError: the run or ablation is not done, or a file of it is damaged.
    """
    made = report_of(folder)
    written = []
    if figures is not None:
        from flatcoat.app.html.figures import write_figures

        written = write_figures(made, figures)
    path = made.write(out or folder / "report.html")
    sys.stdout.write(f"{path}\n")
    if figures is not None:
        sys.stdout.write(f"{figures}: {len(written)} files\n")


def report_of(folder: Path) -> Report:
    """The report of a run's or an ablation's folder. Raises as `report` does."""
    from flatcoat.app.html.run_report import is_run, run_report
    from flatcoat.app.html.study_report import ablation_report, is_ablation

    if not folder.is_dir():
        raise Misuse(f"{folder}: no such folder; want one that flatcoat run or flatcoat ablate made")
    if is_ablation(folder):
        return ablation_report(folder)
    if is_run(folder):
        return run_report(folder)
    raise Misuse(f"{folder}: neither a run's folder (results.json) nor an ablation's (ablation.json)")
