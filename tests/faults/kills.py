"""kill -9 at any moment, then the same command again: `python tests/faults/kills.py --times 200 --seed 7 [VERB ...]`.

A parent imports everything once and forks a child for each command. A child counts its own operations on files below its folder
(opened to be written, renamed, removed, made), and kills itself before the n-th, n drawn from all that an undisturbed command does;
every fourth is killed from outside, after a drawn share of the usual time. Once or twice killed, the command is run to its end. Its
products must have the bytes of the undisturbed ones, and nothing half may be left beside them.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from asking import asked_for

WATCHED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.symlink", "os.link", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
#: what says how long something took, and what holds the sha256 of such a file
TIMED = ("times.json", "results.json", "report.md", "report.html", "log.jsonl", "cost.json", "stages.json")
RECIPE = """
[collection]
source = "{place}/toy"
dev = "dev"
test = "test"
[model]
start = "{place}/tiny"
[training]
steps = 6
batch = 8
save_every = 2
evaluate_every = 3
[negatives]
kind = "periodic"
every = 2
last = 8
[[indexes]]
kind = "scan"
[evaluation]
measures = ["nDCG@10"]
"""


@dataclass(frozen=True)
class Scene:
    """A command, and what it makes, below the folder of work."""

    name: str
    words: tuple[str, ...]
    product: str
    before: tuple[tuple[str, ...], ...] = ()  # what is done, undisturbed, before it

    @property
    def share(self) -> int:
        """Of how many trials: quick commands take more."""
        return {"run": 1, "train": 2}.get(self.name, 4)


SCENES = (
    Scene("encode", ("encode", "tiny", "toy", "--out", "work/vectors"), "vectors"),
    Scene("encode again", ("encode", "tiny", "toy", "--out", "work/vectors"), "vectors",
          (("encode", "tiny", "toy", "--out", "work/vectors", "--precision", "bf16"),)),
    Scene("index", ("index", "vectors", "--kind", "scan", "--out", "work/index"), "index"),
    Scene("index again", ("index", "vectors", "--kind", "hnsw", "--copy", "--out", "work/index"), "index",
          (("index", "vectors", "--kind", "scan", "--out", "work/index"),)),
    Scene("mine", ("mine", "tiny", "toy", "--last", "8", "--out", "work/negatives.jsonl"), "negatives.jsonl"),
    Scene("train", ("train", "recipe.toml", "--out", "work/model"), "model"),
    Scene("run", ("run", "recipe.toml", "--resume", "--out", "work/run"), "run"),
)  # fmt: skip


def warm() -> None:
    """Import what commands import, and start no thread."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    import bm25s  # noqa: F401
    import faiss  # noqa: F401
    import ir_measures  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from transformers import AutoModel, BertModel, PreTrainedTokenizerFast  # noqa: F401

    import flatcoat.app.cli
    import flatcoat.app.html.run_report
    import flatcoat.app.run
    import flatcoat.app.verbs
    import flatcoat.app.verbs_engine
    import flatcoat.app.verbs_mine
    import flatcoat.app.verbs_shards
    import flatcoat.index.store
    import flatcoat.models.load
    import flatcoat.training.loop  # noqa: F401
    from flatcoat.models import encode, encode_sparse

    torch.set_num_threads(1)
    encode.WINDOW = encode_sparse.WINDOW = 16  # so that a small collection has several


def child(words: tuple[str, ...], place: Path, die_before: int | None, counted: Path) -> int:
    """Fork, do a command in `place`, die before an operation, or note how many there were; its process number."""
    made = os.fork()
    if made:
        return made
    os.chdir(place)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    count, work = 0, str(place / "work")

    def watch(event: str, args: tuple) -> None:
        nonlocal count
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & WRITING):
                return
        elif event not in WATCHED:
            return
        if not isinstance(args[0], str | os.PathLike) or not str(Path(args[0]).absolute()).startswith(work):
            return
        count += 1
        if count == die_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code = 70
    try:
        from flatcoat.app.cli import main

        sys.argv = ["flatcoat", *words, *([] if words[0] == "recipe" else ["--quiet"])]
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        counted.write_text(str(count))
        sys.stderr.flush()
        os._exit(code)


