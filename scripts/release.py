"""Build the distribution and try it as a stranger would: in clean environments, with each extra, on each Python.

    python scripts/release.py --extras search evaluate --pythons python3.11 python3.12

Prints a table; exit 1 where a wheel is too large, lacks a file, or does not install and run.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1_000_000  # bytes
WANTED = (
    "flatcoat/py.typed",
    "flatcoat/recipes/quickstart.toml",
    "flatcoat/app/serve/page/index.html",
    "licenses/LICENSE",
)
SMOKE = {  # what must run with the core and this extra alone
    "": "import flatcoat.app.cli, flatcoat.models.checkpoint, flatcoat.objectives.contrastive, flatcoat.training.step",
    "search": "import bm25s, faiss; from flatcoat.index import inverted, store; from flatcoat.mining import dynnibal",
    "evaluate": "from flatcoat.evaluation.measures import parse; parse(['nDCG@10']); import flatcoat.evaluation.significance",
    "processes": "import accelerate, flatcoat.training.processes",
    "logs": "import tensorboard, flatcoat.training.log",
    "tables": "import pyarrow, flatcoat.data.tabular",
    "hub": "import datasets, ir_datasets, flatcoat.data.ir_datasets",
    "serve": "import fastapi, prometheus_client, uvicorn, flatcoat.app.serve.api",
    "documents": "import markdown_it, pypdf, yaml, flatcoat.data.documents",
    "figures": "import cairosvg, flatcoat.app.html.figures",
    "engines": "import psycopg, pymilvus, qdrant_client; from flatcoat.index.remote import milvus, postgres, qdrant",
    "ray": "import ray, flatcoat.app.workers_ray",
    "haystack": "import haystack, flatcoat.app.integrations.haystack",
    "langchain": "import langchain_core, flatcoat.app.integrations.langchain",
    "mteb": "import mteb, flatcoat.app.integrations.mteb",
    "all": "import faiss, fastapi, pyarrow; from flatcoat.app.serve import api",
}  # fmt: skip
VERBS = (("--help",), ("recipe", "recipes/quickstart.toml", "--json"))


def build(out: Path) -> Path:
    """The wheel, built from the source distribution as installers do."""
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("*.whl"))


def look(wheel: Path) -> list[str]:
    """What is wrong with a wheel's content."""
    names = zipfile.ZipFile(wheel).namelist()
    wrong = [f"{wheel.name} has no {want}" for want in WANTED if not any(name.endswith(want) for name in names)]
    odd = [name for name in names if not name.startswith("flatcoat")]
    if odd:
        wrong.append(f"{wheel.name} holds {odd[0]}, which is not ours")
    if wheel.stat().st_size >= LIMIT:
        wrong.append(f"{wheel.name} has {wheel.stat().st_size} bytes; want less than {LIMIT}")
    return wrong


def attempt(wheel: Path, python: str, extra: str, constraints: bool) -> tuple[str, float]:
    """Install a wheel with one extra in a new environment and run it, away from the checkout; gives what happened, and seconds."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside = folder / "env" / "bin"
        steps = [
            [python, "-m", "venv", str(folder / "env")],
            [str(inside / "pip"), "install", "-q", "--disable-pip-version-check",
             *(["-c", str(ROOT / "constraints.txt")] if constraints else []), f"{wheel}[{extra}]" if extra else str(wheel)],
            [str(inside / "python"), "-c", SMOKE[extra]],
            *([str(inside / "flatcoat"), *verb] for verb in VERBS),
        ]  # fmt: skip
        for step in steps:
            done = subprocess.run(step, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no word"])[-1]
                return f"{Path(step[0]).name} failed: {said[:160]}", time.perf_counter() - began
    return "installs and runs", time.perf_counter() - began


def main() -> int:
    """Build, look, install, run; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="where the distributions go (default: a temporary folder)")
    parser.add_argument("--pythons", nargs="*", default=[sys.executable])
    parser.add_argument("--extras", nargs="*", default=list(SMOKE), help="names of extras; '' is the core alone")
    parser.add_argument("--unpinned", action="store_true", help="take the newest versions in place of constraints.txt")
    given = parser.parse_args()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    unknown = [extra for extra in given.extras if extra and extra not in declared]
    if unknown:
        parser.error(f"no extra {unknown[0]!r}; there are {', '.join(declared)}")
    out = given.out or Path(tempfile.mkdtemp())
    wheel = build(out)
    wrong = look(wheel)
    print(
        f"{wheel.name}: {wheel.stat().st_size:,} bytes\n\n| Python | extra | outcome | seconds |\n| --- | --- | --- | --- |"
    )
    for python in given.pythons:
        said = (
            subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
            .stdout.strip()
            .removeprefix("Python ")
        )
        for extra in given.extras:
            outcome, seconds = attempt(wheel, python, extra, not given.unpinned)
            print(f"| {said} | {extra or '(core)'} | {outcome} | {seconds:.0f} |", flush=True)
            if outcome != "installs and runs":
                wrong.append(f"{said}, {extra or 'core'}: {outcome}")
    print(f"\n{platform.machine()}, {platform.system()}, {datetime.now(UTC).date()}")
    if given.out is None:
        shutil.rmtree(out)
    for line in wrong:
        sys.stderr.write(f"release: {line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
