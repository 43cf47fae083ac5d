"""Damage that is led by coverage, for one reader and as long as asked: `python tests/fuzz/coverage_guided.py READER --seconds 60`.

Wants atheris (`pip install -c constraints.txt -e '.[fuzz]'`). What breaks the law of `readers.py` is written to `crash-…` in the present
folder, and its traceback printed. `--list` names the readers.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    from readers import READERS

    parser = argparse.ArgumentParser()
    parser.add_argument("reader", nargs="?", choices=sorted(READERS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    said = parser.parse_args()
    if said.list or said.reader is None:
        sys.stdout.write("".join(f"{name}: {', '.join(reader.broken)}\n" for name, reader in READERS.items()))
        return
    hunt(said.reader, said.seconds, said.seed)


def kernels() -> list[str]:
    """Modules that numba compiles: it does not understand instrumented code."""
    root = Path(__file__).parents[2] / "src"
    found = [
        path
        for path in (root / "flatcoat").rglob("*.py")
        if re.search(r"@\w*compiled|@\w*quick\b|@\w*njit|numba", path.read_text())
    ]
    return [".".join(path.relative_to(root).with_suffix("").parts) for path in found]


def hunt(name: str, seconds: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["flatcoat"], exclude=kernels()):
        from readers import READERS, attempt

        reader = READERS[name]
        files = reader.make()
        first = reader.broken[0]
        attempt(reader, files, first, files[first])  # imports what reading imports
    from mutations import damaged

    def one(data: bytes) -> None:
        """The first byte says which file is damaged."""
        if data:
            broken = reader.broken[data[0] % len(reader.broken)]
            attempt(reader, files, broken, data[1:])

    def mutate(data: bytes, most: int, number: int) -> bytes:
        """Half are damaged by the project's own mutations, half by libFuzzer's."""
        if number % 2 and data:
            return data[:1] + damaged(data[1:], random.Random(number), reader.words)[: most - 1]
        return atheris.Mutate(data, most)

    with tempfile.TemporaryDirectory() as corpus:
        for at, broken in enumerate(reader.broken):
            (Path(corpus) / f"seed-{at}").write_bytes(bytes([at]) + files[broken])
        longest = 4 * max(len(files[broken]) for broken in reader.broken) + 4096
        options = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-max_len={longest}",
            "-rss_limit_mb=6000",
            "-timeout=60",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
