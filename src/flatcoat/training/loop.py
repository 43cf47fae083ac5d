"""The loop: batches to steps, with negatives that may follow the model, checkpoints, early stopping, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from flatcoat.data.pairs import Pairs, epoch_batches
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import remove_folder
from flatcoat.mining.base import Encode, NegativeSampler, Telling
from flatcoat.models.memory import is_full
from flatcoat.objectives.total import Evidence, Term
from flatcoat.records import Track, silent
from flatcoat.training.log import Log
from flatcoat.training.processes import Processes
from flatcoat.training.schedule import Shape, share
from flatcoat.training.state import load_state, newest, save_state
from flatcoat.training.step import Outcome, gradient, term_norms
from flatcoat.training.student import Batch, Student


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast. `batch` counts queries of one step over all processes and before accumulation.

    `accumulate` batches make one step; their negatives are not shared (a larger `batch` with `cached` shares them).
    """

    steps: int = 1000
    batch: int = 64
    rate: float = 2e-5
    weight_decay: float = 0.01
    schedule: Shape = "linear"
    warmup: int = 50
    floor: float = 0.1
    accumulate: int = 1
    clip: float | None = 1.0
    cached: bool = False
    negatives: int = 0
    seed: int = 0
    save_every: int | None = None
    evaluate_every: int | None = None
    evaluate_after: int = 0
    patience: int | None = None
    tensorboard: bool = False
    norms_every: int | None = None


@runtime_checkable
class Follower(Protocol):
    """Something that follows the steps and has a state of its own: a controller, a watch."""

    def after_step(self, step: int, evidence: Evidence) -> Mapping[str, float]:
        """Look at what step `step` (from 0) showed; give what is worth a line in the log."""
        ...

    def state(self) -> Mapping[str, np.ndarray]:
        """What `restore` needs to go on to the same bits."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state."""
        ...


