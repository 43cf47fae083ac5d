"""Short codes of vectors whose inner products approximate the vectors' own, and how they follow a model that moves.

Nyström with the linear kernel ⟨f(x), f(y)⟩ and m landmarks Λ [m, d], some of the targets: K ≈ K_S K_SS⁻¹ K_Sᵀ (Williams and
Seeger 2001). The paper's two sides are q = Λ f(x) and t = (ΛΛᵀ)⁻¹ Λ f(y); here ΛΛᵀ + εI = LLᵀ and both sides are
code(v) = L⁻¹ Λ v, for which ⟨code(x), code(y)⟩ = ⟨q, t⟩ while the codes of targets have Euclidean distances. A code is the
vector's projection on the landmarks' span, so it is no longer than the vector; `unit` makes it of length one.
Re-encoding: Algorithm 5 of Monath et al. 2023 (AISTATS, arXiv 2303.15311): a regression from stale codes to the fresh encodings
of a sample is applied to the landmarks and to every cached code, which costs as many encodings as the sample has rows.

Choices of landmarks: uniform; the row nearest to each of m k-means centres (Zhang, Tsang, Kwok 2008); ridge leverage scores
vᵀ(VᵀV + λI)⁻¹v, λ the spectrum's tail beyond m over m (Musco and Musco 2017); pivots of a greedy Cholesky factorisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Float32, Int64

from flatcoat.errors import FlatcoatError, Misuse, nearest
from flatcoat.mining.corrector import Correction, Corrector, Ridge, check_sample, held_out

BLOCK = 16384
Choice = Literal["uniform", "kmeans", "leverage", "pivots"]
Codes = Float32[np.ndarray, "item code"] | Float16[np.ndarray, "item code"]


def choose_landmarks(
    vectors: Float[np.ndarray, "item dim"], m: int, how: str, rng: np.random.Generator
) -> Int64[np.ndarray, " landmark"]:
    """M distinct rows of a sample of vectors, as a `Choice` has them; rising, pivots in the order they were found.

    Raises:
        Misuse: m is not between 1 and the sample's size, or `how` is unknown.
    """
    choices = {"uniform": _uniform, "kmeans": _kmeans, "leverage": _leverage, "pivots": _pivots}
    if how not in choices:
        raise Misuse(f"unknown choice of landmarks {how!r}{nearest(how, list(choices))}; one of {', '.join(choices)}")
    if not 1 <= m <= len(vectors):
        raise Misuse(f"{m} landmarks of {len(vectors)} vectors; want 1 to {len(vectors)}")
    rows = choices[how](np.asarray(vectors, dtype=np.float32), m, rng)
    return rows if how == "pivots" else np.sort(rows)


def _uniform(vectors: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(len(vectors), m, replace=False)


def _kmeans(vectors: np.ndarray, m: int, rng: np.random.Generator, iterations: int = 8) -> np.ndarray:
    centres = vectors[_uniform(vectors, m, rng)].astype(np.float64)
    for _ in range(iterations):
        sums, sizes = np.zeros_like(centres), np.zeros(m)
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            own = np.argmax(block @ centres.T.astype(np.float32) - (centres**2).sum(1) / 2, axis=1)
            np.add.at(sums, own, block)
            sizes += np.bincount(own, minlength=m)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    lengths, rows = (vectors.astype(np.float64) ** 2).sum(1) / 2, np.empty(m, np.int64)
    for i, centre in enumerate(centres):
        rows[i] = np.argmax(vectors @ centre - lengths)  # the nearest that is not taken
        lengths[rows[i]] = np.inf
    return rows


def _leverage(vectors: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    values, axes = np.linalg.eigh(vectors.astype(np.float64).T @ vectors)
    values = np.maximum(values, 0)
    penalty = max(values[: max(len(values) - m, 0)].sum() / m, 1e-9 * values.sum(), np.finfo(float).tiny)
    scores = ((vectors @ axes) ** 2 / (values + penalty)).sum(1)
    noise = rng.gumbel(size=len(scores))  # the m largest of log p + Gumbel are draws without replacement
    with np.errstate(divide="ignore"):
        return np.argsort(-(np.log(scores) + noise), kind="stable")[:m].astype(np.int64)


def _pivots(vectors: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """The row of the largest residual each time; the first at random of the longest, the rest at random once none is left."""
    residual = (vectors.astype(np.float64) ** 2).sum(1)
    longest = residual.max()
    basis = np.zeros((0, vectors.shape[1]))
    rows: list[int] = []
    pivot = int(rng.choice(np.flatnonzero(residual >= longest * (1 - 1e-6))))
    while len(rows) < m and residual[pivot] > 1e-6 * longest:
        rows.append(pivot)
        direction = vectors[pivot].astype(np.float64)
        for _ in range(2):  # twice is enough (Gram-Schmidt)
            direction = direction - basis.T @ (basis @ direction)
        basis = np.vstack([basis, direction / np.linalg.norm(direction)])
        residual = residual - (vectors @ basis[-1]) ** 2
        residual[rows] = -np.inf
        pivot = int(np.argmax(residual))
    left = np.setdiff1d(np.arange(len(vectors)), rows)
    rest = rng.choice(left, m - len(rows), replace=False)
    return np.concatenate([np.array(rows, np.int64), rest.astype(np.int64)])


@dataclass(frozen=True)
class Landmarks:
    """Λ, and L⁻¹Λ, which makes codes of vectors."""

    vectors: Float32[np.ndarray, "landmark dim"]
    factor: Float32[np.ndarray, "landmark dim"]

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "landmark dim"], jitter: float = 1e-9) -> Landmarks:
        """Factorise in fp64; `jitter` is ε in units of the mean squared length. Raises FlatcoatError on numbers without a factor."""
        wide = np.asarray(vectors, np.float64)
        gram = wide @ wide.T
        mean = float(np.trace(gram)) / max(len(gram), 1)
        if not np.isfinite(gram).all() or not mean > 0:
            raise FlatcoatError(f"{len(wide)} landmarks are all zero, or hold a number that is not finite")
        lower = np.linalg.cholesky(gram + jitter * mean * np.eye(len(gram)))
        return cls(wide.astype(np.float32), np.linalg.solve(lower, wide).astype(np.float32))

    def code(self, vectors: Float[np.ndarray, "item dim"], *, unit: bool = False) -> Float32[np.ndarray, "item code"]:
        """Codes of queries or targets, in blocks; of length one if `unit`, but zero where no landmark sees the vector.

        Raises:
            Misuse: the vectors' width is not the landmarks'.
        """
        if vectors.shape[1] != self.vectors.shape[1]:
            raise Misuse(
                f"vectors of {vectors.shape[1]} dimensions, landmarks of {self.vectors.shape[1]}; want the same"
            )
        out = np.empty((len(vectors), len(self)), np.float32)
        for start in range(0, len(vectors), BLOCK):
            block = np.asarray(vectors[start : start + BLOCK], np.float32) @ self.factor.T
            out[start : start + BLOCK] = to_unit(block) if unit else block
        return out

    def decode(self, codes: Codes) -> Float32[np.ndarray, "item dim"]:
        """Vectors of codes: their projections on the landmarks' span."""
        return codes.astype(np.float32, copy=False) @ self.factor

    def approximation_error(
        self, vectors: Float[np.ndarray, "item dim"], queries: Float[np.ndarray, "query dim"], *, unit: bool = False
    ) -> dict[str, float]:
        """`rms` and `largest` of |⟨x, y⟩ − ⟨code(x), code(y)⟩| over all pairs; give a sample."""
        asked, total, largest = self.code(queries, unit=unit), 0.0, 0.0
        for start in range(0, len(vectors), BLOCK):
            block = np.asarray(vectors[start : start + BLOCK], np.float32)
            apart = np.abs(queries @ block.T - asked @ self.code(block, unit=unit).T)
            total += float((apart.astype(np.float64) ** 2).sum())
            largest = max(largest, float(apart.max(initial=0)))
        return {"rms": float(np.sqrt(total / max(len(vectors) * len(queries), 1))), "largest": largest}

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` makes it of again, to the same bits."""
        return {"vectors": self.vectors, "factor": self.factor}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Landmarks:
        """Of `arrays`. Raises KeyError where one is missing."""
        return cls(arrays["vectors"], arrays["factor"])


def to_unit(codes: Float32[np.ndarray, "item code"]) -> Float32[np.ndarray, "item code"]:
    """Rows of length one; a zero row stays zero."""
    return codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), np.finfo(np.float32).tiny)


class Refreshed(NamedTuple):
    """Codes and landmarks of the present model, and what the held-out tenth of the sample says of the regression.

    `error` is mean ‖predicted − fresh‖² over the mean ‖fresh − its mean‖²; `cosine` the mean of the predicted with the fresh.
    `baseline_*` are of doing nothing: stale codes decoded by the stale landmarks (what lies outside their span is lost there).
    """

    codes: np.ndarray
    landmarks: Landmarks
    correction: Correction
    error: float
    baseline_error: float
    cosine: float
    baseline_cosine: float


def refresh(
    codes: Codes,
    landmarks: Landmarks,
    rows: Int64[np.ndarray, " sample"],
    fresh: Float[np.ndarray, "sample dim"],
    rng: np.random.Generator,
    *,
    corrector: Corrector | None = None,
    landmark_vectors: Float[np.ndarray, "landmark dim"] | None = None,
    unit: bool = False,
    in_place: bool = False,
) -> Refreshed:
    """Move every code to the present model, learning from the fresh encodings of a uniform sample of rows.

    Args:
        codes: of all targets under `landmarks`; they keep their dtype.
        rows: the sampled targets, a tenth of which `rng` holds out.
        corrector: a ridge where none is given.
        landmark_vectors: the landmarks' fresh encodings; predicted where they are not given.
        unit: whether codes have length one, before and after.
        in_place: write over `codes`, block by block, and hold no second copy.

    Raises:
        Misuse: fewer than ten rows, rows that are not there, or codes that cannot be written to.
        FlatcoatError: fresh encodings that are not finite.
    """
    _check(codes, landmarks, rows, in_place)
    stale = codes[rows]
    check_sample(stale, fresh)
    held, kept = held_out(len(rows), rng)
    correction = (Ridge() if corrector is None else corrector).fit(stale[kept], fresh[kept])
    error, cosine = apart(correction.predict(stale[held]), fresh[held], fresh)
    baseline_error, baseline_cosine = apart(landmarks.decode(stale[held]), fresh[held], fresh)
    if landmark_vectors is None:
        landmark_vectors = correction.predict(landmarks.code(landmarks.vectors, unit=unit))
    moved = Landmarks.of(landmark_vectors)
    out = recode(codes, correction, moved, unit=unit, out=codes if in_place else None)
    return Refreshed(out, moved, correction, error, baseline_error, cosine, baseline_cosine)


def _check(codes: np.ndarray, landmarks: Landmarks, rows: np.ndarray, in_place: bool) -> None:
    if codes.shape[1] != len(landmarks):
        raise Misuse(f"codes of {codes.shape[1]} numbers, {len(landmarks)} landmarks; want the same")
    if len(rows) < 10:
        raise Misuse(f"a sample of {len(rows)} targets; a refresh wants 10 or more")
    if rows.min() < 0 or rows.max() >= len(codes):
        raise Misuse(f"sampled rows {rows.min()} to {rows.max()} of {len(codes)} codes; want 0 to {len(codes) - 1}")
    if in_place and not codes.flags.writeable:
        raise Misuse("codes are read-only; open them for writing, or do not ask for in_place")


def recode(
    codes: Codes, correction: Correction, landmarks: Landmarks, *, unit: bool = False, out: np.ndarray | None = None
) -> np.ndarray:
    """`recode_plainly` with the landmarks' factor put into the correction, in blocks; into `out`, which may be `codes`."""
    out = np.empty_like(codes, subok=False) if out is None else out
    straight = correction.through(landmarks.factor)
    for start in range(0, len(codes), BLOCK):
        block = straight.predict(codes[start : start + BLOCK])
        out[start : start + BLOCK] = to_unit(block) if unit else block
    return out


def recode_plainly(codes: Codes, correction: Correction, landmarks: Landmarks, *, unit: bool = False) -> np.ndarray:
    """The slow twin of `recode`: predict full encodings of all, then code them."""
    return landmarks.code(correction.predict(codes), unit=unit).astype(codes.dtype)


def apart(
    predicted: Float[np.ndarray, "held dim"],
    fresh: Float[np.ndarray, "held dim"],
    all_fresh: Float[np.ndarray, "sample dim"],
) -> tuple[float, float]:
    """The share of the fresh encodings' variance that a prediction leaves, and its mean cosine with them."""
    guess, truth = predicted.astype(np.float64), fresh.astype(np.float64)
    variance = float(((all_fresh - all_fresh.mean(0, dtype=np.float64)) ** 2).sum(1).mean())
    error = float(((guess - truth) ** 2).sum(1).mean()) / max(variance, np.finfo(float).tiny)
    lengths = np.linalg.norm(guess, axis=1) * np.linalg.norm(truth, axis=1)
    return error, float(((guess * truth).sum(1) / np.maximum(lengths, np.finfo(float).tiny)).mean())


@dataclass(frozen=True)
class Budget:
    """When a regression no longer serves and all targets are to be encoded anew."""

    error: float | None = None  # held-out error that is still borne; None: any

    def __post_init__(self) -> None:
        if self.error is not None and not self.error > 0:
            raise Misuse(f"a budget of {self.error}: want a number above 0, or none")

    def full(self, error: float) -> bool:
        """Whether `Refreshed.error` is above the budget; one that is not a number is."""
        return self.error is not None and not error <= self.error
