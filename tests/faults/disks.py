"""Disks that take no more, and folders that take nothing: `python tests/faults/disks.py --times 60 --seed 7 [VERB ...]`.

A command meets a file that may not grow past a drawn size (RLIMIT_FSIZE), a file system with a drawn number of pages (a tmpfs, where one
may be mounted), or a folder that it may not write to (as nobody, where this is root). It must exit 1 with one line that names a
place, and leave what was there; with room again the same command must make the bytes of an undisturbed one.
"""

from __future__ import annotations

import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from asking import asked_for
from kills import SCENES, Scene, Stage, halves, products, warm, whole

PAGE, NOBODY = 4096, 65534
SAID = ("no space left", "file too large", "permission denied", "read-only")


def met(words: tuple[str, ...], place: Path, first: Callable[[], None]) -> tuple[int, str]:
    """Fork, do `first` and then a command in `place`: its exit code, and what it said."""
    reading, writing = os.pipe()
    made = os.fork()
    if not made:
        code = 70
        try:
            os.chdir(place)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            first()
            from flatcoat.app.cli import main

            sys.argv = ["flatcoat", *words, "--quiet"]
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(made, 0)[1]), text


def mounted(work: Path, pages: int | None) -> bool:
    """Put a tmpfs of so many pages (None: any) over a folder, with what lies there; whether that may be done."""
    size = "size=0" if pages is None else f"size={pages * PAGE}"
    again = ["remount,"] if os.path.ismount(work) else [""]
    command = ["mount", "-t", "tmpfs", "-o", f"{again[0]}{size}", "tmpfs", str(work)]
    return subprocess.run(command, capture_output=True).returncode == 0


def limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Disks:
    """What an undisturbed command makes, and what a disturbed one says."""

    def __init__(self, place: Path):
        place.chmod(0o755)
        self.stage, self.work, self.rehearsed = Stage(place), place / "work", {}

    def undisturbed(self, scene: Scene) -> tuple[dict[str, str], int]:
        """Products, and the bytes of the largest file."""
        if scene.name not in self.rehearsed:
            wanted = self.stage.rehearse(scene)[0]
            sizes = [file.stat().st_size for file in self.work.rglob("*") if file.is_file()]
            self.rehearsed[scene.name] = wanted, max(sizes), sum(-(-size // PAGE) for size in sizes)
        return self.rehearsed[scene.name]

    def attempt(self, scene: Scene, kind: str, rng: random.Random) -> str:
        """Disturb a command, look at what it says, and do it again: "refused" or "fitted". Raises AssertionError at a fault."""
        wanted, largest, pages = self.undisturbed(scene)
        self.stage.clear(scene)
        kept = products(self.work / scene.product) if scene.before else {}
        if kind == "size":
            code, text = met(scene.words, self.stage.place, limit(rng.randrange(largest)))
        elif kind == "pages":
            code, text = self._small(scene, rng.randrange(2, 2 * pages))
        else:
            self.work.chmod(0o555)
            code, text = met(scene.words, self.stage.place, lambda: os.setuid(NOBODY))
            self.work.chmod(0o755)
        where = f"{scene.name}, {kind}"
        if code:
            lines = text.strip().splitlines()
            plain = all(line.startswith("flatcoat: ") for line in lines)  # checks may have warned before
            assert code == 1 and plain, f"{where}: {code}: {text[-1500:]}"
            assert any(words in lines[-1].lower() for words in SAID) and "/" in lines[-1], f"{where}: {text}"
            if kind != "pages":
                assert products(self.work / scene.product) == kept if scene.before else True, (
                    f"{where}: what was there is changed"
                )
        whole(scene.words, self.stage.place)
        found = products(self.work / scene.product)
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        assert not odd and not halves(self.work), f"{where}: {odd} {halves(self.work)}"
        return "refused" if code else "fitted"

    def _small(self, scene: Scene, pages: int) -> tuple[int, str]:
        assert mounted(self.work, pages)
        try:
            code, text = met(scene.words, self.stage.place, lambda: None)
            mounted(self.work, None)
            if code:  # goes on from what is there
                whole(scene.words, self.stage.place)
            return code, text
        finally:
            subprocess.run(["umount", "-l", str(self.work)], check=True)


def disks(
    place: Path, times: int, seed: int, names: list[str] | None = None, seconds: float = math.inf
) -> Counter[tuple[str, str, str]]:  # fmt: skip
    """Disturb commands, `times` in all, or as often as fits into `seconds`; how often what came of what."""
    warm()
    rng, made = random.Random(seed), Disks(place)
    kinds = ["size"]
    if mounted(made.work, 16):
        subprocess.run(["umount", str(made.work)], check=True)
        kinds.append("pages")
    if os.geteuid() == 0:
        kinds.append("read-only")
    scenes = [scene for scene in SCENES if not names or scene.name.split()[0] in names]
    seen: Counter[tuple[str, str, str]] = Counter()
    until = time.monotonic() + seconds
    for turn in range(times):
        if time.monotonic() > until:
            break
        scene, kind = scenes[turn % len(scenes)], kinds[(turn // len(scenes)) % len(kinds)]
        seen[scene.name, kind, made.attempt(scene, kind, rng)] += 1
    return seen


if __name__ == "__main__":
    asked = asked_for(60)
    with tempfile.TemporaryDirectory() as folder:
        done = disks(Path(folder).resolve(), asked.times, asked.seed, asked.verbs, asked.seconds)
    lines = [f"{name}, {kind}: {outcome} {number}" for (name, kind, outcome), number in sorted(done.items())]
    lines.append(f"{done.total()} full or closed disks with seed {asked.seed}: one line each, and the same bytes after")
    sys.stdout.write("\n".join(lines) + "\n")
