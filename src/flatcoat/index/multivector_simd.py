"""Products of vectors in the processor's own words, as numba intrinsics: a tile is four tokens against thirty-two lanes.

    dots[t, lane] = Σ_d byte(token t, d) × weight(lane, d)

A lane is one query vector. Bytes are unsigned, weights signed, sums 32-bit: AVX512-VNNI multiplies and adds 64 pairs an
instruction (`vpdpbusd`); without it the same sums are written out, to the same bits. Tiles of floats use fused
multiply-adds, each sum over rising d, so that a score does not depend on where its vectors lie.

Layouts, d padded to a multiple of 4: weights int32 [d / 4, LANES] holding 4 signed bytes each, floats [d, LANES].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flatcoat.errors import need
from flatcoat.simd import Writer, has
from flatcoat.simd import written as _typed

numba: Any = need("numba", "search")
LANES, TILE, WIDE = 32, 4, 16  # lanes a tile, tokens a tile, 32-bit numbers a vector


def has_vnni() -> bool:
    """Whether the processor that numba writes for multiplies bytes by sixty-fours."""
    return has("avx512vnni")


class _Writer(Writer):
    """Writes LLVM instructions of one tile: `TILE` rows of `LANES` / `WIDE` vectors."""

    parts = LANES // WIDE

    def spread_byte(self, value: Any, kind: Any) -> Any:
        """A byte, or a vector of it where `kind` is one."""
        if not isinstance(kind, self.ir.VectorType):
            return value
        none = self.ir.Constant(kind, self.ir.Undefined)
        one = self.builder.insert_element(none, value, self.ir.Constant(self.word, 0))
        zeros = self.ir.Constant(self.ir.VectorType(self.word, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, none, zeros)

    def constant(self, kind: Any, value: int) -> Any:
        """A whole number, or a vector of it where `kind` is one."""
        return self.ir.Constant(kind, [value] * kind.count if isinstance(kind, self.ir.VectorType) else value)

    def four(self, base: Any, width: Any, first: Any, last: Any) -> tuple[list[Any], list[Any]]:
        """Four tokens from `first` on and their addresses; past `last` it is `last` again, which changes no maximum."""
        tokens: list[Any] = []
        for t in range(TILE):
            at = self.builder.add(first, self.n(t))
            tokens.append(self.builder.select(self.builder.icmp_signed("<", at, last), at, last))
        return tokens, [self.at(base, token, width) for token in tokens]

    def byte_dots(self, tokens: list[Any], weights: Any, groups: Any, vnni: bool) -> list[Any]:
        """Sums of bytes × weights as words, token by token."""

        def body(group: Any, held: list[Any]) -> list[Any]:
            line = self.at(weights, group, 4 * LANES)
            lanes = [self.load(self.at(line, self.n(p), 4 * WIDE), self.words) for p in range(self.parts)]
            made: list[Any] = []
            for t, token in enumerate(tokens):
                four = self.splat(self.load(self.at(token, group, 4), self.word, 1), self.words)
                join = self.fused if vnni else self.plain
                made += [join(held[t * self.parts + p], four, lanes[p]) for p in range(self.parts)]
            return made

        return self.loop(groups, [self.ir.Constant(self.words, [0] * WIDE)] * (TILE * self.parts), body)

    def fused(self, total: Any, bytes_: Any, weights: Any) -> Any:
        binding: Any = need("llvmlite.binding", "search")
        if binding.llvm_version_info[0] >= 22:  # from then on the pairs are said to be bytes
            kind = self.ir.VectorType(self.byte, 4 * WIDE)
            bytes_, weights = (self.builder.bitcast(value, kind) for value in (bytes_, weights))
        return self.call("llvm.x86.avx512.vpdpbusd.512", self.words, total, bytes_, weights)

    def plain(self, total: Any, bytes_: Any, weights: Any) -> Any:
        top, low = (self.ir.Constant(self.words, [value] * WIDE) for value in (24, 255))
        for shift in (0, 8, 16, 24):
            by = self.ir.Constant(self.words, [shift] * WIDE)
            up = self.ir.Constant(self.words, [24 - shift] * WIDE)
            left = self.builder.and_(self.builder.lshr(bytes_, by), low)
            right = self.builder.ashr(self.builder.shl(weights, up), top)
            total = self.builder.add(total, self.builder.mul(left, right))
        return total

    def real_dots(self, tokens: list[Any], weights: Any, dim: Any) -> list[Any]:
        """Sums of float products, token by token."""

        def body(d: Any, held: list[Any]) -> list[Any]:
            line = self.at(weights, d, 4 * LANES)
            lanes = [self.load(self.at(line, self.n(p), 4 * WIDE), self.reals) for p in range(self.parts)]
            made: list[Any] = []
            for t, token in enumerate(tokens):
                one = self.splat(self.load(self.at(token, d, 4), self.real), self.reals)
                made += [self.fma(one, lanes[p], held[t * self.parts + p]) for p in range(self.parts)]
            return made

        return self.loop(dim, [self.ir.Constant(self.reals, [0.0] * WIDE)] * (TILE * self.parts), body)

    def lanes(self, base: Any, kind: Any) -> list[Any]:
        """The vectors of `LANES` numbers at an address."""
        return [self.load(self.at(base, self.n(p), 4 * WIDE), kind) for p in range(self.parts)]

    def scaled(self, dots: list[Any], start: Any, scale: Any, factors: list[Any]) -> list[Any]:
        """(start[lane] + dot) × factor[token] × scale[lane] as floats."""
        begin, by = self.lanes(start, self.words), self.lanes(scale, self.reals)
        made: list[Any] = []
        for t, factor in enumerate(factors):
            each = self.splat(factor, self.reals)
            for p in range(self.parts):
                whole = self.builder.sitofp(self.builder.add(dots[t * self.parts + p], begin[p]), self.reals)
                made.append(self.builder.fmul(self.builder.fmul(whole, each), by[p]))
        return made

    def raise_to(self, best: Any, values: list[Any]) -> None:
        """best[lane] = the greater of it and every token's value."""
        for p, top in enumerate(self.lanes(best, self.reals)):
            for t in range(TILE):
                value = values[t * self.parts + p]
                top = self.builder.select(self.builder.fcmp_ordered(">", value, top), value, top)
            self.store(top, self.at(best, self.n(p), 4 * WIDE))

    def raise_with_place(self, best: Any, places: Any, values: list[Any], tokens: list[Any]) -> None:
        """As `raise_to`, and places[lane] = the first token that has the greatest value."""
        pairs = zip(self.lanes(best, self.reals), self.lanes(places, self.words), strict=True)
        for p, (top, place) in enumerate(pairs):
            for t, token in enumerate(tokens):
                value, here = values[t * self.parts + p], self.splat(self.builder.trunc(token, self.word), self.words)
                better = self.builder.fcmp_ordered(">", value, top)
                top, place = self.builder.select(better, value, top), self.builder.select(better, here, place)
            self.store(top, self.at(best, self.n(p), 4 * WIDE))
            self.store(place, self.at(places, self.n(p), 4 * WIDE))


