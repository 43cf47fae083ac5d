"""Which faults can be planted in a file (`mutants.py`): one change of its text each, found in its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
_PAIRS = "min max|any all|sum mean|argmin argmax|amin amax|minimum maximum|zeros ones|zeros_like ones_like|floor ceil|exp log|abs neg"
BUILTIN = ("min", "max", "any", "all")
SWAPPED = {a: b for pair in _PAIRS.split("|") for a, b in (pair.split(), pair.split()[::-1])}
KEPT = {"dtype", "device", "copy", "strict", "subok"}
TOLD = {
    "note",
    "track",
    "need",
    "FlatcoatError",
    "Misuse",
    "ValueError",
    "TypeVar",
    "Literal",
}  # what they are given is text


@dataclass(frozen=True)
class Fault:
    """A change of one stretch of a file."""

    line: int
    start: int
    end: int
    before: str
    after: str


def faults(source: str) -> list[Fault]:
    """Every fault of a file: arithmetic, bitwise and boolean operators swapped; comparisons at their edge and turned round; `not`, `-` and
    `~` dropped; conditions turned round; numbers one greater, 0 and 1 swapped, True and False swapped, texts changed; keyword
    arguments left out; functions swapped with their opposites (SWAPPED); statements without a new name deleted.
    """
    data, found = source.encode(), {}
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, after in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = data[start:end].decode()
        found[start, end, after] = Fault(node.lineno, start, end, before, after)
    return sorted(found.values(), key=lambda f: (f.start, f.end, f.after))


def _changes(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """Nodes to be replaced, and by what text."""
    for name, child in _children(node):
        if name == "test" and not isinstance(child, ast.Compare | ast.UnaryOp):
            yield child, f"(not ({ast.unparse(child)}))"
        if isinstance(child, ast.expr):
            yield from ((child, f"({text})") for text in _expression(child))
        elif isinstance(child, ast.stmt):
            yield from ((child, text) for text in _statement(child))
        yield from _changes(child)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or name in ("annotation", "returns", "decorator_list", "bases"):
                continue
            if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Raise):
                continue
            if isinstance(child, ast.Call) and _name(child.func) in TOLD:
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if (
                isinstance(child, ast.Assign)
                and isinstance(child.value, ast.Subscript)
                and _name(child.value.value)[:1].isupper()
            ):
                continue  # a name for a type
            yield name, child


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _expression(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in ARITHMETIC:
        yield _with(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARED[type(op)]:
                yield _with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
    elif isinstance(node, ast.UnaryOp):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.Constant):
        yield from _constant(node.value)
    elif isinstance(node, ast.Call):
        yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in KEPT:
            yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
    other = SWAPPED.get(_name(node.func))
    if other and (isinstance(node.func, ast.Attribute) or other in BUILTIN):
        field = "attr" if isinstance(node.func, ast.Attribute) else "id"
        yield _with(node, func=type(node.func)(**{**dict(ast.iter_fields(node.func)), field: other}))


def _with(node: ast.AST, **changes: Any) -> str:
    return ast.unparse(type(node)(**{**dict(ast.iter_fields(node)), **changes}))  # pyright: ignore[reportArgumentType]


def _constant(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int | float):
        yield {0: "1", 1: "0"}.get(value, repr(value + 1))  # pyright: ignore[reportArgumentType]
    elif isinstance(value, str) and value:
        yield repr("XX" + value)


def _statement(node: ast.stmt) -> Iterator[str]:
    lasting = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value.func) not in TOLD
    if lasting or call or isinstance(node, ast.AugAssign | ast.Continue | ast.Break):
        yield "pass"
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield _with(node, op=ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.If) and all(isinstance(one, ast.Raise) for one in node.body) and not node.orelse:
        yield "pass"