def whole(words: tuple[str, ...], place: Path) -> int:
    """Do a command undisturbed; how many operations it took. Raises AssertionError where it fails."""
    counted = place / "count"
    _, status = os.waitpid(child(words, place, None, counted), 0)
    assert status == 0, f"{' '.join(words)}: {os.waitstatus_to_exitcode(status)}: {(place / 'said').read_text()[-600:]}"
    return int(counted.read_text())


def products(path: Path) -> dict[str, str]:
    """The sha256 of every file of a product, by name, but of those that say how long something took."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return {
        str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.name not in TIMED and not file.name.startswith(".")
    }


def halves(work: Path) -> list[str]:
    """What is left of writers that died."""
    marks = (".partial", ".old", ".gone-")
    return [str(path.relative_to(work)) for path in work.rglob("*") if any(mark in path.name for mark in marks)]


class Stage:
    """A folder with a collection, a model, vectors and a recipe; `work` in it is made anew for every trial."""

    def __init__(self, place: Path):
        from flatcoat.data.toy import write_toy
        from flatcoat.places import as_open
        from flatcoat.testing.tiny import write_tiny

        self.place, self.work = place, place / "work"
        write_toy(place / "toy")
        if not os.fork():  # the parent computes nothing: threads do not survive a fork
            as_open(write_tiny(place / "tiny"))  # `disks.py` reads it as another user
            os._exit(0)
        os.wait()
        (place / "recipe.toml").write_text(RECIPE.format(place=place))
        self.work.mkdir()
        os.environ["HOME"] = str(place / "home")
        whole(("encode", "tiny", "toy", "--out", "vectors"), place)

    def clear(self, scene: Scene) -> None:
        shutil.rmtree(self.work)
        self.work.mkdir()
        for words in scene.before:
            whole(words, self.place)

    def rehearse(self, scene: Scene) -> tuple[dict[str, str], int, float]:
        """What an undisturbed command makes, in how many operations and how long."""
        self.clear(scene)
        began = time.perf_counter()
        count = whole(scene.words, self.place)
        took = time.perf_counter() - began
        assert not halves(self.work), halves(self.work)
        return products(self.work / scene.product), count, took

    def kill(self, scene: Scene, count: int, took: float, rng: random.Random) -> bool:
        """Start a command and kill it; whether it was killed before it was done."""
        from_outside = rng.random() < 0.25
        made = child(scene.words, self.place, None if from_outside else rng.randint(1, count), self.place / "count")
        if from_outside:
            time.sleep(rng.random() * took)
            os.kill(made, signal.SIGKILL)
        _, status = os.waitpid(made, 0)
        return os.WIFSIGNALED(status)


def kills(
    place: Path, times: int, seed: int, names: list[str] | None = None, seconds: float = math.inf
) -> Counter[str]:  # fmt: skip
    """Kill each command, `times` in all, or as often as fits into `seconds`; how often each was.

    Raises:
        AssertionError: a product is another afterwards, or something half is left.
    """
    warm()
    stage, rng = Stage(place), random.Random(seed)
    scenes = [scene for scene in SCENES if not names or scene.name.split()[0] in names]
    rehearsed = {scene.name: stage.rehearse(scene) for scene in scenes}
    seen: Counter[str] = Counter()
    turns = [scene for scene in scenes for _ in range(scene.share)]
    until = time.monotonic() + seconds
    while seen.total() < times and time.monotonic() < until:
        scene = turns[rng.randrange(len(turns))]
        wanted, count, took = rehearsed[scene.name]
        stage.clear(scene)
        for _ in range(rng.choice((1, 1, 2))):
            seen[scene.name] += stage.kill(scene, count, took, rng)
        whole(scene.words, place)
        found = products(stage.work / scene.product)
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        assert not odd, (
            f"{scene.name}, seed {seed}, after {seen.total()} kills: {odd} differ from an undisturbed command's"
        )
        assert not halves(stage.work), f"{scene.name}: left {halves(stage.work)}"
    return seen


if __name__ == "__main__":
    asked = asked_for(200)
    with tempfile.TemporaryDirectory() as folder:
        done = kills(Path(folder).resolve(), asked.times, asked.seed, asked.verbs, asked.seconds)
    lines = [f"{name}: {number} kills" for name, number in sorted(done.items())]
    lines.append(f"{done.total()} kills with seed {asked.seed}: every product to the byte, nothing half left")
    sys.stdout.write("\n".join(lines) + "\n")
