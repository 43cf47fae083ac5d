"""Make every table that README and docs show again, and say which numbers moved.

    python scripts/reproduce.py [--list] [--only NAME …] [--quick] [--within MINUTES] [--collections FOLDER] [--out FOLDER]

`benchmarks/claims.toml` has what is claimed; nothing in `benchmarks/results` is changed: new tables go to OUT/results, and each is compared
with the committed one, row by row. What is done is kept in OUT and not done again while its command and the committed table stay; `--again`
does it anew. A claim is `same`, `moved` (and the numbers are shown, old and new), `other inputs` (the collection has another size: its
numbers cannot be held against the old), `missing input`, `no time`, or `failed`. The exit status is 1 where a number of quality moved, a
row is gone or a command failed; speeds alone, which depend on the machine and what else it does, are told and do not fail.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from claim_tables import Columns, differences, other_sizes, read_results  # noqa: E402

QUICK = 2.0  # minutes that a quick claim takes at most
COLUMNS = ("keys", "quality", "speed", "words", "beside", "base", "within")


@dataclass(frozen=True)
class Claims:
    """What claims.toml says, and where the committed tables are."""

    said: Mapping[str, Any]
    results: Path

    @classmethod
    def read(cls, path: Path, results: Path) -> Claims:
        """Read the list."""
        return cls({"collections": {}, "scratch": {}, "made": {}, **tomllib.loads(path.read_text("utf-8"))}, results)

    def names(self) -> list[str]:
        """Every claim, the quickest first."""
        return sorted(self.said["claims"], key=lambda name: (self.said["claims"][name]["minutes"], name))

    def committed(self, name: str) -> Path:
        """The file whose numbers are claimed."""
        paths = [self.results / f"{name}{ending}" for ending in (".tsv", ".md")]
        return next((path for path in paths if path.is_file()), paths[0])

    def columns(self, name: str) -> Columns:
        """What each column of it is."""
        said = self.said["claims"][name]
        kept = {key: tuple(v) if isinstance(v, list) else v for key, v in said.items() if key in COLUMNS}
        return Columns(**kept)

    def words(self, name: str) -> list[str]:
        """Its command: as said, or as its file has it. Raises ValueError where there is none."""
        said = self.said["claims"][name].get("command")
        if said is None:
            lines = self.committed(name).read_text(encoding="utf-8").splitlines()
            said = next((line.strip("# `") for line in lines if line.startswith(("# python ", "`python "))), None)
        if said is None:
            raise ValueError(f"{self.committed(name)}: no command in it; claims.toml wants one for {name}")
        return shlex.split(said)


@dataclass(frozen=True)
class Place:
    """Where things are, and by what they are run."""

    out: Path
    collections: Path | None = None
    peers_python: Path | None = None
    again: bool = False
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    @property
    def work(self) -> Path:
        """What is made on the way."""
        return self.out / "work"


@dataclass
class Outcome:
    """What became of a claim."""

    name: str
    status: str
    why: str = ""
    seconds: float = 0.0
    moved: list[dict[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    key: str = ""

    @property
    def bad(self) -> bool:
        """Whether it speaks against what is claimed."""
        return self.status == "failed" or (
            self.status == "moved" and any(d["kind"] not in ("speed", "new") for d in self.moved)
        )


class Missing(Exception):
    """An input is not there."""


def reads(claims: Claims, words: list[str]) -> list[str]:
    """The names of inputs in a command: whole words, and what stands behind `=` in one."""
    known = {*claims.said["collections"], *claims.said["scratch"], *claims.said["made"]}
    return [name for word in words if (name := word.rsplit("=", 1)[-1]) in known]


def minutes_of(claims: Claims, name: str, place: Place, seen: set[str] | None = None) -> float:
    """What a claim takes, with what must be made first; of what is `seen` the time is counted already."""
    total, waiting = claims.said["claims"][name]["minutes"], reads(claims, claims.words(name))
    seen = set() if seen is None else seen
    while waiting:
        made = waiting.pop()
        said = claims.said["made"].get(made)
        if said is None or made in seen:
            continue
        seen.add(made)
        if "of" in said:
            waiting.append(said["of"])
        elif not (place.work / f"{made}.done").exists():
            total += said["minutes"]
            waiting += reads(claims, shlex.split(said["command"]))
    return float(total)


def path_of(claims: Claims, name: str, place: Place) -> Path:
    """Where an input is; it is made where it can be. Raises Missing where it is not there."""
    if name in claims.said["collections"]:
        folder = place.collections / name if place.collections else None
        if folder is None or not folder.exists():
            where = place.collections or "a folder said by --collections"
            raise Missing(f"{name} is not in {where}. {claims.said['collections'][name]}")
        return folder.resolve()
    if name in claims.said["scratch"]:
        return place.work / name
    said = claims.said["made"][name]
    if "of" in said:
        return path_of(claims, said["of"], place) / said["path"]
    folder = place.work / name
    if not (place.work / f"{name}.done").exists():
        place.say(f"{name}: made first, about {said['minutes']:g} minutes")
        done = run(ready(claims, shlex.split(said["command"]), place, {name: folder}), place, f"made-{name}")
        if done:
            raise RuntimeError(f"{name} could not be made: {done}")
        (place.work / f"{name}.done").touch()
    return folder


def ready(claims: Claims, words: list[str], place: Place, own: Mapping[str, Path]) -> list[str]:
    """A command as it is run here: interpreters, scripts and inputs by their paths."""
    made: list[str] = []
    for word in words:
        head, _, last = word.rpartition("=")
        if last in own or reads(claims, [word]):
            path = own[last] if last in own else path_of(claims, last, place)
            made.append(f"{head}={path}" if head else str(path))
        elif word == "python" and made:
            made.append(str(place.peers_python))
        else:
            made.append(str(ROOT / word) if word.startswith(("benchmarks/", "recipes/")) else word)
    program = {"python": [sys.executable], "flatcoat": [sys.executable, "-m", "flatcoat"]}
    return [*program.get(made[0], [made[0]]), *made[1:]]


def run(command: list[str], place: Place, name: str) -> str:
    """Run it in the work folder; what went wrong, in a line, or nothing."""
    place.work.mkdir(parents=True, exist_ok=True)
    log = place.out / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        file.write(f"{shlex.join(command)}\n")
        file.flush()
        environment = {**os.environ, "FLATCOAT_RESULTS": str(place.out / "results")}
        try:
            done = subprocess.run(command, cwd=place.work, stdout=file, stderr=subprocess.STDOUT, env=environment)
        except OSError as error:
            return f"{command[0]} cannot be started: {error.strerror}"
    if not done.returncode:
        return ""
    last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1]
    return f"exit {done.returncode}: {last.strip()[-300:]} ({log})"


def without_peers(claims: Claims, name: str, place: Place) -> tuple[list[str], tuple[str, ...]]:
    """The command, and rows that are not expected: those of engines in another Python, where none is said."""
    words, said = claims.words(name), claims.said["claims"][name]
    left_out = tuple(said.get("rows_optional", ()))
    other = said.get("other_python")
    if other is None or place.peers_python is not None:
        return words, left_out
    first = words.index(other["drop"][0])  # an option and its value, not the `python` that the command begins with
    del words[first : first + len(other["drop"])]
    return [other.get("swap", {}).get(word, word) for word in words], (*left_out, *other["rows"])


def attempt(claims: Claims, name: str, place: Place) -> Outcome:
    """Make one claim's table again, and compare."""
    said = claims.said["claims"][name]
    for module in said.get("modules", ()):
        if importlib.util.find_spec(module) is None:
            return Outcome(name, "missing input", f"{module} is not installed: make bench-setup")
    words, left_out = without_peers(claims, name, place)
    made, new = targets(claims, name, place)
    try:
        command = ready(claims, words, place, {"OUT": made})
        began = time.monotonic()
        wrong = run(command, place, name)
    except Missing as missing:
        return Outcome(name, "missing input", str(missing))
    except RuntimeError as error:
        return Outcome(name, "failed", str(error))
    outcome = Outcome(name, "failed", wrong, time.monotonic() - began)
    return outcome if wrong else compared(claims, name, new, left_out, outcome)