def _written(write: Callable[..., Any], result: str = "void") -> Callable[..., Any]:
    """`simd.written` with this module's writer."""
    return _typed(write, result, _Writer, WIDE)


def _raise_bytes(vnni: Callable[[], bool]) -> Any:
    def write(
        w: _Writer, best: Any, at: Any, weights: Any, start: Any, scale: Any, tokens: Any, factors: Any, table: Any,
        width: Any, which: Any, first: Any, last: Any, groups: Any,
    ) -> None:  # fmt: skip
        chunk, lane = w.builder.mul(at, groups), w.n(4)
        where, addresses = w.four(tokens, w.builder.mul(groups, w.n(4)), first, last)
        dots = w.byte_dots(addresses, w.at(weights, chunk, 4), groups, vnni())
        times = [w.load(w.at(factors, token, 4), w.real) for token in where]
        values = w.scaled(dots, w.at(start, at, lane), w.at(scale, at, lane), times)
        for t, token in enumerate(where):
            cell = w.builder.sext(w.load(w.at(which, token, 4), w.word), w.size)
            row = w.at(w.at(table, w.builder.mul(cell, width), 4), at, 4)
            for p, more in enumerate(w.lanes(row, w.reals)):
                values[t * w.parts + p] = w.builder.fadd(values[t * w.parts + p], more)
        w.raise_to(w.at(best, at, 4), values)

    @numba.extending.intrinsic
    def raise_bytes(
        typingctx: Any, best: Any, at: Any, weights: Any, start: Any, scale: Any, tokens: Any, factors: Any, table: Any,
        width: Any, which: Any, first: Any, last: Any, groups: Any,
    ) -> Any:  # fmt: skip
        return _written(write)(
            best, at, weights, start, scale, tokens, factors, table, width, which, first, last, groups
        )

    return raise_bytes


