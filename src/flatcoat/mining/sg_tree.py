"""A stable-greedy tree over targets of unit length (Zaheer, Guruganesh, Levin and Smola 2019; Monath et al. 2023, §3.1).

With radii b^ℓ by level ℓ: a kid c of point p at level ℓ has ‖p − c‖ ≤ b^(ℓ+1) (covering), and p and its kids of level ℓ are more than
b^ℓ apart (separation, among siblings only). A point stands at its own level and, as itself, at every lower one (nesting), so
that a tree has one node a point. The lowest level holds what is all but equal to its parent, side by side.

Building gives the tree that inserting one point after another would give: each goes to the nearest that covers it. A forest is
several such trees over equal shares of the targets. Everything is flat arrays over positions, depth first: what a point covers at any
level is one stretch that begins at it, and a member of it is drawn by one random number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flatcoat.arrays import read_array
from flatcoat.errors import Misuse
from flatcoat.files import atomic_folder, read_manifest, write_manifest

KIND, VERSION = "flatcoat-sg-tree", 1
LEAST = 1e-3  # the radius below which points count as equal: cosines in single precision tell no finer


@dataclass(frozen=True)
class TreeSettings:
    """The base of the radii, the number of trees, and the distance that levels are of: `euclidean`, or the paper's exp(−⟨x, y⟩)."""

    base: float = 1.2
    trees: int = 8
    distance: Literal["euclidean", "exp"] = "euclidean"

    def __post_init__(self) -> None:
        if not 1.01 <= self.base <= 4:
            raise Misuse(f"base {self.base}: radii are powers of it; want 1.01 to 4")
        if self.trees < 1:
            raise Misuse(f"trees {self.trees}: want at least 1")
        if self.distance not in ("euclidean", "exp"):
            raise Misuse(f"distance {self.distance!r}: euclidean or exp")

    def radii(self) -> np.ndarray:
        """Euclidean radii by level, rising: 0 for the lowest, the last no less than 2, the sphere's diameter.

        exp(−⟨x, y⟩) = exp(d²/2 − 1), so a radius b^ℓ there is d = √(2 + 2·ℓ·ln b).
        """
        log = math.log(self.base)
        if self.distance == "exp":
            lowest = math.floor(-1 / log) + 1
            squares = 2 + 2 * np.arange(lowest, math.ceil(1 / log) + 2) * log
            found = np.sqrt(squares[squares > LEAST**2])
        else:
            found = self.base ** np.arange(math.ceil(math.log(LEAST) / log), math.ceil(math.log(2) / log) + 1.0)
        return np.concatenate([[0.0], found])


@dataclass(frozen=True)
class Arrays:
    """A forest as it lies. `order[p]` is the row at position p; cosines as in sg_kernels; `roots` are positions."""

    order: np.ndarray
    level: np.ndarray
    parent: np.ndarray
    prev: np.ndarray
    last: np.ndarray
    size: np.ndarray
    reach: np.ndarray
    gap: np.ndarray
    roots: np.ndarray

    @classmethod
    def blank(cls, order: np.ndarray, bounds: np.ndarray, top: int) -> Arrays:
        """Room for a forest over rows in an order, cut at bounds."""
        count = len(order)
        none = np.full(count, -1, np.int32)
        return cls(
            order.astype(np.int32), np.full(count, top, np.int16), none, none.copy(), none.copy(),
            np.ones(count, np.int32), np.ones(count, np.float32), np.ones(count, np.float32), bounds[:-1].astype(np.int64),
        )  # fmt: skip

    def bounds(self) -> list[tuple[int, int]]:
        """Where each tree begins and ends."""
        ends = [*self.roots[1:].tolist(), len(self.order)]
        return list(zip(self.roots.tolist(), ends, strict=True))


