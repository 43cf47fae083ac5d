"""Plant small faults in the code, one at a time, and count those that its tests notice.

    python scripts/mutants.py objectives                 # a group of GROUPS, every fault
    python scripts/mutants.py mining --sample 60 --seed 1 --jobs 2 --json runs/mutants.json
    python scripts/mutants.py src/flatcoat/mining/cache.py --list

A fault is one change of the source text: see `mutants_faults.py`. Libraries, the package and its tests are imported once; each
fault gets a fork, which forgets the changed module, what imports it and the tests, imports them anew from the changed source, and
runs the file's tests (`mutants_tests.py`) until one fails. A fork that spends three times the processor time of the unchanged code
is ended and counts as killed. Kernels of numba run as the Python that they are written in, since each fault would be compiled anew.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib._bootstrap_external as importing
import json
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from mutants_faults import Fault, faults  # noqa: E402
from mutants_tests import GROUPS, PLAIN  # noqa: E402

KNOWN = {file: tests for group in GROUPS.values() for file, tests in group.items()}
SOURCE = "src/flatcoat/"
MEMORY = 4 * 2**30  # bytes that a fork may take up


def plant(file: Path, source: bytes) -> None:
    """Have this process import the file from another source."""
    read = importing.FileLoader.get_data

    def get_data(self: Any, path: str) -> bytes:
        if (
            path.endswith(".pyc")
            and Path(path).name.split(".")[0] == file.stem
            and Path(path).parent.parent == file.parent
        ):
            raise OSError("what is kept is of the unchanged source")
        return source if Path(path) == file else read(self, path)

    importing.FileLoader.get_data = get_data
    sys.dont_write_bytecode = True


def forget(file: Path) -> None:
    """Drop the tests, a module and everything that imports it, so that they are imported anew."""
    gone = {module_of(file)}
    texts = {name: _text(module) for name, module in sys.modules.items() if name.startswith("flatcoat.")}
    while more := {
        name for name, text in texts.items() if name not in gone and any(_imports(text, one) for one in gone)
    }:
        gone |= more
    tests = str(ROOT / "tests")
    gone |= {
        name for name, module in sys.modules.items() if (getattr(module, "__file__", None) or "").startswith(tests)
    }
    if "beartype._check.convert._convcoerce" in sys.modules:  # what it keeps by a class's name is the old class's
        coerced = sys.modules["beartype._check.convert._convcoerce"]
        coerced._hint_repr_to_hint = type(coerced._hint_repr_to_hint)()  # pyright: ignore[reportAttributeAccessIssue]
    for name in gone:
        package, _, own = name.rpartition(".")
        sys.modules.pop(name, None)
        if package in sys.modules:
            vars(sys.modules[package]).pop(own, None)


def _text(module: Any) -> str:
    file = getattr(module, "__file__", None)
    return Path(file).read_text(encoding="utf-8") if file else ""


def _imports(text: str, name: str) -> bool:
    package, _, own = name.rpartition(".")
    return f"from {name} import" in text or f"from {package} import {own}" in text


def module_of(file: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)


def forked(file: Path, source: bytes, tests: list[str], seconds: float | None) -> int:
    """Run tests against a source in a fork, which ends itself past its processor time. Gives its process number."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            signal.alarm(int(20 * seconds) + 60)  # for one that waits and spends nothing
        silent = os.open(os.devnull, os.O_WRONLY)
        if seconds is not None:
            os.dup2(silent, 1)
            os.dup2(silent, 2)
        forget(file)
        plant(file, source)
        status = run_tests(tests, "-x", "--capture=sys")
    finally:
        os._exit(status)


def run_tests(tests: list[str], *options: str) -> int:
    """Run pytest in this process, with the same examples of hypothesis each time."""
    import pytest
    from hypothesis import settings

    settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    settings.load_profile("mutants")
    return int(pytest.main(["-q", "-p", "no:cacheprovider", *options, *tests]))


def hunt(file: str, some: list[Fault], tests: list[str], jobs: int) -> dict[str, Any]:
    """What became of each fault of a file: killed, late (ended past its time) or survived."""
    path = ROOT / SOURCE / file
    source = path.read_bytes()
    status, alone = _waited(forked(path, source, tests, None))[1:]
    if status:
        sys.stderr.write(f"{file}: its tests do not pass as it stands (pytest's status {status}): {' '.join(tests)}\n")
        return {}
    fates: list[str] = [""] * len(some)
    running: dict[int, int] = {}
    waiting = list(enumerate(some))
    while waiting or running:
        while waiting and len(running) < jobs:
            at, fault = waiting.pop(0)
            changed = source[: fault.start] + fault.after.encode() + source[fault.end :]
            running[forked(path, changed, tests, max(5.0, 3 * alone))] = at
        child, status, _ = _waited(-1)
        fates[running.pop(child)] = {0: "survived", -1: "late"}.get(status, "killed")
    counts = {fate: fates.count(fate) for fate in ("killed", "late", "survived")}
    sys.stderr.write(f"{file}: {counts}, tests alone {alone:.1f} s\n")
    left = [asdict(fault) for fault, fate in zip(some, fates, strict=True) if fate == "survived"]
    return {"faults": len(some), **counts, "seconds": round(alone, 1), "tests": tests, "survivors": left}