# best[lane] = max over tokens first..first + 3 of (start[lane] + dots) × factors[token] × scale[lane]
#              + table[which[token], lane], for the 32 lanes from `at` on; `last` is the last token there is
raise_bytes = _raise_bytes(has_vnni)
raise_bytes_plainly = _raise_bytes(lambda: False)


@numba.extending.intrinsic
def nearest_bytes(
    typingctx: Any, best: Any, places: Any, weights: Any, start: Any, scale: Any, tokens: Any, factors: Any, biases: Any,
    first: Any, last: Any, groups: Any,
) -> Any:  # fmt: skip
    """best[lane], places[lane] = the greatest (start + dots) × factors[token] × scale[lane] + biases[token]; its token."""

    def write(
        w: _Writer, best: Any, places: Any, weights: Any, start: Any, scale: Any, tokens: Any, factors: Any, biases: Any,
        first: Any, last: Any, groups: Any,
    ) -> None:  # fmt: skip
        where, addresses = w.four(tokens, w.builder.mul(groups, w.n(4)), first, last)
        dots = w.byte_dots(addresses, weights, groups, has_vnni())
        values = w.scaled(dots, start, scale, [w.load(w.at(factors, token, 4), w.real) for token in where])
        for t, token in enumerate(where):
            more = w.splat(w.load(w.at(biases, token, 4), w.real), w.reals)
            for p in range(w.parts):
                values[t * w.parts + p] = w.builder.fadd(values[t * w.parts + p], more)
        w.raise_with_place(best, places, values, where)

    return _written(write)(best, places, weights, start, scale, tokens, factors, biases, first, last, groups)


@numba.extending.intrinsic
def raise_reals(typingctx: Any, best: Any, at: Any, weights: Any, tokens: Any, first: Any, last: Any, dim: Any) -> Any:
    """best[lane] = max over tokens first..first + 3 of the dot product, for the 32 lanes from `at` on."""

    def write(w: _Writer, best: Any, at: Any, weights: Any, tokens: Any, first: Any, last: Any, dim: Any) -> None:
        _, addresses = w.four(tokens, w.builder.mul(dim, w.n(4)), first, last)
        w.raise_to(w.at(best, at, 4), w.real_dots(addresses, w.at(weights, w.builder.mul(at, dim), 4), dim))

    return _written(write)(best, at, weights, tokens, first, last, dim)


@numba.extending.intrinsic
def products(
    typingctx: Any, out: Any, width: Any, at: Any, weights: Any, tokens: Any, first: Any, last: Any, dim: Any
) -> Any:
    """out[token, lane] = the dot product, for tokens first..first + 3 and the 32 lanes from `at` on; `out` is `width` wide."""

    def write(
        w: _Writer, out: Any, width: Any, at: Any, weights: Any, tokens: Any, first: Any, last: Any, dim: Any
    ) -> None:
        where, addresses = w.four(tokens, w.builder.mul(dim, w.n(4)), first, last)
        dots = w.real_dots(addresses, w.at(weights, w.builder.mul(at, dim), 4), dim)
        for t, token in enumerate(where):
            row = w.at(w.at(out, w.builder.mul(token, width), 4), at, 4)
            for p in range(w.parts):
                w.store(dots[t * w.parts + p], w.at(row, w.n(p), 4 * WIDE))

    return _written(write)(out, width, at, weights, tokens, first, last, dim)


