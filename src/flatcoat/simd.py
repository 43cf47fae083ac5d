"""Writing the processor's vector instructions: numba functions, and LLVM code where LLVM would not find the tile by itself.

`compiled` and `quick` are `numba.njit` as this project uses it. `Writer` builds the body of an intrinsic: loads, stores,
a number spread over a vector, and a loop that carries vectors in registers. Vectors hold `WIDE` 32-bit numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flatcoat.errors import need

numba: Any = need("numba", "search")
# arrays by what they hold, as the parameters of compiled loops name them; a loop's docstring gives the shapes
F32, F64 = NDArray[np.float32], NDArray[np.float64]
I8, I16, I32, I64 = NDArray[np.int8], NDArray[np.int16], NDArray[np.int32], NDArray[np.int64]
U8, U16, U32, U64 = NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint32], NDArray[np.uint64]


def compiled(function: Any, **options: Any) -> Any:
    """`numba.njit` without the lock of the interpreter, kept on disk where a folder for it can be written."""
    plain = inspect.unwrap(function)  # what checks types in tests would not compile
    try:
        return numba.njit(nogil=True, cache=True, **options)(plain)
    except RuntimeError:  # numba finds no folder to keep it in
        return numba.njit(nogil=True, **options)(plain)


def quick(function: Any) -> Any:
    """`compiled`, with sums in any order; a division by zero is infinite, as in numpy, so that loops need no check of it."""
    return compiled(function, fastmath=True, error_model="numpy")


def inlined(function: Any) -> Any:
    """A function that is written out where it is called, so that loops around it become vectors."""
    return numba.njit(inline="always", fastmath=True)(inspect.unwrap(function))


def has(feature: str) -> bool:
    """Whether the processor that numba writes for has a feature, by LLVM's name."""
    binding: Any = need("llvmlite.binding", "search")
    asked: str | None = getattr(numba.core.config, "CPU_FEATURES", None)
    if asked is not None:
        return f"+{feature}" in asked.split(",")
    return bool(binding.get_host_cpu_features().get(feature, False))


def _BFloat() -> Any:
    """LLVM's bfloat16, which llvmlite does not name."""
    from llvmlite import ir

    def name(_: object) -> str:
        return "bfloat"

    return type("BFloat", (ir.HalfType,), {"null": "0.0", "intrinsic_name": "bf16", "__str__": name})()


