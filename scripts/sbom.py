"""Writes dist/sbom.cdx.json, what this environment has installed as a CycloneDX bill of materials, and sees that every dependency of the
core is in it; `--licences` prints the licence of each package that Flatcoat or an extra installs, and refuses those that forbid
commercial use. `--no-validate` does not hold the bill against the schema of its format.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OUT = ROOT / "dist" / "sbom.cdx.json"
EXTRAS = (
    "",
    "search",
    "evaluate",
    "processes",
    "logs",
    "tables",
    "serve",
    "documents",
    "figures",
    "hub",
    "engines",
    "ray",
    "haystack",
    "langchain",
    "mteb",
)  # fmt: skip  what a user installs; tools of development are not shipped
#: words of licences that forbid commercial use, or source that is to be looked at only
FORBIDDEN = re.compile(
    r"non.?commercial|\bCC[- ]BY[- ]NC|\bNC[- ](SA|ND)|research (use )?only|academic (use )?only|evaluation only|"
    r"\bBUSL?\b|business source|SSPL|server side public|commons clause|polyform|elastic.?licen|proprietary", re.I)  # fmt: skip


def needed(extras: tuple[str, ...] = EXTRAS) -> dict[str, metadata.Distribution]:
    """The installed distributions that Flatcoat and its extras want, and what those want, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(line for extra in extras if extra for line in project["optional-dependencies"][extra]),
    ]
    asked = list(_wanted(listed, ""))
    seen, found = set(asked), dict[str, metadata.Distribution]()
    while asked:
        name, extra = asked.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed, or of another system
        found[name] = distribution
        more = [wanted for wanted in _wanted(distribution.requires or [], extra) if wanted not in seen]
        seen.update(more)
        asked += more
    return dict(sorted(found.items()))


def _wanted(requires: Iterable[str], extra: str) -> Iterator[tuple[str, str]]:
    for line in requires:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(requirement.name), own) for own in ("", *requirement.extras))


def licence(distribution: metadata.Distribution) -> str:
    """A distribution's licence as its metadata have it: the expression, else classifiers, else the first line of the field."""
    said = distribution.metadata
    classes = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or [] if line.startswith("License ::")]
    field = (said.get("License") or "").strip().splitlines()
    return said.get("License-Expression") or "; ".join(classes) or (field[0][:100] if field else "")


def refused(found: dict[str, metadata.Distribution]) -> list[str]:
    """Packages whose licence forbids commercial use. NVIDIA's are proprietary, and allow it; torch's CUDA build wants them."""
    ours = {name: each for name, each in found.items() if not name.startswith(("nvidia-", "cuda-"))}
    return [f"{name}: {said}" for name, each in ours.items() if FORBIDDEN.search(said := licence(each))]


def components(file: Path) -> set[str]:
    """The names in a bill of materials."""
    return {canonicalize_name(each["name"]) for each in json.loads(file.read_text())["components"]}


def main() -> None:
    """Do what is asked."""
    found = needed()
    if "--licences" in sys.argv:
        sys.stdout.writelines(f"{name} {each.version}: {licence(each) or 'not said'}\n" for name, each in found.items())
        if wrong := refused(found):
            raise SystemExit("licences that forbid commercial use: " + "; ".join(wrong))
        return
    OUT.parent.mkdir(exist_ok=True)
    tool = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--of",
        "JSON",
        "--output-reproducible",
        "-o",
        str(OUT),
        sys.executable,
    ]
    said = [word for word in sys.argv[1:] if word == "--no-validate"]  # the schema of CycloneDX takes 20 seconds
    subprocess.run([*tool, *said, "--pyproject", str(ROOT / "pyproject.toml")], check=True)
    lacking = set(needed(("",))) - components(OUT)
    if lacking:
        raise SystemExit(f"{OUT} lacks {', '.join(sorted(lacking))}")
    sys.stdout.write(f"{OUT.relative_to(ROOT)}: {len(components(OUT))} packages, all of the core among them\n")


if __name__ == "__main__":
    main()
