"""What a stale code has become: regressions from cached codes to fresh encodings, learnt from a sample of both.

Ridge: h(c) = Wᵀc + b, (W, b) = argmin Σᵢ ‖Wᵀcᵢ + b − f(yᵢ)‖² + λ‖W‖². This is kernel ridge regression with the linear kernel
of the codes (Monath et al. 2023, AISTATS, arXiv 2303.15311, §4.2) with an intercept, in its primal form; λ by generalised
cross-validation (Golub, Heath, Wahba 1979): the least ‖Y − Ŷ‖² / (1 − tr H / s)².

Network: h(c) = ridge(c) + V relu(U c + u), after the target corrector of Monath et al. 2024 (ICML, arXiv 2409.01890). With queries
X its loss is the cross-entropy of softmax(β X·h(c)ᵀ) under softmax(β X·f(y)ᵀ), plus squared error. It differs from the paper:
it starts from the ridge, and V = 0; it reads Nyström codes, not full stale encodings; it is trained anew on each refresh's
sample and then applied once to every cached code, where the paper trains it along with the encoder and corrects at every
step; the softmaxes run over a batch of the sample; the squared error is ours; what a held-out tenth does not confirm is dropped.

Both outputs are affine in (c, relu(U c + u)), so that a linear map of the output can be put into the weights once: `through`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from flatcoat.errors import FlatcoatError, Misuse

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-20, 5))


@runtime_checkable
class Correction(Protocol):
    """A fitted regression from stale codes to fresh encodings."""

    def predict(self, codes: np.ndarray) -> np.ndarray:
        """Codes [n, code] to encodings, float32 [n, dim]."""
        ...

    def through(self, factor: np.ndarray) -> Correction:
        """The same followed by the linear map `factor` [out, dim]: codes to float32 [n, out]."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """What `from_arrays` of the same class makes it of again, to the same bits."""
        ...


@runtime_checkable
class Corrector(Protocol):
    """Settings of a regression."""

    def fit(self, codes: np.ndarray, fresh: np.ndarray) -> Correction:
        """Learn from stale codes [s, code] and the fresh encodings [s, dim] of the same targets."""
        ...


@dataclass(frozen=True)
class Affine:
    """h(c) = c·weights + bias."""

    weights: Float32[np.ndarray, "code dim"]
    bias: Float32[np.ndarray, " dim"]

    def predict(self, codes: Float[np.ndarray, "n code"]) -> Float32[np.ndarray, "n dim"]:
        """Encodings of codes."""
        return codes.astype(np.float32, copy=False) @ self.weights + self.bias

    def through(self, factor: Float[np.ndarray, "out dim"]) -> Affine:
        """The same followed by `factor`: one product instead of two."""
        wide = factor.astype(np.float64)
        return Affine((self.weights @ wide.T).astype(np.float32), (wide @ self.bias).astype(np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights and bias."""
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Affine:
        """Of `arrays`. Raises KeyError where one is missing."""
        return cls(arrays["weights"], arrays["bias"])


@dataclass(frozen=True)
class Ridge:
    """Ridge regression with intercept, solved in fp64. `penalty` is λ in units of the mean eigenvalue of the codes' scatter."""

    penalty: float | None = None  # None: by generalised cross-validation

    def __post_init__(self) -> None:
        if self.penalty is not None and not self.penalty > 0:
            raise Misuse(f"penalty={self.penalty}: want a number above 0, or none to have it chosen")

    def fit(self, codes: Float[np.ndarray, "sample code"], fresh: Float[np.ndarray, "sample dim"]) -> Affine:
        """The closed form. Raises Misuse on fewer than two rows, FlatcoatError on numbers that are not finite."""
        check_sample(codes, fresh)
        x, y = codes.astype(np.float64), fresh.astype(np.float64)
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        values, axes = np.linalg.eigh(x.T @ x)
        values = np.maximum(values, 0)
        along = axes.T @ (x.T @ y)  # [code, dim]
        unit = values.mean() or 1.0
        if self.penalty is not None:
            penalty = self.penalty * unit
        else:
            penalty = _by_cross_validation(values, (along**2).sum(1), float((y**2).sum()), len(x), unit)
        weights = axes @ (along / (values + penalty)[:, None])
        return Affine(weights.astype(np.float32), (y_mean - x_mean @ weights).astype(np.float32))