def targets(claims: Claims, name: str, place: Place) -> tuple[Path, Path]:
    """What OUT stands for in a command, and the table it will make; what it reads of other tables is laid beside it."""
    said, results = claims.said["claims"][name], place.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    for other in said.get("reads", ()):
        if not (results / f"{other}.tsv").exists():
            (results / f"{other}.tsv").write_bytes(claims.committed(other).read_bytes())
    made = place.work / name
    if "product" not in said:
        new = results / claims.committed(name).name
        new.unlink(missing_ok=True)
        return made, new
    if place.again and made.is_dir():  # else a folder goes on where it was stopped
        shutil.rmtree(made)
    return made, Path(said["product"].replace("OUT", str(made)))


def compared(claims: Claims, name: str, new: Path, left_out: tuple[str, ...], outcome: Outcome) -> Outcome:
    """The outcome of a table that was made."""
    try:
        before, after = read_results(claims.committed(name)), read_results(new)
        found = differences(before, after, claims.columns(name), left_out)
    except (OSError, ValueError) as error:
        outcome.why = str(error)
        return outcome
    others = other_sizes(before, after)
    outcome.status = "other inputs" if others else "moved" if found else "same"
    outcome.why = "; ".join(others)
    outcome.moved, outcome.lines = [asdict(d) for d in found], [d.line() for d in found]
    if (
        left_out
        and "other_python" in claims.said["claims"][name]
        and any(row in left_out for row in _rows(claims, name))
    ):
        wants = claims.said["claims"][name]["other_python"]["wants"]
        outcome.why = "; ".join(filter(None, [outcome.why, f"without {wants}: --peers-python"]))
    return outcome


