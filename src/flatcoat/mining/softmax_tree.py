"""Draws from P(y|x) = exp(β⟨x, y⟩) / Z over all targets of a tree, at the cost of some of them (Monath et al. 2023, §3.2).

A frontier of clusters gives the proposal Q(y|x) ∝ exp(β⟨x, rep(y)⟩). Where each radius r of it has 2βr ≤ log γ, P/Q ≤ γ (Proposition 2),
and a Metropolis–Hastings chain of s independent proposals is within (1 − 1/γ)^(s−1) of P in total variation (Equation 6); the gradient of a
loss over its draws is then off by no more than 2εβM (Proposition 5). Three methods:

* `mh`: such chains. `members = "uniform"` is the paper's proposal; `"descend"` goes on from the cluster to one target, each part chosen by
  members × exp(β·centre): closer to P, without a bound of its own.
* `rejection`: Algorithm 1 in the form of its proof; exact, at the cost of how loose the bounds are. A draw that has begun `tries` times is
  taken from a chain instead, and counted.
* `best`: the paper's heuristic: of the nearest clusters the representatives and some members, and of those the best. Hard, not from P.

`opens = "near"` is Algorithm 2 as it is run: the nearest clusters that are too wide for γ, no more than `clusters`. `"mass"` opens what is
known least, until γ holds by the clusters' own bounds: their farthest members, measured, and angles in place of distances. What a run
guarantees is computed from these bounds for each query, and told beside what was measured. For encodings of real text the bounds are far
too wide to say anything (γ of 10⁹ and more); the acceptance rate and the effective sample size are what to look at.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from flatcoat.errors import Misuse
from flatcoat.mining.base import Drawn
from flatcoat.mining.sg_tree import SGTree

METHODS = ("mh", "rejection", "best")


@dataclass(frozen=True)
class SoftmaxSettings:
    """β, the method, γ and the most clusters that are opened for it, and the length of chains."""

    beta: float = 20.0
    method: Literal["mh", "rejection", "best"] = "mh"
    gamma: float = 2.0
    clusters: int = 1000
    opens: Literal["near", "mass"] = "near"
    chain: int = 2
    members: Literal["descend", "uniform"] = "descend"
    tries: int = 1000

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise Misuse(f"method {self.method!r}: one of {', '.join(METHODS)}")
        if not (self.beta > 0 and self.gamma > 1 and min(self.clusters, self.chain, self.tries) >= 1):
            raise Misuse("beta wants to be above 0, gamma above 1, and clusters, chain and tries at least 1")

    @property
    def finest(self) -> float:
        """The radius at which Proposition 2 gives γ: log γ / 2β."""
        return math.log(self.gamma) / (2 * self.beta)

    def chain_for(self, variation: float) -> int:
        """The length of a chain that is within a total variation, where γ holds (Equation 6)."""
        return 1 + math.ceil(math.log(variation) / math.log1p(-1 / self.gamma))


class Report(NamedTuple):
    """What a draw guarantees, over its queries, and what it was.

    `gamma` is the worst P/Q by the clusters' bounds (median and greatest over queries); `variation` the bound of Equation 6 for the
    greatest; `bias` that of Proposition 5 in units of M, the greatest gradient of a score. `accepted` is the share of chains' moves, or
    of rejection's begins; `effective` the effective sample size of proposals as a share; `given_up` the share of draws that rejection
    left to a chain.
    """

    gamma: float
    worst_gamma: float
    variation: float
    bias: float
    accepted: float
    effective: float
    clusters: float
    given_up: float

    def said(self) -> str:
        """In words: what is guaranteed, and what was measured."""
        return (
            f"within {self.variation:.3g} of the softmax (total variation) and {self.bias:.3g}·M of its gradient by their bounds "
            f"(P/Q up to {self.worst_gamma:.2g}); measured: {self.accepted:.2f} accepted, effective sample {self.effective:.2f}"
        )


class SoftmaxTree:
    """A sampler over a tree; it keeps what depends on the tree alone."""

    def __init__(self, tree: SGTree, settings: SoftmaxSettings = SoftmaxSettings(), threads: int | None = None):
        self.tree, self.settings = tree, settings
        self.threads = threads or os.cpu_count() or 1
        a = tree.arrays
        hung = a.parent[a.parent >= 0]
        self.widest = int(np.bincount(hung).max()) if hung.size else 0

    def draw(self, queries: Float32[np.ndarray, "query dim"], n: int, rng: np.random.Generator) -> tuple[Drawn, Report]:
        """N targets' rows for each query, with replacement, and the log-probability of each; the same bits whatever `threads`.

        A chain of several steps says the log-probability under P, with Z estimated from all its proposals (a chain of one that under Q,
        exactly); the heuristic that of a uniform choice among what it found. Raises Misuse where a query is not finite.
        """
        from flatcoat.mining.softmax_kernels import draw_block

        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        if not np.isfinite(lengths).all():
            raise Misuse(f"query {int(np.flatnonzero(~np.isfinite(lengths))[0])} holds a number that is not finite")
        unit = (queries / np.maximum(lengths, 1e-30)[:, None]).astype(np.float32)
        said, a = self.settings, self.tree.arrays
        seeds = rng.integers(0, 2**64, len(queries), dtype=np.uint64)
        rows, logs = np.zeros((len(queries), n), np.int64), np.zeros((len(queries), n))
        facts = np.zeros((len(queries), 5))
        parts = max(1, min(self.threads, len(queries) // 4))
        bounds = np.linspace(0, len(queries), parts + 1).astype(int)

        def one(part: int) -> None:
            own = slice(bounds[part], bounds[part + 1])
            draw_block(
                METHODS.index(said.method), unit[own], lengths[own], said.beta, said.gamma, said.clusters,
                said.opens == "near", said.finest, said.chain, said.members == "descend", said.tries, seeds[own], a.roots,
                self.tree.vectors, a.order, a.level, a.prev, a.last, a.size, a.reach, self.tree.radii, self.widest,
                rows[own], logs[own], facts[own],
            )  # fmt: skip

        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(one, range(parts)))
        return Drawn(rows, np.minimum(logs, 0).astype(np.float32)), self._report(facts)

    def _report(self, facts: np.ndarray) -> Report:
        said = self.settings
        worst = float(facts[:, 0].max(initial=1.0))
        exact = said.method == "rejection"
        variation = 0.0 if exact else math.exp((said.chain - 1) * math.log1p(-1 / worst)) if worst > 1 else 0.0
        if said.method == "best":
            variation = 1.0
        if exact and facts[:, 4].any():
            variation = 1.0
        return Report(
            float(np.median(facts[:, 0])), worst, variation, 2 * variation * said.beta, float(facts[:, 2].mean()),
            float(facts[:, 3].mean()), float(facts[:, 1].mean()), float(facts[:, 4].mean()),
        )  # fmt: skip


def exact_log_p(
    queries: Float32[np.ndarray, "query dim"], vectors: Float32[np.ndarray, "target dim"], beta: float
) -> np.ndarray:
    """The slow twin: log P(y|x) of every target, fp64 [query, target]."""
    scores = beta * (queries.astype(np.float64) @ vectors.T.astype(np.float64))
    most = scores.max(1, keepdims=True)
    return scores - most - np.log(np.exp(scores - most).sum(1, keepdims=True))
