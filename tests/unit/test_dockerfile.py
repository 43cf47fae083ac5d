"""The Dockerfile, read as Docker reads it: what it copies is there, what it runs exists, nobody is root, versions are said."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {
    "ARG",
    "FROM",
    "ENV",
    "RUN",
    "WORKDIR",
    "COPY",
    "USER",
    "EXPOSE",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "CMD",
    "ENTRYPOINT",
    "LABEL",
}


def instructions(text):
    """(word, rest) of each instruction, comments out, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    return [tuple(line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


LINES = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def rest(word):
    return [said for kind, said in LINES if kind == word]


def last_stage():
    return LINES[max(i for i, (word, _) in enumerate(LINES) if word == "FROM") :]


def sent(path):
    """Whether .dockerignore lets a path into the build, the last pattern that fits deciding."""
    let = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        plain = pattern.removeprefix("!").removeprefix("**/")
        parts = [path, *map(str, Path(path).parents)]
        if any(
            fnmatch.fnmatch(part, plain) or fnmatch.fnmatch(Path(part).name, plain) for part in parts if part != "."
        ):
            let = pattern.startswith("!")
    return let


def copied():
    """Sources of each COPY from the build's own folder."""
    words = [shlex.split(said) for said in rest("COPY")]
    return [source for said in words if not said[0].startswith("--from") for source in said[:-1]]


def test_every_instruction_is_one():
    assert {word for word, _ in LINES} <= KNOWN
    assert LINES[0][0] in ("ARG", "FROM")


def test_what_is_copied_is_there_and_is_sent_to_the_build():
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert sent(source), source


def test_what_the_package_is_built_of_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {project["readme"], "pyproject.toml", "LICENSE", "src", "constraints.txt"} <= set(copied())


def test_nothing_else_is_sent():
    for path in (
        "runs/a/model",
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "docs/cli.md",
        "src/flatcoat/__pycache__/x.pyc",
    ):
        assert not sent(path), path
    assert sent("src/flatcoat/app/cli.py")


def test_images_are_named_by_version():
    defaults = dict(said.split("=", 1) for said in rest("ARG") if "=" in said)
    for said in rest("FROM"):
        image = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found.group(1)], said.split()[0])
        name, _, tag = image.partition(":")
        assert name == "python" and re.match(r"3\.\d+", tag) and "slim" in tag, image
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
        least = re.search(r">=\s*3\.(\d+)", wanted)
        assert least and int(tag.split("-")[0].split(".")[1]) >= int(least.group(1))


def test_what_pip_installs_is_constrained():
    installs = [said for said in rest("RUN") if "pip install" in said]
    assert len(installs) == 2 and all("-c constraints.txt" in said for said in installs)
    assert "whl/cpu torch" in installs[0] and '".[serve,search]"' in installs[1]
    pinned = {
        line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert {"torch", "transformers", "numpy", "faiss-cpu"} <= pinned


def test_what_runs_is_not_root():
    words = [word for word, _ in last_stage()]
    assert words.index("USER") < words.index("CMD") and words.count("USER") == 1
    user = dict(last_stage())["USER"]
    assert user not in ("root", "0") and any("useradd" in said and user in said for said in rest("RUN"))


def test_what_it_serves_wants_keys():
    from typer.main import get_command

    from flatcoat.app.cli import app

    command = json.loads(dict(last_stage())["CMD"])
    assert command[:2] == ["flatcoat", "serve"] and "--keys" in command
    assert command[command.index("--host") + 1] == "0.0.0.0" and "--no-keys" not in command
    port = command[command.index("--port") + 1]
    assert port == dict(last_stage())["EXPOSE"]
    verbs = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    known = {name for parameter in verbs["serve"].params for name in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known


def test_its_health_is_the_services():
    said = dict(last_stage())["HEALTHCHECK"]
    command = json.loads(said[said.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert f"127.0.0.1:{dict(last_stage())['EXPOSE']}/readyz" in command[2]