def _by_cross_validation(values: np.ndarray, along: np.ndarray, total: float, size: int, unit: float) -> float:
    """The λ of least ‖Y − Ŷ‖² / (1 − tr H / s)²; the smaller of equals."""
    best, least = PENALTIES[-1] * unit, np.inf
    for penalty in (relative * unit for relative in PENALTIES):
        shrunk = values + penalty
        residual = max(total - float((along * (2 / shrunk - values / shrunk**2)).sum()), 0.0)
        free = 1 - (1 + float((values / shrunk).sum())) / size
        if free > 1e-6 and residual / free**2 < least:
            best, least = penalty, residual / free**2
    return best


def check_sample(codes: np.ndarray, fresh: np.ndarray) -> None:
    """Raise Misuse on fewer than two rows, FlatcoatError where a number is not finite."""
    if len(codes) < 2:
        raise Misuse(
            f"a corrector learns from targets' stale codes and fresh encodings: {len(codes)} given, want 2 or more"
        )
    for name, array in (("stale codes", codes), ("fresh encodings", fresh)):
        bad = int((~np.isfinite(array).all(1)).sum())
        if bad:
            raise FlatcoatError(f"{bad} of {len(array)} {name} hold a number that is not finite")


class Hidden(NamedTuple):
    """U, u and V of V relu(U c + u)."""

    weights: Float[np.ndarray, "hidden code"]
    shift: Float[np.ndarray, " hidden"]
    out: Float[np.ndarray, "dim hidden"]


class Batch(NamedTuple):
    """Codes, what the ridge makes of them, the truth, and queries; without queries there is squared error alone."""

    codes: Float[np.ndarray, "target code"]
    base: Float[np.ndarray, "target dim"]
    fresh: Float[np.ndarray, "target dim"]
    queries: Float[np.ndarray, "query dim"] | None = None


def loss(hidden: Hidden, batch: Batch, beta: float, squared: float) -> tuple[float, Hidden]:
    """The loss of a batch, and its gradient: squared · mean ‖h(c) − f(y)‖² + the mean cross-entropy over queries."""
    before = batch.codes @ hidden.weights.T + hidden.shift
    active = np.maximum(before, 0)
    found = batch.base + active @ hidden.out.T
    apart = found - batch.fresh
    value = squared * float((apart**2).sum()) / len(found)
    slope = (2 * squared / len(found)) * apart  # ∂loss/∂h(c)
    if batch.queries is not None:
        truth = _log_softmax(beta * (batch.queries @ batch.fresh.T))
        guess = _log_softmax(beta * (batch.queries @ found.T))
        value -= float((np.exp(truth) * guess).sum()) / len(guess)
        slope = slope + (beta / len(guess)) * ((np.exp(guess) - np.exp(truth)).T @ batch.queries)
    inner = np.where(before > 0, slope @ hidden.out, 0)
    return value, Hidden(inner.T @ batch.codes, inner.sum(0), slope.T @ active)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


