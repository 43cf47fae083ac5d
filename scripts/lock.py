"""Writes requirements.lock and requirements-cuda.lock: the versions of constraints.txt with the sha256 of every file of each, as the
package index gives them. Run it after constraints.txt has changed.

`uv` (of the extra `audit`) asks the index. torch's CPU builds are not among what it lists: the file that this machine's pip chooses
is hashed, and those of other machines that the lock has of the same version are kept.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, CUDA = ROOT / "requirements.lock", ROOT / "requirements-cuda.lock"
BIN = Path(sys.executable).parent
HEAD = "# Of constraints.txt by scripts/lock.py, with the sha256 of every file of each version; do not edit.\n"


def hashed(*arguments: str, given: str) -> str:
    """Requirements with hashes, by uv."""
    found = subprocess.run(
        [BIN / "uv", "pip", "compile", "-", "--generate-hashes", "--python-version", "3.11.9", "--no-header", "--no-annotate", "-q",
         *arguments],
        input=given, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(f"uv: {found.stderr.strip()}")
    return found.stdout


def blocks(lock: str) -> dict[str, str]:
    """A lock's text by package."""
    return {block.partition("==")[0]: block for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock) if "==" in block}


def here(torch: str) -> str:
    """The sha256 of the file that pip takes for torch on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, torch], check=True)
        (file,) = Path(folder).iterdir()
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


def with_cpu(block: str, before: str) -> str:
    """Torch's block with the hashes of CPU builds."""
    first, *hashes = block.replace(" \\\n", "\n").split()
    same = before.split()[:1] == [first]
    kept = set(re.findall(r"--hash=\S+", before)) if same else set()
    return " \\\n    ".join([first, *sorted({*hashes, *kept, f"--hash=sha256:{here(first)}"})]) + "\n"


def main() -> None:
    """Write both files."""
    pins = (ROOT / "constraints.txt").read_text()
    found = blocks(hashed("--no-deps", given=pins))
    before = blocks(LOCK.read_text()) if LOCK.is_file() else {}
    found["torch"] = with_cpu(found["torch"], before.get("torch", ""))
    for line in (line for line in pins.splitlines() if ";" in line):
        pin, _, marker = line.partition(";")
        name = pin.partition("==")[0].lower()
        found[name] = found[name].replace(" \\\n", f" ;{marker} \\\n", 1)
    LOCK.write_text(HEAD + "".join(found.values()))
    torch = next(line for line in pins.splitlines() if line.startswith("torch=="))
    platform = ("--python-platform", "x86_64-manylinux_2_28", "-c", str(ROOT / "constraints.txt"))
    libraries = {name: block for name, block in blocks(hashed(*platform, given=torch)).items() if name not in found}
    CUDA.write_text(HEAD + "".join(libraries.values()))


if __name__ == "__main__":
    main()
