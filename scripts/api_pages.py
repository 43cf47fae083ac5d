"""The API reference, a page a room, from the docstrings: what is public, its signature, and what it says of itself.

    python scripts/api_pages.py FOLDER

Nothing is imported: the source is read. A public name without a docstring is an error, and so is a module without one. The site makes
these pages when it is built (`scripts/site_hook.py`), so none of them is kept.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "flatcoat"
ROOMS = {
    "ground": "What are the nouns, how are they kept, and what does the processor do well?",
    "data": "Where do queries, documents and judgements come from, and what is the next batch?",
    "models": "Here is text: what does the network make of it?",
    "objectives": "Here are scores: how wrong are they?",
    "index": "Here is a query's representation: which rows are best?",
    "mining": "Which negatives would teach the most now?",
    "training": "How does one step lead to the next, and how is it resumed?",
    "search": "Here is a question: what are the answers?",
    "evaluation": "How good is a ranking, is the difference real, what did the approximation cost?",
    "checks": "What is silently wrong?",
    "testing": "What holds for every index, encoder and source of negatives?",
}
WIDTH = 100
Named = ast.FunctionDef | ast.ClassDef


class Undocumented(Exception):
    """Public names that say nothing of themselves."""


def modules_of(room: str) -> list[Path]:
    """A room's modules; the ground's lie at the package's root."""
    if room == "ground":
        return sorted(path for path in SOURCE.glob("*.py") if not path.name.startswith("__"))
    return sorted(path for path in (SOURCE / room).rglob("*.py") if path.name != "__init__.py")


def public(nodes: list[ast.stmt], *kinds: type[ast.stmt]) -> Iterator[Named]:
    """The definitions that do not begin with an underscore."""
    for node in nodes:
        if isinstance(node, kinds) and not node.name.startswith("_"):  # pyright: ignore[reportAttributeAccessIssue]
            yield node  # pyright: ignore[reportReturnType]


def escaped(line: str) -> str:
    """Plain text as Markdown that shows it as it is; what stands in backticks is code already."""
    parts = line.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*_<\[\]|~])", r"\\\1", parts[i])
    return "`".join(parts)


def markdown(doc: str) -> str:
    """A docstring as Markdown: what is indented is code, tables and lists stay, the rest is text."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", doc):
        lines = block.split("\n")
        if re.fullmatch(r"(Raises|Args|Returns):", lines[0]):
            rest = " ".join(line.strip() for line in lines[1:])
            out.append(f"**{lines[0]}** {escaped(rest)}")
        elif all(line.startswith("    ") for line in lines):
            out.append("```text\n" + "\n".join(line[4:] for line in lines) + "\n```")
        elif lines[0].startswith("|"):
            out.append(block)
        else:
            text = [("* " + escaped(line[2:])) if line.startswith("* ") else escaped(line) for line in lines]
            head = next((i for i, line in enumerate(text) if line.startswith("* ")), 0)
            out.append("\n".join([*text[:head], *([""] if head else []), *text[head:]]))
    return "\n\n".join(out)


def signature(node: ast.FunctionDef) -> str:
    """`def name(arguments) -> result`, an argument a line where it is long."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"def {node.name}({ast.unparse(node.args)}){returns}"
    marks = [
        f"@{mark}"
        for d in node.decorator_list
        if (mark := ast.unparse(d)) in ("property", "staticmethod", "classmethod")
    ]
    if len(line) > WIDTH:
        a = node.args
        plain = [*a.posonlyargs, *a.args]
        defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
        given = [_argument(arg, default) for arg, default in zip(plain, defaults, strict=True)]
        given += [f"*{ast.unparse(a.vararg)}"] if a.vararg else ["*"] if a.kwonlyargs else []
        given += [_argument(arg, default) for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
        given += [f"**{ast.unparse(a.kwarg)}"] if a.kwarg else []
        line = f"def {node.name}(\n    " + ",\n    ".join(given) + f",\n){returns}"
    return "\n".join([*marks, line])


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    said = ast.unparse(arg)
    return (
        said
        if default is None
        else f"{said} = {ast.unparse(default)}"
        if arg.annotation
        else f"{said}={ast.unparse(default)}"
    )


def head_of(node: ast.ClassDef) -> str:
    """A class's first line and its fields."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    said = [ast.unparse(item) for item in node.body if isinstance(item, ast.AnnAssign)]
    fields = [f"    {field}" for field in said if not field.startswith("_")]
    made = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    begin = [re.sub(r"^", "    ", signature(made[0]), flags=re.M)] if made else []
    marks = [f"@{mark}" for d in node.decorator_list if (mark := ast.unparse(d)).startswith("dataclass")]
    return "\n".join([*marks, f"class {node.name}({bases})" if bases else f"class {node.name}", *fields, *begin])


def entries(path: Path, missing: list[str]) -> str:
    """A module's part of the page."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = "flatcoat." + path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")

    def doc_of(node: ast.Module | Named, called: str) -> str:
        doc = ast.get_docstring(node)
        if not doc:
            missing.append(called)
        return markdown(doc or "")

    parts = [f"## {name}", doc_of(tree, name)]
    for node in public(tree.body, ast.FunctionDef, ast.ClassDef):
        said = signature(node) if isinstance(node, ast.FunctionDef) else head_of(node)
        parts += [
            f"### {node.name} {{ #{name}.{node.name} }}",
            f"```python\n{said}\n```",
            doc_of(node, f"{name}.{node.name}"),
        ]
        if isinstance(node, ast.ClassDef):
            for method in public(node.body, ast.FunctionDef):
                assert isinstance(method, ast.FunctionDef)
                parts += [f"```python\n{signature(method)}\n```", doc_of(method, f"{name}.{node.name}.{method.name}")]
    return "\n\n".join(part for part in parts if part)


def pages() -> dict[str, str]:
    """The pages by file name. Raises Undocumented where a public name, or a module, says nothing of itself."""
    made, missing = {}, []
    for room, question in ROOMS.items():
        parts = [f"# {room}", question, *(entries(path, missing) for path in modules_of(room))]
        made[f"{room}.md"] = "\n\n".join(parts) + "\n"
    if missing:
        raise Undocumented(f"without a docstring: {', '.join(missing)}; say what each is")
    return made


if __name__ == "__main__":
    for file, text in pages().items():
        Path(sys.argv[1]).joinpath(file).write_text(text, encoding="utf-8")