@dataclass(frozen=True)
class Residual:
    """h(c) = base(c) + V relu(U c + u)."""

    base: Affine
    weights: Float32[np.ndarray, "hidden code"]
    shift: Float32[np.ndarray, " hidden"]
    out: Float32[np.ndarray, "dim hidden"]

    def predict(self, codes: Float[np.ndarray, "n code"]) -> Float32[np.ndarray, "n dim"]:
        """Encodings of codes."""
        codes = codes.astype(np.float32, copy=False)
        return self.base.predict(codes) + np.maximum(codes @ self.weights.T + self.shift, 0) @ self.out.T

    def through(self, factor: Float[np.ndarray, "out dim"]) -> Residual:
        """The same followed by `factor`, which goes into V and the ridge."""
        out = (factor.astype(np.float64) @ self.out).astype(np.float32)
        return Residual(self.base.through(factor), self.weights, self.shift, out)

    def arrays(self) -> dict[str, np.ndarray]:
        """The ridge's arrays and the network's."""
        own = {"hidden": self.weights, "shift": self.shift, "out": self.out}
        return {**self.base.arrays(), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Residual:
        """Of `arrays`. Raises KeyError where one is missing."""
        return cls(Affine.from_arrays(arrays), arrays["hidden"], arrays["shift"], arrays["out"])


@dataclass(frozen=True)
class Network:
    """A ridge and a small residual network on top, trained by Adam (Kingma and Ba 2015) until a held-out tenth stops falling.

    A held-out loss that is better counts only where the held-out squared error is no worse than the ridge's. Where none
    counts, V = 0 and the prediction is that of the ridge of the whole sample.
    """

    queries: Float[np.ndarray, "query dim"] | None = None  # vectors of the present model
    beta: float = 20.0  # inverse temperature of the softmaxes
    squared: float = 10.0  # the weight of the squared error; at 1 the steep cross-entropy pays for itself with it
    hidden: int = 256
    rate: float = 3e-4
    batch: int = 128  # targets a step
    asked: int = 64  # queries a step
    epochs: int = 40
    patience: int = 5  # epochs without a better held-out loss
    penalty: float | None = None  # the ridge's
    seed: int = 0

    def fit(self, codes: Float[np.ndarray, "sample code"], fresh: Float[np.ndarray, "sample dim"]) -> Residual:
        """Train. Raises Misuse on fewer than ten rows, FlatcoatError on numbers that are not finite."""
        if len(codes) < 10:
            raise Misuse(f"the network learns from {len(codes)} targets; give 10 or more, or take the ridge")
        check_sample(codes, fresh)
        rng = np.random.default_rng(self.seed)
        held, kept = held_out(len(codes), rng)
        ridge = Ridge(self.penalty).fit(codes[kept], fresh[kept])
        train, test = (self._side(ridge, codes[rows], fresh[rows]) for rows in (kept, held))
        hidden = self._train(self._begin(train, rng), train, test, rng)
        if not hidden.out.any():  # nothing was confirmed: the held-out rows need not be kept from the ridge
            ridge = Ridge(self.penalty).fit(codes, fresh)
        return Residual(ridge, *hidden)

    def _side(self, ridge: Affine, codes: np.ndarray, fresh: np.ndarray) -> Batch:
        queries = None if self.queries is None else self.queries.astype(np.float32)
        return Batch(codes.astype(np.float32), ridge.predict(codes), fresh.astype(np.float32), queries)

    def _begin(self, train: Batch, rng: np.random.Generator) -> Hidden:
        """Random directions through the codes' mean, scaled so that all activations together have length of about one; V = 0."""
        mean = train.codes.mean(0)
        scale = float(np.sqrt(((train.codes - mean) ** 2).sum(1).mean())) or 1.0
        weights = (rng.standard_normal((self.hidden, len(mean))) / (scale * np.sqrt(self.hidden))).astype(np.float32)
        return Hidden(weights, -weights @ mean, np.zeros((train.fresh.shape[1], self.hidden), np.float32))

    def _train(self, hidden: Hidden, train: Batch, test: Batch, rng: np.random.Generator) -> Hidden:
        """The hidden part of the best held-out loss; that given where none is better."""
        limit = self._squared_error(hidden, test)
        best, least, since = hidden, loss(hidden, test, self.beta, self.squared)[0], 0
        moments = tuple(np.zeros_like(part) for part in hidden), tuple(np.zeros_like(part) for part in hidden)
        step = 0
        for _ in range(self.epochs):
            for batch in self._batches(train, rng):
                step += 1
                gradient = loss(hidden, batch, self.beta, self.squared)[1]
                hidden, moments = _adam(hidden, gradient, moments, step, self.rate)
            value = loss(hidden, test, self.beta, self.squared)[0]
            better = value < least and self._squared_error(hidden, test) <= limit
            best, least, since = (hidden, value, 0) if better else (best, least, since + 1)
            if since >= self.patience:
                break
        return best

    def _batches(self, train: Batch, rng: np.random.Generator) -> list[Batch]:
        order = rng.permutation(len(train.codes))
        cuts = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        return [
            Batch(train.codes[cut], train.base[cut], train.fresh[cut], self._ask(train.queries, rng)) for cut in cuts
        ]

    def _ask(self, queries: np.ndarray | None, rng: np.random.Generator) -> np.ndarray | None:
        return (
            None if queries is None else queries[rng.choice(len(queries), min(self.asked, len(queries)), replace=False)]
        )

    def _squared_error(self, hidden: Hidden, batch: Batch) -> float:
        return loss(hidden, batch._replace(queries=None), self.beta, 1.0)[0]


def held_out(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random tenth of `size` rows (one at least), and the others."""
    order = rng.permutation(size)
    cut = max(size // 10, 1)
    return np.sort(order[:cut]), np.sort(order[cut:])


Moments = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]


def _adam(hidden: Hidden, gradient: Hidden, moments: Moments, step: int, rate: float) -> tuple[Hidden, Moments]:
    first = tuple(0.9 * old + 0.1 * new for old, new in zip(moments[0], gradient, strict=True))
    second = tuple(0.999 * old + 0.001 * new**2 for old, new in zip(moments[1], gradient, strict=True))
    near, far = 1 - 0.9**step, 1 - 0.999**step
    moved = [
        part - rate * (a / near) / (np.sqrt(b / far) + 1e-8) for part, a, b in zip(hidden, first, second, strict=True)
    ]
    return Hidden(*moved), (first, second)
