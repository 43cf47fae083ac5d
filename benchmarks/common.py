"""What every benchmark shares: runs in processes of their own, medians, and a table that says how it was made."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("FLATCOAT_RESULTS") or Path(__file__).parent / "results")  # where tables are written


def alternate(
    script: str, names: list[str], rounds: int, extra: list[str], interpreters: dict[str, str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Run `script --one NAME` in a fresh process, A B A B, and gather the JSON line that each prints.

    Names in `interpreters` run by another Python.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            python = (interpreters or {}).get(name, sys.executable)
            done = subprocess.run([python, script, "--one", name, *extra], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"round {number + 1}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def medians(rows: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Median, least and most of one number."""
    values = [row[key] for row in rows]
    return statistics.median(values), min(values), max(values)


def median_ratio(rows: list[dict[str, Any]], base: list[dict[str, Any]], key: str) -> float:
    """Median of the rounds' ratios of one number to the same round's of `base`."""
    return statistics.median(a[key] / b[key] for a, b in zip(rows, base, strict=True))


def peak_megabytes() -> float:
    """The most memory this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def command(script: str) -> str:
    """The command line of this run, its arguments without folders of this machine."""
    return shlex.join(["python", f"benchmarks/{script}.py", *(Path(a).name if "/" in a else a for a in sys.argv[1:])])


def write_table(name: str, script: str, header: list[str], rows: list[list[Any]], note: str = "") -> None:
    """Write `results/NAME.tsv`, with machine, versions, date and command, and print it."""
    from flatcoat.app.run import machine

    facts = machine()
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    lines = [f"# {facts['processor']}, {facts['cores']} cores, Python {facts['python']}, {versions}, {facts['date']}",
             f"# {command(script)}"]  # fmt: skip
    lines += [f"# {line}" for line in note.splitlines()]
    lines += ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def quietly(make: Callable[[], Any]) -> Any:
    """Call with transformers' chatter off."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return make()