class Writer:
    """Writes LLVM instructions. Addresses are integers; strides and places are given in bytes by `at`."""

    def __init__(self, context: Any, builder: Any, wide: int = 16):
        from llvmlite import ir

        self.ir, self.context, self.builder, self.wide = ir, context, builder, wide
        self.word, self.byte, self.real, self.size = ir.IntType(32), ir.IntType(8), ir.FloatType(), ir.IntType(64)
        self.words, self.reals = ir.VectorType(self.word, wide), ir.VectorType(self.real, wide)

    def data(self, kind: Any, value: Any) -> Any:
        """The address of an array's first element."""
        return self.builder.ptrtoint(self.context.make_array(kind)(self.context, self.builder, value).data, self.size)

    def n(self, value: int) -> Any:
        """A whole number."""
        return self.ir.Constant(self.size, value)

    def at(self, base: Any, index: Any, step: int | Any) -> Any:
        """The address `index` × `step` bytes on."""
        step = self.n(step) if isinstance(step, int) else step
        return self.builder.add(base, self.builder.mul(index, step))

    def load(self, address: Any, kind: Any, align: int = 4) -> Any:
        """What stands at an address."""
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        return self.builder.load(pointer, align=align, typ=kind)

    def store(self, value: Any, address: Any, align: int = 4) -> None:
        """Put a value at an address."""
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=align)

    def splat(self, value: Any, kind: Any) -> Any:
        """A vector that holds one number everywhere."""
        none = self.ir.Constant(kind, self.ir.Undefined)
        one = self.builder.insert_element(none, value, self.ir.Constant(self.word, 0))
        zeros = self.ir.Constant(self.ir.VectorType(self.word, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, none, zeros)

    def shuffle(self, left: Any, right: Any, order: Sequence[int]) -> Any:
        """Numbers of two vectors in an order."""
        return self.builder.shuffle_vector(left, right, self.ir.Constant(self.words, list(order)))

    def call(self, name: str, result: Any, *values: Any) -> Any:
        """What one of LLVM's own functions gives."""
        kind = self.ir.FunctionType(result, [value.type for value in values])
        return self.builder.call(numba.core.cgutils.get_or_insert_function(self.builder.module, kind, name), values)

    def fma(self, left: Any, right: Any, total: Any) -> Any:
        """The sum left × right + total, as one operation where the processor has it."""
        return self.call(f"llvm.fmuladd.v{self.wide}f32", self.reals, left, right, total)

    def pairs(self, left: Any, right: Any, total: Any) -> Any:
        """Add to each lane of `total` both products of two bfloat16 numbers, from words that hold two each."""
        kind = self.ir.VectorType(_BFloat(), 2 * self.wide)
        halves = [self.builder.bitcast(one, kind) for one in (left, right)]
        return self.call("llvm.x86.avx512bf16.dpbf16ps.512", self.reals, total, *halves)

    def greater(self, left: Any, right: Any) -> Any:
        """The greater of two numbers, lane by lane; the right one where either is not a number."""
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)

    def lesser(self, left: Any, right: Any) -> Any:
        """The lesser of two numbers, lane by lane; the right one where either is not a number."""
        return self.builder.select(self.builder.fcmp_ordered("<", left, right), left, right)

    def least(self, left: Any, right: Any) -> Any:
        """The lesser of two whole numbers."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def loop(self, count: Any, begin: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Carry vectors through `count` (at least 1) turns of `body`."""
        before = self.builder.block
        turn, done = (self.builder.append_basic_block(name) for name in ("turn", "done"))
        self.builder.branch(turn)
        self.builder.position_at_end(turn)
        index = self.builder.phi(self.size)
        held = [self.builder.phi(one.type) for one in begin]
        index.add_incoming(self.n(0), before)
        for one, first in zip(held, begin, strict=True):
            one.add_incoming(first, before)
        made, after = body(index, held), self.builder.add(index, self.n(1))
        index.add_incoming(after, self.builder.block)
        for one, new in zip(held, made, strict=True):
            one.add_incoming(new, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", after, count), turn, done)
        self.builder.position_at_end(done)
        return made


def written(write: Callable[..., Any], result: str = "void", writer: type[Writer] = Writer, wide: int = 16) -> Any:
    """What an intrinsic gives back: its types, and the code that `write(writer, *addresses or numbers)` makes."""
    types: Any = numba.core.types

    def typed(*kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made_by = writer(context, builder, wide)
            pairs = zip(signature.args, arguments, strict=True)
            given = [made_by.data(k, v) if isinstance(k, types.Array) else v for k, v in pairs]
            made = write(made_by, *given)
            return context.get_dummy_value() if made is None else made

        whole = [kind if isinstance(kind, types.Array | types.UniTuple) else types.int64 for kind in kinds]
        return getattr(types, result)(*whole), generate

    return typed


WIDE = 16 if has("avx512f") else 8
ROWS, PARTS = (6, 4) if WIDE == 16 else (4, 2)  # a tile's accumulators fill the registers, 32 or 16
BLOCK = WIDE * PARTS  # lanes of a tile


def product(rows: int, parts: int, low: bool = False) -> Any:
    """An intrinsic: c[r, lanes] = Σ_t a[min(r, last), t] × b[t, lanes], for `count` (at least 1) values of t and `rows` rows r.

    Where `low`, a and b are words of two bfloat16 numbers each, and t counts words.
    """

    def write(
        w: Writer, a: Any, a_at: Any, a_row: Any, a_step: Any, last: Any, b: Any, b_at: Any, b_row: Any, c: Any, c_at: Any,
        c_row: Any, count: Any,
    ) -> None:  # fmt: skip
        begin, to = w.at(b, b_at, 4), w.at(c, c_at, 4)
        by, step = w.at(w.n(0), b_row, 4), w.at(w.n(0), a_step, 4)
        lines = [w.at(a, w.builder.add(a_at, w.builder.mul(w.least(w.n(r), last), a_row)), 4) for r in range(rows)]

        def body(t: Any, held: list[Any]) -> list[Any]:
            line = w.at(begin, t, by)
            kind, kinds, join = (w.word, w.words, w.pairs) if low else (w.real, w.reals, w.fma)
            lanes = [w.load(w.at(line, w.n(p), 4 * WIDE), kinds) for p in range(parts)]
            made: list[Any] = []
            for r in range(rows):
                one = w.splat(w.load(w.at(lines[r], t, step), kind), kinds)
                made += [join(one, lanes[p], held[r * parts + p]) for p in range(parts)]
            return made

        made = w.loop(count, [w.ir.Constant(w.reals, [0.0] * WIDE)] * (rows * parts), body)
        for r in range(rows):
            row = w.at(to, w.builder.mul(w.n(r), c_row), 4)
            for p in range(parts):
                w.store(made[r * parts + p], w.at(row, w.n(p), 4 * WIDE))

    @numba.extending.intrinsic
    def tile(
        typingctx: Any, a: Any, a_at: Any, a_row: Any, a_step: Any, last: Any, b: Any, b_at: Any, b_row: Any, c: Any,
        c_at: Any, c_row: Any, count: Any,
    ) -> Any:  # fmt: skip
        return written(write, wide=WIDE)(a, a_at, a_row, a_step, last, b, b_at, b_row, c, c_at, c_row, count)

    return tile
