"""Negatives that stay hard at bounded cost: DyNNIBAL (Monath, Zaheer, Allen and McCallum 2023, arXiv 2303.15311, Algorithm 4).

A tree over short codes of all targets gives draws from the softmax (`softmax_tree`). Every `every` steps a sample of targets is encoded, a
regression from stale codes to fresh encodings moves all codes (`nystrom`), and the tree follows them (`sg_follow`). What is held where the
model runs is the landmarks and the sample; codes and tree are in main memory.

Codes are the vectors' projections on the landmarks' span, at most of length one. A last coordinate √(1 − ‖code‖²) puts targets on the unit
sphere, and queries have 0 there (Bachrach et al. 2014): inner products are those of the codes, and the tree's distances are Euclidean.

Maintenance may run beside training: what it needs of the model is encoded at once, the rest is done on a thread and taken into use
`lag` steps later, never sooner, so that the thread's speed changes nothing. A checkpoint in between keeps what the thread was given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.base import Drawn, Encode
from flatcoat.mining.corrector import Network, Ridge
from flatcoat.mining.draws import document_vectors, query_vectors
from flatcoat.mining.nystrom import Budget, Landmarks, choose_landmarks, refresh
from flatcoat.mining.sg_follow import keep, rebuild, repair
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.mining.softmax_tree import Report, SoftmaxSettings, SoftmaxTree

STREAM = 5  # which of a seed's streams of random numbers is this sampler's
LOOKED = 32  # queries whose draws are held against the best hundred
BEST = 100
KEPT = 0.5  # share of points outside their clusters from which on a kept tree is built anew


@dataclass(frozen=True)
class DynnibalSettings:
    """`every` steps codes are refreshed from `sample` targets, and after `full_every` from all of them, or once the held-out error is above
    `budget`. A share `uniform` of the negatives is uniform. `follow` says how the tree does.
    """

    every: int = 100
    landmarks: int = 128
    sample: int = 8192
    choice: str = "uniform"
    corrector: Literal["ridge", "network"] = "ridge"
    budget: float | None = None
    full_every: int | None = None
    uniform: float = 0.5
    lag: int = 0
    follow: Literal["keep", "anew", "repair", "rebuild"] = "keep"
    drift: float | None = None
    tree: TreeSettings = field(default_factory=TreeSettings)
    draw: SoftmaxSettings = field(default_factory=SoftmaxSettings)

    def __post_init__(self) -> None:
        if min(self.every, self.landmarks) < 1 or self.sample < 10 or self.lag < 0:
            raise Misuse("every and landmarks want to be at least 1, sample 10, lag 0")
        if not 0 <= self.uniform <= 1:
            raise Misuse(f"uniform={self.uniform} is a share: want 0 to 1")
        if self.lag >= self.every:
            raise Misuse(
                f"lag={self.lag}: a refresh is to be in use before the next begins; want less than every={self.every}"
            )


@dataclass(frozen=True)
class Held:
    """What draws are made from: targets on the sphere [target, landmark + 1], the landmarks, and the tree."""

    points: np.ndarray
    landmarks: Landmarks
    tree: SoftmaxTree


@dataclass(frozen=True)
class _Task:
    """A refresh under way: what it was given, and when it is taken into use."""

    begun: int
    due: int
    rows: np.ndarray
    fresh: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class _Done:
    held: Held
    error: float
    baseline: float
    moved: int
    seconds: float


def lifted(codes: Float32[np.ndarray, "item code"]) -> Float32[np.ndarray, "item point"]:
    """Codes with the coordinate that makes their length one; longer ones are cut to one first."""
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.float64)
    out = np.empty((len(codes), codes.shape[1] + 1), np.float32)
    out[:, :-1] = codes / np.sqrt(np.maximum(squares, 1))[:, None]
    out[:, -1] = np.sqrt(np.maximum(0, 1 - squares))
    return out


class Dynnibal:
    """A sampler over all documents that follows the model."""

    def __init__(
        self,
        documents: int,
        encode: Encode,
        settings: DynnibalSettings = DynnibalSettings(),
        *,
        seed: int = 0,
        note: Callable[[str], None] = lambda _: None,
    ):
        """`encode` is the model as it is now: queries are encoded at each draw. Raises Misuse where the corpus is too small."""
        self.settings, self.documents, self.encode, self.seed, self.note = settings, documents, encode, seed, note
        self.sample = min(settings.sample, documents)
        if documents < max(10, settings.landmarks):
            raise Misuse(
                f"{settings.landmarks} landmarks of {documents} documents; ask for no more than there are, or draw uniformly"
            )
        self.landmark_rows = np.zeros(0, np.int64)
        self.held: Held | None = None
        self.task: _Task | None = None
        self.work: Future[_Done] | None = None
        self.first_at, self.made_at, self.full_at = -1, -1, -1
        self.report: Report | None = None
        self._looked: tuple[np.ndarray, np.ndarray] | None = None

    # drawing

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query: from the tree, then uniform ones; log q is of the two mixed as they are drawn.

        Raises:
            FlatcoatError: no tree is built yet.
        """
        if self.held is None:
            raise FlatcoatError("no tree is built yet; call after_step before the first draw")
        anywhere = round(self.settings.uniform * n)
        uniform = rng.integers(0, self.documents, (len(queries), anywhere), dtype=np.int64)
        held, deep = self.held, n - anywhere
        codes = held.landmarks.code(query_vectors(self.encode, queries))
        asked = np.concatenate([codes, np.zeros((len(codes), 1), np.float32)], axis=1)
        drawn, self.report = held.tree.draw(asked, max(deep, 1), rng)
        self._looked = asked[:LOOKED], drawn.rows[:LOOKED, :deep]
        rows = np.concatenate([drawn.rows[:, :deep], uniform], axis=1)
        return Drawn(rows, self._mixed(asked, drawn, uniform, deep, n))

    def _mixed(self, asked: np.ndarray, drawn: Drawn, uniform: np.ndarray, deep: int, n: int) -> np.ndarray:
        """The log of deep/n · P + (1 − deep/n) / N of every row, P with the Z that the tree's draws estimate."""
        assert self.held is not None
        beta, points = self.settings.draw.beta, self.held.points
        first = np.einsum("qd,qd->q", asked, points[drawn.rows[:, 0]], dtype=np.float64)
        log_z = beta * first - drawn.log_q[:, 0]
        scores = np.einsum("qd,qnd->qn", asked, points[uniform], dtype=np.float64)
        log_p = np.concatenate([drawn.log_q[:, :deep], beta * scores - log_z[:, None]], axis=1)
        with np.errstate(divide="ignore"):
            mixed = np.logaddexp(np.log(deep / n) + log_p, np.log((n - deep) / n) - np.log(self.documents))
        return np.minimum(mixed, 0).astype(np.float32)

    # following

    def after_step(self, step: int, encode: Encode) -> None:
        """Take a finished refresh into use; begin one where it is due; encode everything where that is."""
        if self.made_at == step:
            return
        if self.held is None or self._full_is_due(step):
            self._encode_all(step, encode)
        if self.task is not None and step >= self.task.due:
            self._finish(step, encode)
        if self.made_at != step and self.task is None and (step - self.first_at) % self.settings.every == 0:
            self._begin(step, encode)
            if self.task is not None and step >= self.task.due:
                self._finish(step, encode)

    def _full_is_due(self, step: int) -> bool:
        after = self.settings.full_every
        return after is not None and step - self.full_at >= after

    def _encode_all(self, step: int, encode: Encode) -> None:
        """Encode every target, and build anew."""
        began = time.perf_counter()
        vectors = document_vectors(encode)
        if not len(self.landmark_rows):
            rng = np.random.default_rng([self.seed, STREAM])
            some = np.sort(rng.choice(self.documents, min(self.documents, 20_000), replace=False))
            self.landmark_rows = some[
                choose_landmarks(vectors[some], self.settings.landmarks, self.settings.choice, rng)
            ]
        landmarks = Landmarks.of(vectors[self.landmark_rows])
        points = lifted(landmarks.code(vectors))
        tree = SGTree.build(points, self.settings.tree, seed=self.seed)
        self.held = Held(points, landmarks, SoftmaxTree(tree, self.settings.draw))
        self.task = self.work = None
        self.made_at = self.full_at = step
        self.first_at = step if self.first_at < 0 else self.first_at
        self.note(
            f"step {step}: encoded all {self.documents} targets for the tree in {time.perf_counter() - began:.1f} s"
        )

    def _begin(self, step: int, encode: Encode) -> None:
        """Encode what a refresh learns from, and let it run."""
        rng = np.random.default_rng([self.seed, STREAM, step])
        rows = np.sort(rng.choice(self.documents, self.sample, replace=False)).astype(np.int64)
        fresh, marks = document_vectors(encode, rows), document_vectors(encode, self.landmark_rows)
        self._launch(_Task(step, step + self.settings.lag, rows, fresh, marks))

    def _launch(self, task: _Task) -> None:
        assert self.held is not None
        self.task, pool = task, ThreadPoolExecutor(1)
        self.work = pool.submit(self._refreshed, self.held, task)
        pool.shutdown(wait=False)

    def _refreshed(self, held: Held, task: _Task) -> _Done:
        """Codes and a tree of the present model; a pure function of what it is given."""
        began, said = time.perf_counter(), self.settings
        rng = np.random.default_rng([self.seed, STREAM, task.begun, 1])
        codes = np.ascontiguousarray(held.points[:, :-1])
        corrector = Ridge() if said.corrector == "ridge" else Network(seed=task.begun, beta=said.draw.beta)
        new = refresh(
            codes,
            held.landmarks,
            task.rows,
            task.fresh,
            rng,
            corrector=corrector,
            landmark_vectors=task.landmarks,
            in_place=True,
        )
        points, old = lifted(new.codes), held.tree.tree
        tree, moved = self._followed(old, points)
        return _Done(
            Held(points, new.landmarks, SoftmaxTree(tree, said.draw)), new.error, new.baseline_error, moved,
            time.perf_counter() - began,
        )  # fmt: skip

    def _followed(self, old: SGTree, points: np.ndarray) -> tuple[SGTree, int]:
        said = self.settings
        if said.follow == "anew":
            return SGTree.build(points, said.tree, seed=self.seed), len(points)
        tree = old.with_vectors(old.vectors)
        if said.follow == "keep":
            lost = keep(tree, points)
            return (tree, 0) if lost <= KEPT else (SGTree.build(points, said.tree, seed=self.seed), len(points))
        if said.follow == "repair":
            return tree, repair(tree, points).moved
        return tree, rebuild(
            tree, points, estimated_drift(old.vectors, points, self.seed) if said.drift is None else said.drift
        ).moved

    def _finish(self, step: int, encode: Encode) -> None:
        """Wait for the refresh, and draw from it; where it failed its budget, encode everything."""
        assert self.work is not None and self.task is not None
        done = self.work.result()
        self.task = self.work = None
        said = f"held-out error {done.error:.3f}, {done.baseline:.3f} without"
        if Budget(self.settings.budget).full(done.error):
            self.note(f"step {step}: {said}, above the budget of {self.settings.budget}")
            self._encode_all(step, encode)
            return
        self.held, self.made_at = done.held, step
        self.note(
            f"step {step}: {self.sample} of {self.documents} targets moved all codes, {said}; {done.moved} hung anew; {done.seconds:.1f} s"
        )

    # telling and keeping

    def told(self, step: int) -> Mapping[str, float]:
        """For the log: steps since codes were refreshed, what the last draw was like, its share of the best hundred by the codes."""
        if self.held is None or self.report is None:
            return {}
        found = {
            "stale": float(step - self.made_at), "accepted": self.report.accepted, "effective": self.report.effective,
            "clusters": self.report.clusters,
        }  # fmt: skip
        if self._looked is not None and self._looked[1].size and step % self.settings.every == 0:
            asked, rows = self._looked
            scores = asked @ self.held.points.T
            depth = min(BEST, self.documents)
            best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            found["of_best"] = float(np.mean([np.isin(own, top).mean() for own, top in zip(rows, best, strict=True)]))
            self.note(
                f"step {step}: draws {self.report.said()}, {found['of_best']:.0%} of them among the best {depth} by the codes"
            )
        return {f"negatives/{name}": value for name, value in found.items()}

    def held_bytes(self) -> Mapping[str, int]:
        """Bytes of full-width vectors that a refresh holds beside the model, of codes and tree, and of all targets' vectors."""
        if self.held is None:
            return {}
        dim = self.held.landmarks.vectors.shape[1]
        tree = sum(value.nbytes for value in self.held.tree.tree.state().values())
        return {
            "beside_model": 4 * dim * (self.sample + 2 * len(self.held.landmarks)),
            "main_memory": self.held.points.nbytes + tree,
            "all_vectors": 4 * dim * self.documents,
        }

    def state(self) -> Mapping[str, np.ndarray]:
        """Codes, landmarks and tree, and what a refresh under way was given."""
        found: dict[str, np.ndarray] = {"at": np.array([self.first_at, self.made_at, self.full_at])}
        if self.held is not None:
            found |= {"points": self.held.points, "landmark_rows": self.landmark_rows}
            found |= {f"landmarks.{name}": value for name, value in self.held.landmarks.arrays().items()}
            found |= {f"tree.{name}": value for name, value in self.held.tree.tree.state().items()}
        if self.task is not None:
            found |= {"task.at": np.array([self.task.begun, self.task.due])}
            found |= {f"task.{name}": getattr(self.task, name) for name in ("rows", "fresh", "landmarks")}
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state; a refresh that was under way is run again."""
        state = {name: np.array(value) for name, value in state.items()}
        self.first_at, self.made_at, self.full_at = (int(value) for value in state["at"])
        self.held = self.task = self.work = None
        if "points" not in state:
            return
        self.landmark_rows = state["landmark_rows"]
        tree = SGTree.restored(state["points"], _under(state, "tree."), self.settings.tree)
        marks = Landmarks.from_arrays(_under(state, "landmarks."))
        self.held = Held(state["points"], marks, SoftmaxTree(tree, self.settings.draw))
        if "task.rows" in state:
            begun, due = (int(value) for value in state["task.at"])
            self._launch(_Task(begun, due, *(state[f"task.{name}"] for name in ("rows", "fresh", "landmarks"))))


def _under(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def estimated_drift(old: np.ndarray, new: np.ndarray, seed: int, pairs: int = 100_000) -> float:
    """The greatest change of distance among random pairs: an estimate of Proposition 6's bound from below, not a bound."""
    rng = np.random.default_rng([seed, STREAM, 2])
    one, two = rng.integers(0, len(old), (2, pairs))
    before, after = (np.linalg.norm(v[one] - v[two], axis=1) for v in (old, new))
    return float(np.abs(before - after).max())


def by_beta(settings: DynnibalSettings, beta: float) -> DynnibalSettings:
    """The same settings with the inverse temperature that training has."""
    return replace(settings, draw=replace(settings.draw, beta=beta))