def _rows(claims: Claims, name: str) -> tuple[str, ...]:
    return tuple(claims.said["claims"][name]["other_python"]["rows"])


def key_of(claims: Claims, name: str, place: Place) -> str:
    """Of what an outcome that is kept is the outcome."""
    words, _ = without_peers(claims, name, place)
    parts = [shlex.join(words).encode(), claims.committed(name).read_bytes(), repr(claims.columns(name)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def kept(claims: Claims, name: str, place: Place) -> Outcome | None:
    """An outcome of an earlier run that still says all."""
    path = place.out / "outcomes" / f"{name}.json"
    if place.again or not path.is_file():
        return None
    found = Outcome(**json.loads(path.read_text(encoding="utf-8")))
    return (
        found
        if found.key == key_of(claims, name, place) and found.status in ("same", "moved", "other inputs")
        else None
    )


def reproduce(claims: Claims, names: list[str], place: Place, within: float | None = None) -> list[Outcome]:
    """Every outcome, in order; each is kept as soon as it is known."""
    began, found = time.monotonic(), []
    for name in names:
        outcome = kept(claims, name, place)
        if outcome is None:
            planned, spent = minutes_of(claims, name, place), (time.monotonic() - began) / 60
            if within is not None and spent + planned > within:
                found.append(Outcome(name, "no time", f"takes about {planned:g} minutes"))
                continue
            place.say(f"{name}: about {planned:g} minutes")
            outcome = attempt(claims, name, place)
            outcome.key = key_of(claims, name, place)
            path = place.out / "outcomes" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(outcome), ensure_ascii=False, indent=1), encoding="utf-8")
        place.say(f"{name}: {outcome.status}")
        found.append(outcome)
    return found


def report(outcomes: list[Outcome]) -> str:
    """What people read: a line a claim, and below it what moved."""
    lines = []
    for outcome in outcomes:
        took = f"{outcome.seconds / 60:.1f} min" if outcome.seconds else ""
        lines.append(" ".join(f"{outcome.status:14} {outcome.name:22} {took:9} {outcome.why}".split(" ")).rstrip())
        lines += [f"    {line}" for line in outcome.lines]
    counts = {status: sum(o.status == status for o in outcomes) for status in dict.fromkeys(o.status for o in outcomes)}
    bad = [outcome.name for outcome in outcomes if outcome.bad]
    lines += ["", ", ".join(f"{count} {status}" for status, count in counts.items()) or "nothing to do"]
    lines.append(f"quality moved, or failed: {', '.join(bad)}" if bad else "no number of quality moved")
    return "\n".join(lines)


def listed(claims: Claims, names: list[str], place: Place) -> str:
    """What would be done: minutes, name, command; and where collections come from."""
    lines = [f"{minutes_of(claims, n, place):6g} min  {n:22} {shlex.join(claims.words(n))}" for n in names]
    seen: set[str] = set()
    total = sum(minutes_of(claims, name, place, seen) for name in names) / 60
    lines += ["", f"{len(names)} claims, about {total:.1f} hours on two quiet cores", "", "collections:"]
    there = lambda name: bool(place.collections and (place.collections / name).exists())  # noqa: E731
    lines += [f"  {n:16} {'there' if there(n) else 'absent'}: {s}" for n, s in claims.said["collections"].items()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="what would be done, how long it takes, what is there")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these claims")
    parser.add_argument(
        "--quick", action="store_true", help=f"claims of at most {QUICK:g} minutes, what is made first included"
    )
    parser.add_argument("--within", type=float, metavar="MINUTES", help="begin nothing that would end later")
    parser.add_argument("--collections", type=Path, help="a folder with the collections, each in a folder of its name")
    parser.add_argument(
        "--peers-python", type=Path, help="a Python with peers that do not go with Flatcoat's own packages"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "reproduce", help="tables, logs and what is kept")
    parser.add_argument("--again", action="store_true", help="also what is done")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--claims", type=Path, default=ROOT / "benchmarks" / "claims.toml")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(arguments)
    claims = Claims.read(args.claims, args.results)
    unknown = sorted(set(args.only or ()) - set(claims.names()))
    if unknown:
        parser.error(f"no claim {', '.join(unknown)}; there are {', '.join(claims.names())}")
    place = Place(args.out.resolve(), args.collections and args.collections.resolve(), args.peers_python, args.again)
    names = [name for name in claims.names() if not args.only or name in args.only]
    if args.quick:
        names = [name for name in names if minutes_of(claims, name, place) <= QUICK]
    if args.list:
        print(listed(claims, names, place))
        return 0
    outcomes = reproduce(claims, names, place, args.within)
    print(json.dumps([asdict(o) for o in outcomes], ensure_ascii=False, indent=1) if args.json else report(outcomes))
    return int(any(outcome.bad for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
