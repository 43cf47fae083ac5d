"""What the library never calls, read from its own syntax: no pickle, no code from data, no unpacking, no shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "xml",
    "tarfile",
    "pty",
    "telnetlib",
}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "tempfile.mktemp", "shutil.unpack_archive", "np.fromregex",
}  # fmt: skip
ENDINGS = ("extractall", "read_pickle", "to_pickle")


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute, '' of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if isinstance(node, ast.Attribute) and inner else ""


def literal(call: ast.Call, name: str) -> object:
    """What a keyword is given: a constant's value, the keyword's name where it is handed through, None where it is not said."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ast.unparse(keyword.value)
    return None


def wrong_call(call: ast.Call) -> str | None:
    """What is wrong with a call."""
    name = dotted(call.func)
    last = name.rsplit(".", 1)[-1]
    if name in CALLS or last in ENDINGS:
        return name
    if (
        name in ("np.load", "numpy.load")
        and literal(call, "allow_pickle") is not False
        and literal(call, "mmap_mode") != "r+"
    ):
        return f"{name} without allow_pickle=False"
    if literal(call, "allow_pickle") not in (None, False) or literal(call, "shell") not in (None, False):
        return f"{name} with pickle or a shell"
    if last == "from_pretrained" and literal(call, "trust_remote_code") not in (False, "trust_remote_code"):
        return f"{name} without trust_remote_code=False"
    if last == "from_pretrained" and literal(call, "local_files_only") not in (True, "local_files_only"):
        return f"{name} without local_files_only=True"
    if literal(call, "trust_remote_code") not in (None, False, "trust_remote_code") or (
        literal(call, "verify") is False
        and "verify=False" in ast.unparse(call)
        and name.startswith(("requests", "httpx"))
    ):
        return f"{name} that trusts too much"
    return None


def wrong(source: str) -> list[str]:
    """What a file does that it must not, with lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call) and (said := wrong_call(node)):
            found.append(f"{node.lineno}: {said}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src" / "flatcoat").as_posix())
def test_nothing_forbidden_is_called(path):
    assert wrong(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "import xml.etree.ElementTree", "eval('1')", "yaml.load(x)",
    "torch.load(x, weights_only=True)",
    "np.load(x)", "np.load(x, allow_pickle=True)", "subprocess.run(x, shell=True)", "AutoModel.from_pretrained(x)",
    "AutoModel.from_pretrained(x, local_files_only=True, trust_remote_code=True)", "archive.extractall(x)", "os.system(x)",
])  # fmt: skip
def test_what_is_forbidden_is_seen(line):
    assert wrong(line)