class SGTree:
    """A forest over the rows of `vectors` (float32 [row, dim], unit length; rows may be absent from it)."""

    def __init__(self, vectors: np.ndarray, arrays: Arrays, settings: TreeSettings, threads: int | None = None):
        self.vectors, self.arrays, self.settings = vectors, arrays, settings
        self.threads = threads or os.cpu_count() or 1
        self.radii = settings.radii()
        self.cosines = (1 - self.radii**2 / 2).astype(np.float32)

    def __len__(self) -> int:
        return len(self.arrays.order)

    @property
    def top(self) -> int:
        """The level of a root; its kids stand lower."""
        return len(self.radii) - 1

    @classmethod
    def build(
        cls, vectors: np.ndarray, settings: TreeSettings = TreeSettings(), *, seed: int = 0, rows: np.ndarray | None = None,
        threads: int | None = None,
    ) -> SGTree:  # fmt: skip
        """Build over all rows, or those given, in an order drawn with `seed`; the same bits whatever `threads`.

        Raises Misuse where there is nothing to build over, a row is no vector's or comes twice, or a vector is not of unit length.
        """
        check(vectors)
        rows = np.arange(len(vectors), dtype=np.int32) if rows is None else distinct(rows, len(vectors))
        order = np.random.default_rng(seed).permutation(rows)
        trees = min(settings.trees, max(1, len(order)))
        bounds = np.linspace(0, len(order), trees + 1).astype(np.int64)
        tree = cls(vectors, Arrays.blank(order, bounds, len(settings.radii()) - 1), settings, threads)
        tree.grow([(int(lo), int(hi), tree.top - 1) for lo, hi in pairwise(bounds)])
        tree.link()
        return tree

    def grow(self, stretches: Iterable[tuple[int, int, int]]) -> None:
        """Build anew what lies between two positions, below the point at the first, at levels up to a third number."""
        from flatcoat.mining.sg_kernels import begin, grow

        a = self.arrays
        sims, others = np.ones(len(self), np.float32), np.empty(len(self), np.float32)
        other, owner = np.empty(len(self), np.int32), np.empty(len(self), np.int32)

        def one(stretch: tuple[int, int, int]) -> None:
            lo, hi, most = stretch
            a.size[lo] = max(a.size[lo], hi - lo)
            begin(self.vectors, a.order, sims, lo, hi)
            grow(
                self.vectors, a.order, sims, other, others, owner, a.level, a.parent, a.size, a.reach, a.gap,
                self.cosines, lo, hi, most,
            )  # fmt: skip

        self.each(one, stretches)

    def link(self) -> None:
        """Set which kid comes before which, from sizes and parents."""
        from flatcoat.mining.sg_kernels import chain

        a = self.arrays
        self.each(lambda b: chain(a.size, a.parent, a.prev, a.last, *b), a.bounds())

    def each(self, work: Callable[[Any], object], parts: Iterable[Any]) -> None:
        """Do a work on each part, by this tree's threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, parts))

    def with_vectors(self, vectors: np.ndarray) -> SGTree:
        """The same forest, its arrays copied, over vectors that moved; its bounds are those of the old ones until it follows them."""
        copied = Arrays(**{name: value.copy() for name, value in vars(self.arrays).items()})
        return SGTree(vectors, copied, self.settings, self.threads)

    def state(self) -> Mapping[str, np.ndarray]:
        """The arrays by name; vectors are kept by whoever owns them."""
        return dict(vars(self.arrays))

    @classmethod
    def restored(cls, vectors: np.ndarray, state: Mapping[str, np.ndarray], settings: TreeSettings) -> SGTree:
        """A forest from its arrays."""
        return cls(vectors, Arrays(**{name: np.array(state[name]) for name in Arrays.__annotations__}), settings)

    def save(self, folder: Path) -> None:
        """Write the arrays, and the vectors, as .npy files; the folder is there whole or not at all."""
        with atomic_folder(folder) as target:
            for name, value in {**vars(self.arrays), "vectors": self.vectors}.items():
                np.save(target / f"{name}.npy", value)
            write_manifest(target, KIND, VERSION, asdict(self.settings))

    @classmethod
    def open(cls, folder: Path) -> SGTree:
        """Open a folder, memory-mapped. Raises FlatcoatError where it is no tree."""
        facts = read_manifest(folder, KIND, VERSION)
        found = {name: read_array(folder / f"{name}.npy") for name in (*Arrays.__annotations__, "vectors")}
        settings = TreeSettings(**{name: facts[name] for name in TreeSettings.__annotations__})
        return cls(found.pop("vectors"), Arrays(**found), settings)


def check(vectors: np.ndarray) -> None:
    """Raises Misuse for vectors, looked at here and there, that are not float32 [row, dim] of unit length."""
    if not len(vectors):
        raise Misuse("a tree wants at least one vector")
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise Misuse(f"a tree wants float32 vectors [row, dim], not {vectors.dtype} {list(vectors.shape)}")
    some = vectors[:: max(1, len(vectors) // 1000)]
    off = np.abs(np.einsum("nd,nd->n", some, some, dtype=np.float64) - 1).max()
    if not off < 1e-2:
        raise Misuse(f"a tree wants vectors of unit length; a squared length is off by {off:.2g}")


def distinct(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows as int32. Raises Misuse where there is none, one comes twice, or one is not of `count` vectors."""
    found = np.asarray(rows)
    if not found.size:
        raise Misuse("a tree wants at least one row")
    if found.min() < 0 or found.max() >= count:
        raise Misuse(f"rows {found.min()} to {found.max()} are not all of the {count} vectors")
    if len(np.unique(found)) < len(found):
        raise Misuse(f"rows are {len(found)}, but only {len(np.unique(found))} different ones; give each once")
    return found.astype(np.int32)