@numba.extending.intrinsic
def top_bytes(typingctx: Any, table: Any, width: Any, at: Any, which: Any, first: Any, count: Any) -> Any:
    """Σ over the 32 lanes from `at` on of max over `count` (at least 1) entries of `which` of table[entry, lane]; bytes."""
    types, cgutils = numba.core.types, numba.core.cgutils
    size = which.dtype.bitwidth // 8
    unsigned = not which.dtype.signed

    def write(w: _Writer, table: Any, width: Any, at: Any, which: Any, first: Any, count: Any) -> Any:
        ir, b = w.ir, w.builder
        lanes, wide = ir.VectorType(w.byte, LANES), ir.VectorType(ir.IntType(16), LANES)
        held = cgutils.alloca_once_value(b, ir.Constant(lanes, [0] * LANES))
        with cgutils.for_range(b, count, intp=w.size) as turn:
            entry = w.load(w.at(which, b.add(first, turn.index), size), ir.IntType(8 * size), size)
            entry = b.zext(entry, w.size) if unsigned else b.sext(entry, w.size)
            row = w.load(w.at(b.add(table, at), entry, width), lanes, 1)
            top = b.load(held, typ=lanes)
            b.store(b.select(b.icmp_unsigned(">", row, top), row, top), held)
        total = w.call("llvm.vector.reduce.add.v32i16", ir.IntType(16), b.zext(b.load(held, typ=lanes), wide))
        return b.zext(total, w.size)

    kinds = [table, width, at, which, first, count]
    assert isinstance(which, types.Array)
    return _written(write, "int64")(*kinds)


@numba.extending.intrinsic
def widen(typingctx: Any, halves: Any, first: Any, count: Any, out: Any) -> Any:
    """out[i] = the float16 whose bits are halves[first + i], for `count` numbers."""

    def write(w: _Writer, halves: Any, first: Any, count: Any, out: Any) -> None:
        cgutils = numba.core.cgutils

        def copy(at: Any, kind: Any, half: Any) -> None:
            bits = w.load(w.at(halves, w.builder.add(first, at), 2), half, 2)
            w.store(w.builder.fpext(bits, kind), w.at(out, at, 4))

        whole = w.builder.sdiv(count, w.n(WIDE))
        with cgutils.for_range(w.builder, whole, intp=w.size) as turn:
            copy(w.builder.mul(turn.index, w.n(WIDE)), w.reals, w.ir.VectorType(w.ir.HalfType(), WIDE))
        done = w.builder.mul(whole, w.n(WIDE))
        with cgutils.for_range(w.builder, w.builder.sub(count, done), intp=w.size) as turn:
            copy(w.builder.add(done, turn.index), w.real, w.ir.HalfType())

    return _written(write)(halves, first, count, out)


@numba.extending.intrinsic
def unfold(typingctx: Any, codes: Any, token: Any, width: Any, levels: Any, out: Any, place: Any) -> Any:
    """out[place, s × width + b] = levels[the s-th code in codes[token, b]], bytes; as many levels as a code has values.

    `levels` is a tuple, of one number where codes are what they stand for: then a token's codes are copied.
    """
    bits = {1: 8, 2: 1, 4: 2, 16: 4}[levels.count]

    def planes(w: Any, bytes_: Any, kind: Any, values: list[Any]) -> list[Any]:
        if bits == 8:
            return [bytes_]
        made: list[Any] = []
        for first in range(0, 8, bits):
            left = values
            for bit in range(first, first + bits):
                told = w.builder.icmp_unsigned(
                    "!=", w.builder.and_(bytes_, w.constant(kind, 1 << bit)), w.constant(kind, 0)
                )
                left = [w.builder.select(told, left[i + 1], left[i]) for i in range(0, len(left), 2)]
            made.append(left[0])
        return made

    def write(w: _Writer, codes: Any, token: Any, width: Any, levels: Any, out: Any, place: Any) -> None:
        cgutils = numba.core.cgutils
        b = w.builder
        low, to = w.at(codes, token, width), w.at(out, b.mul(place, width), 8 // bits)
        numbers = [b.trunc(b.extract_value(levels, i), w.byte) for i in range(2**bits)] if bits < 8 else []

        def copy(at: Any, kind: Any) -> None:
            values = [w.spread_byte(number, kind) for number in numbers]
            for s, made in enumerate(planes(w, w.load(b.add(low, at), kind, 1), kind, values)):
                w.store(made, b.add(to, b.add(at, b.mul(w.n(s), width))), 1)

        piece = WIDE if bits == 1 else LANES
        whole = b.sdiv(width, w.n(piece))
        with cgutils.for_range(b, whole, intp=w.size) as turn:
            copy(b.mul(turn.index, w.n(piece)), w.ir.VectorType(w.byte, piece))
        done = b.mul(whole, w.n(piece))
        with cgutils.for_range(b, b.sub(width, done), intp=w.size) as turn:
            copy(b.add(done, turn.index), w.byte)

    return _written(write)(codes, token, width, levels, out, place)
