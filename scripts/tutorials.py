"""Run the tutorials as their pages have them, and put what their commands printed into the pages.

    python scripts/tutorials.py [--write] [NAME…]

A page's ```bash and ```python blocks run in order, in one shell, in an empty folder. A ```text block right behind one of them is what it
printed on stdout. `--write` replaces those, and the last line, which says where and when. Without it the outputs are only compared, as the
test does (tests/test_tutorials.py): headings and row names of tables, not numbers.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.S | re.M)
MARK = "\x1e"  # between the outputs of two blocks
PORT = "8080"  # what pages say; another one that is free is taken
LAST = "Printed by "


class Block(NamedTuple):
    """Code of a page, and what it is said to print."""

    language: str
    code: str
    printed: str | None


def blocks_of(page: str) -> list[Block]:
    """The blocks that run, in order."""
    return [Block(*found.groups()) for found in FENCE.finditer(page)]


def program(blocks: list[Block]) -> str:
    """One shell program of them all."""
    parts = ["set -eu"]
    for block in blocks:
        code = block.code if block.language == "bash" else f"python - <<'END-OF-PYTHON'\n{block.code}END-OF-PYTHON\n"
        parts += [code, f"printf '{MARK}'"]
    return "\n".join(parts) + "\n"


def execute(blocks: list[Block], folder: Path, seconds: float = 3600) -> list[str]:
    """What each block printed, run in a folder with a home of its own.

    Raises:
        RuntimeError: a command failed; the end of what it said on stderr.
    """
    port = free_port()
    (folder / "home").mkdir(parents=True)
    (folder / "work").mkdir()
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
           "HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}  # fmt: skip
    with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as err:
        running = subprocess.Popen(
            ["bash", "-c", program(blocks).replace(PORT, port)], cwd=folder / "work", env=env, stdout=out, stderr=err,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = running.wait(seconds)
        finally:  # a server that a page left running goes too
            _end(running.pid)
    printed = (folder / "stdout").read_text(encoding="utf-8").replace(port, PORT).split(MARK)[:-1]
    if code:
        said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"block {len(printed) + 1} gave {code}:\n{blocks[len(printed)].code}\n{said}")
    here = {f"{folder / 'work'}/": "", f"{sys.prefix}/": ".venv/"}  # pages know no machine's folders
    for path, name in here.items():
        printed = [text.replace(path, name) for text in printed]
    return printed


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def held(text: str) -> list[str]:
    """What of an output is the same on every machine: headings and row names of its tables, digits masked."""
    kept, table = [], False
    for line in text.splitlines():
        if "┃" in line:
            kept += line.strip("┃ ").split("┃")
        elif "│" in line:
            kept.append(line.strip("│ ").split("│")[0])
        elif "\t" in line:
            cells = line.split("\t")
            kept += cells[:1] if table else cells
        table = "\t" in line
    return [re.sub(r"\d+(\.\d+)?", "#", cell).strip() for cell in kept]


def differences(blocks: list[Block], printed: list[str]) -> list[str]:
    """What pages say that commands did not print."""
    return [
        f"block {number}: {cell!r} is not printed"
        for number, (block, text) in enumerate(zip(blocks, printed, strict=True), start=1)
        for cell in held(block.printed or "")
        if cell not in held(text)
    ]


def rewritten(page: str, printed: list[str], made: str) -> str:
    """The page with what its blocks printed, and where."""
    outputs = iter(printed)

    def replace(found: re.Match[str]) -> str:
        text = next(outputs)
        if found[3] is None:
            return found[0]
        lines = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
        return f"```{found[1]}\n{found[2]}```\n\n```text\n{lines}\n```\n"

    body = FENCE.sub(replace, page)
    return re.sub(rf"^{LAST}.*\n\Z", "", body, flags=re.M).rstrip("\n") + f"\n\n{made}\n"


def made_here(seconds: float) -> str:
    """Where outputs are from, and what all commands of the page took."""
    from flatcoat.app.run import machine

    here = machine()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return (f"{LAST}`python scripts/tutorials.py --write`, which took {seconds:.0f} s of processor time: {here['processor']}, "
            f"{here['cores']} cores, Python {here['python']}, {versions}, {here['date']}.")  # fmt: skip


def main() -> None:
    """Run the pages that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    wrong = 0
    for path in [PAGES / f"{name}.md" for name in given.names] or sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        blocks = blocks_of(page)
        with tempfile.TemporaryDirectory() as folder:
            before = _processor_seconds()
            printed = execute(blocks, Path(folder))
            took = _processor_seconds() - before
        if given.write:
            path.write_text(rewritten(page, printed, made_here(took)), encoding="utf-8")
        found = [] if given.write else differences(blocks, printed)
        wrong += len(found)
        sys.stdout.write("\n".join([f"{path.name}: {took:.0f} s of processor time", *found]) + "\n")
    sys.exit(1 if wrong else 0)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