def _waited(child: int) -> tuple[int, int, float]:
    found, status, used = os.wait4(child, 0)
    return found, os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1, used.ru_utime + used.ru_stime


def hosted(work: Mapping[str, list[Fault]], jobs: int, plain: bool) -> dict[str, Any]:
    """`hunt` each file, in a process that has imported the package and the tests, with numba's compiler off where `plain`."""
    receive, send = os.pipe()
    host = os.fork()
    if not host:
        os.close(receive)
        os.environ.update({"NUMBA_DISABLE_JIT": "1"} if plain else {}, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        os.chdir(ROOT)
        found = {}
        try:
            with Path(os.devnull).open("w") as silent, contextlib.redirect_stdout(silent):
                run_tests(sorted({test for file in work for test in KNOWN[file]}), "--collect-only")
            for file, some in work.items():
                if one := hunt(file, some, KNOWN[file], jobs):
                    found[file] = one
        finally:
            if sys.exc_info()[0]:
                traceback.print_exc()
            with os.fdopen(send, "w") as pipe:
                json.dump(found, pipe)
            os._exit(0 if len(found) == len(work) else 1)
    os.close(send)
    with os.fdopen(receive) as pipe:
        found = json.load(pipe)
    os.waitpid(host, 0)
    return found


def said(results: Mapping[str, Any]) -> str:
    """A table of results."""
    lines = ["| file | faults | killed | past its time | survived | share killed |", "|---|---|---|---|---|---|"]
    sums = [sum(one[name] for one in results.values()) for name in ("faults", "killed", "late", "survived")]
    rows = [
        (f"`{file}`", *(one[name] for name in ("faults", "killed", "late", "survived")))
        for file, one in results.items()
    ]
    for name, *counts in [*rows, ("all", *sums)]:
        share = 1 - counts[3] / counts[0] if counts[0] else 1.0
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {share:.1%} |")
    return "\n".join(lines)


def chosen(given: argparse.Namespace, before: Mapping[str, Any]) -> dict[str, list[Fault]]:
    """The faults to be planted, by file."""
    work = {}
    for file in [file for what in given.what for file in GROUPS.get(what, [what.removeprefix(SOURCE)])]:
        if given.again:
            work |= {file: [Fault(**one) for one in before[file]["survivors"]]} if file in before else {}
            continue
        some = faults((ROOT / SOURCE / file).read_text(encoding="utf-8"))
        if given.sample is not None and given.sample < len(some):
            picked = sorted(random.Random(given.seed).sample(range(len(some)), given.sample))
            some = [some[at] for at in picked]
        work[file] = some
    return work


def main() -> None:
    """Read the command line, run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="groups of mutants_tests.py, or its files")
    parser.add_argument("--sample", type=int, help="so many faults a file, at random; all where left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where results go, with every survivor")
    parser.add_argument(
        "--again", type=Path, help="only what survived in this earlier --json of the same sources; its counts go on"
    )
    parser.add_argument("--list", action="store_true", help="only list the faults")
    given = parser.parse_args()
    before = json.loads(given.again.read_text(encoding="utf-8")) if given.again else {}
    work = chosen(given, before)
    if given.list:
        sys.stdout.writelines(f"{file}:{f.line}: {f.before!r} -> {f.after!r}\n" for file in work for f in work[file])
        return
    results: dict[str, Any] = {}
    for plain in (False, True):
        own = {file: some for file, some in work.items() if (file in PLAIN) == plain}
        results |= hosted(own, given.jobs, plain) if own else {}
    for file in results.keys() & before.keys():
        one = results[file]
        one |= {"faults": before[file]["faults"], "late": one["late"] + before[file]["late"]}
        one["killed"] = one["faults"] - one["late"] - one["survived"]
    if given.json:
        given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    for file, one in results.items():
        sys.stdout.writelines(f"{file}:{f['line']}: {f['before']!r} -> {f['after']!r}\n" for f in one["survivors"])
    sys.stdout.write(said(results) + "\n")


if __name__ == "__main__":
    main()
