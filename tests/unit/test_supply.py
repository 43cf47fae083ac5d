"""What is installed is what was locked: every pin has hashes, every core dependency is in the bill of materials, no licence forbids
commercial use.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(lines) -> dict[str, str]:
    named = (
        line.split(";")[0].split(" \\")[0].strip() for line in lines if "==" in line and not line.startswith((" ", "#"))
    )
    return {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in named)}


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_is_of_the_constraints():
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert pins(LOCK.splitlines()) == pins(constraints.splitlines()), "run: python scripts/lock.py"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cuda.lock"])
def test_every_pin_has_hashes(name):
    blocks = script("lock").blocks((ROOT / name).read_text(encoding="utf-8"))
    assert blocks
    for package, block in blocks.items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), package
        assert all(
            re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in block.splitlines()[1:] if line
        ), package


def test_every_dependency_that_is_named_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lines = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(line for each in extras.values() for line in each),
    ]
    wanted = {canonicalize_name(Requirement(line).name) for line in lines} - {"flatcoat"}
    assert wanted <= set(pins(LOCK.splitlines()))


def test_setup_installs_by_hash():
    said = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    assert "--no-deps --require-hashes" in said and "$locked -r requirements.lock" in said


def test_no_licence_forbids_commercial_use():
    sbom = script("sbom")
    found = sbom.needed()
    assert {"torch", "numpy", "transformers"} <= set(found)
    assert sbom.refused(found) == []


@pytest.mark.parametrize(("said", "refused"), [
    ("CC-BY-NC-4.0", True), ("Free for non-commercial use", True), ("SSPL-1.0", True), ("BUSL-1.1", True),
    ("Elastic License 2.0", True), ("Apache-2.0", False), ("BSD-3-Clause", False), ("MPL-2.0 AND MIT", False), ("LGPL-3.0-only", False),
])  # fmt: skip
def test_what_a_licence_forbids_is_seen(said, refused):
    assert bool(script("sbom").FORBIDDEN.search(said)) is refused


@pytest.mark.slow
def test_a_bill_of_materials_lists_the_core(tmp_path, monkeypatch):
    pytest.importorskip("cyclonedx_py")
    sbom = script("sbom")
    monkeypatch.setattr(sbom, "OUT", ROOT / "dist" / "test.cdx.json")
    monkeypatch.setattr("sys.argv", ["sbom.py", "--no-validate"])
    try:
        sbom.main()
        assert set(sbom.needed(("",))) <= sbom.components(sbom.OUT)
    finally:
        sbom.OUT.unlink(missing_ok=True)
