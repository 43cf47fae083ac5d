"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]
Out = Annotated[Path, typer.Option(help="Where the result goes; written whole or not at all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE, as in training.steps=100; may be repeated.")
]
Allow = Annotated[list[str] | None, typer.Option(help="Go on although this check finds an error; may be repeated.")]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe (TOML).")]
CollectionName = Annotated[
    str, typer.Argument(help="A folder or file, files:FOLDER, python:, ir_datasets:ID or hf:ID.")
]
Html = Annotated[Path | None, typer.Option(help="Also write a report as one HTML file.")]
ModelName = Annotated[str, typer.Argument(help="A folder, a Hub id, or pypi:DISTRIBUTION.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or int8.")]
PrecisionOrAuto = Annotated[
    str, typer.Option(help="fp32, bf16, int8, or auto: the quickest that is measured to lose at most 0.2 % of nDCG@10.")
]
Workers = Annotated[
    str | None, typer.Option(help="Divide the work: a number of processes, ray:local[:N], or ray://HOST:PORT[/N].")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse a collection with any problem.")]