@runtime_checkable
class Teacher(Protocol):
    """Scores of every query of a batch with every document of it."""

    def score(self, queries: np.ndarray, documents: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Scores [query, document] by rows of the collection; not a number where it says nothing.

        `wanted` marks each query's own candidates, the least that it should score.
        """
        ...


class Training:
    """One training run in a folder: `checkpoints/`, `best/`, `log.jsonl`."""

    def __init__(
        self,
        student: Student,
        pairs: Pairs,
        terms: Sequence[Term],
        settings: LoopSettings,
        folder: Path,
        *,
        sampler: NegativeSampler | None = None,
        encode: Encode | None = None,
        evaluate: Callable[[], float] | None = None,
        processes: Processes | None = None,
        followers: Sequence[Follower] = (),
        teacher: Teacher | None = None,
    ):
        self.student, self.pairs, self.terms, self.settings, self.folder = student, pairs, terms, settings, folder
        self.sampler, self.encode, self.evaluate = sampler, encode, evaluate
        self.processes = processes or Processes()
        self.followers, self.teacher = list(followers), teacher
        self.prepare: Callable[[], object] | None = None  # what is to be done before the first step that is taken
        self.step = 0
        self.best: float | None = None
        self.best_step = 0
        self.stopped = False
        self.optimizer = _optimizer(student, settings)
        self._epoch: tuple[int, np.ndarray] | None = None
        if settings.batch % self.processes.world:
            raise Misuse(
                f"batch={settings.batch} does not divide among {self.processes.world} processes; use a multiple"
            )
        if settings.negatives and sampler is None:
            raise Misuse(f"negatives={settings.negatives} but no kind of negatives is chosen")
        if (settings.evaluate_every or settings.patience) and evaluate is None:
            raise Misuse("evaluate_every and patience want a dev split to evaluate on")

    def run(self, *, resume: bool = False, track: Track = silent) -> None:
        """Train to the last step, or until patience ends."""
        checkpoint = newest(self.folder / "checkpoints") if resume else None
        if checkpoint:
            self.restore(checkpoint)
        elif self.processes.rank == 0:
            remove_folder(self.folder / "checkpoints")
        log = Log(self.folder, self.step, tensorboard=self.settings.tensorboard) if self.processes.rank == 0 else None
        if self.step == 0:
            started = time.perf_counter()
            self._follow()
            self._waited = time.perf_counter() - started
        if self.prepare is not None:
            self.prepare()
        self.student.module.train()
        try:
            for _ in track(range(self.step, self.settings.steps), self.settings.steps - self.step, "train"):
                if self.stopped:
                    break
                self._advance(log)
        finally:
            if log:
                log.close()
            self.student.module.train(False)

    def _advance(self, log: Log | None) -> None:
        started = time.perf_counter()
        values = self.one_step()
        self.step += 1
        if self.step < self.settings.steps:
            self._follow()
        settled = self.step >= self.settings.evaluate_after  # before it, a sparse model is not yet what it is to be
        if settled and self._due(self.settings.evaluate_every) and self.evaluate:
            values["dev"] = self._judge()
        if log:
            began = (
                {"seconds_before": self._waited} if self.step == 1 else {}
            )  # what negatives cost before the first step
            log.write(self.step, {**values, **began, "seconds": time.perf_counter() - started})
        if self._due(self.settings.save_every) and self.step < self.settings.steps:
            self.save()

    def one_step(self) -> dict[str, float]:
        """One optimizer step; what it showed. Raises FlatcoatError where the loss is not finite."""
        settings = self.settings
        rate = settings.rate * share(self.step, settings.steps, settings.schedule, settings.warmup, settings.floor)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        # dropout is a function of seed, step and process: nothing drawn elsewhere can shift it, and there is nothing to save
        torch.manual_seed(
            int(np.random.SeedSequence([settings.seed, self.step, self.processes.rank]).generate_state(1)[0])
        )
        self.optimizer.zero_grad(set_to_none=True)  # nothing of the last step may leak into this one
        norms: dict[str, float] = {}
        if self._due(settings.norms_every):
            first = self.batch(self.step * settings.accumulate)
            norms = term_norms(
                self.student, first, self.terms, self.step, processes=self.processes, cached=settings.cached
            )
        outcomes = [self._micro(part) for part in range(settings.accumulate)]
        loss = sum(o.loss for o in outcomes) / len(outcomes)
        if not math.isfinite(loss):
            raise FlatcoatError(self._broken(loss))
        parameters = [p for p in self.student.module.parameters() if p.requires_grad]
        self.processes.add_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
        if not torch.isfinite(norm):
            raise FlatcoatError(self._broken(float(norm)))
        self.optimizer.step()
        parts = {f"loss/{name}": sum(o.parts[name] for o in outcomes) / len(outcomes) for name in outcomes[0].parts}
        evidence = _together([o.evidence for o in outcomes])
        watched: dict[str, float] = {}
        for follower in self.followers:
            watched |= follower.after_step(self.step, evidence)
        return {
            "loss": loss,
            **parts,
            **norms,
            **watched,
            **(self.sampler.told(self.step) if isinstance(self.sampler, Telling) else {}),
            "gradient_norm": float(norm),
            "rate": rate,
            "negatives": outcomes[0].negatives,
        }

    def _broken(self, value: float) -> str:
        cure = "lower training.rate or raise temperature"
        return f"loss or gradient became {value} at step {self.step + 1}; {cure}; {self._kept()}"

    def _kept(self) -> str:
        last = newest(self.folder / "checkpoints")
        return f"the last good checkpoint is {last}" if last else "no checkpoint was written yet"

    def _micro(self, part: int) -> Outcome:
        settings = self.settings
        batch = self.batch(self.step * settings.accumulate + part)
        try:
            return gradient(
                self.student, batch, self.terms, self.step,
                processes=self.processes, cached=settings.cached, scale=1.0 / settings.accumulate,
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            smaller = (
                "runtime.training_batch_tokens" if settings.cached else "training.batch, or set training.cached = true"
            )
            raise FlatcoatError(f"out of memory at step {self.step + 1}; lower {smaller}; {self._kept()}") from error

    def batch(self, number: int) -> Batch:
        """This process's share of the number-th batch: a pure function of number, seed and the sampler's state."""
        positions = self._positions(number)
        pairs = self.pairs
        queries, positives = pairs.queries[positions], pairs.documents[positions]
        rows, drawn = [positives], None
        if self.sampler and self.settings.negatives:
            rng = np.random.default_rng([self.settings.seed, 1, number])
            drawn = self.sampler.draw(queries, positives, self.settings.negatives, rng)
            rows.append(drawn.rows)
        mine = self.processes.slice(len(positions))
        documents = np.concatenate([part[mine].reshape(-1) for part in rows])
        shares = self.processes.slices(
            len(positions)
        )  # as they are gathered: each process's positives, then its negatives
        everything = np.concatenate([part[share].reshape(-1) for share in shares for part in rows])
        texts = pairs.collection
        return Batch(
            texts.queries.texts(queries[mine]),
            [*pairs.answers(positions[mine]), *texts.documents.texts(documents[len(positions[mine]) :])],
            pairs.keys[documents],
            pairs.known_of(queries[mine]),
            None if self.teacher is None else self._taught(queries[mine], everything, mine, len(positions)),
            None if drawn is None else drawn.log_q[mine],
        )

    def _taught(self, queries: np.ndarray, documents: np.ndarray, mine: slice, batch: int) -> np.ndarray:
        """The teacher's scores of this process's queries; wanted are each one's positive and its drawn negatives."""
        assert self.teacher is not None
        wanted = np.zeros((len(queries), len(documents)), bool)
        first = mine.start * (len(documents) // batch)  # where this process's documents begin among all
        drawn = len(documents) // batch - 1
        for i in range(len(queries)):
            wanted[i, first + i] = True
            begins = first + len(queries) + i * drawn
            wanted[i, begins : begins + drawn] = True
        return self.teacher.score(queries, documents, wanted)

    def _positions(self, number: int) -> np.ndarray:
        """Positions of the number-th batch. Epochs may differ in length, so they are counted from the first."""
        epoch, left = 0, number
        if self._epoch and self._epoch_first <= number:
            epoch, left = self._epoch[0], number - self._epoch_first
        while True:
            if self._epoch is None or self._epoch[0] != epoch:
                batches = epoch_batches(self.pairs.query_keys, self.settings.batch, self.settings.seed, epoch)
                self._epoch, self._epoch_first = (epoch, batches), number - left
            if left < len(self._epoch[1]):
                return self._epoch[1][left]
            left -= len(self._epoch[1])
            epoch += 1

    _epoch_first = 0
    _waited = 0.0

    def _follow(self) -> None:
        if self.sampler and self.encode and self.settings.negatives:
            self.sampler.after_step(self.step, self.encode)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _judge(self) -> float:
        """Evaluate; keep the best checkpoint; note whether patience has ended."""
        assert self.evaluate is not None
        value = self.evaluate()
        self.student.module.train()
        if self.best is None or value > self.best:
            self.best, self.best_step = value, self.step
            self._write(self.folder / "best")
        patience, every = self.settings.patience, self.settings.evaluate_every or 1
        self.stopped = patience is not None and self.step - self.best_step >= patience * every
        return value

    def save(self) -> None:
        """Write a checkpoint and remove the one before it."""
        target = self.folder / "checkpoints" / f"step-{self.step:08d}"
        self._write(target)
        if self.processes.rank == 0:
            for old in target.parent.glob("step-*"):
                if old != target:
                    remove_folder(old)

    def _write(self, folder: Path) -> None:
        if self.processes.rank == 0:
            progress: dict[str, Any] = {
                "step": self.step, "best": self.best, "best_step": self.best_step, "stopped": self.stopped,
                "pairs": len(self.pairs), "seed": self.settings.seed, "batch": self.settings.batch,
            }  # fmt: skip
            own = {"sampler": self.sampler.state() if self.sampler else {}}
            own |= {f"follower{i}": follower.state() for i, follower in enumerate(self.followers)}
            arrays = {f"{name}/{key}": value for name, part in own.items() for key, value in part.items()}
            save_state(folder, self.student.module, self.optimizer, arrays, progress)

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises FlatcoatError where it is of other data, seed or batch."""
        arrays, progress = load_state(folder, self.student.module, self.optimizer)
        now = {"pairs": len(self.pairs), "seed": self.settings.seed, "batch": self.settings.batch}
        for key, value in now.items():
            if progress[key] != value:
                raise FlatcoatError(f"{folder}: was made with {key}={progress[key]}, now {key}={value}; start anew")
        self.step, self.best, self.best_step = progress["step"], progress["best"], progress["best_step"]
        self.stopped = progress["stopped"]
        if self.sampler:
            self.sampler.restore(_of(arrays, "sampler"))
        for i, follower in enumerate(self.followers):
            follower.restore(_of(arrays, f"follower{i}"))


def _together(parts: Sequence[Evidence]) -> Evidence:
    """What followers see of a step of several batches: all texts' vectors, and the last batch's scores."""
    if len(parts) == 1:
        return parts[0]
    whole = [name for name in ("query", "document") if name in parts[0].extra]  # readings may be ragged
    extra = {name: torch.cat([part.extra[name].detach() for part in parts]) for name in whole}
    return replace(parts[-1], extra=extra)


def _of(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def _optimizer(student: Student, settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW; biases and normalisation weights do not decay. `factor` is what a group's rate is multiplied by."""
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in student.module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim > 1, student.factor(name)), []).append(parameter)
    said = [
        {"params": chosen, "weight_decay": settings.weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), chosen in groups.items()
        if chosen
    ]
    return torch.optim.AdamW(said, lr=settings.rate, fused=True)
