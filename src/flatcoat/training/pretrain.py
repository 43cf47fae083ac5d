"""Post-training: a model reads a collection's own text before it learns to search it.

    mlm         masked tokens are guessed from the rest (BERT: Devlin et al. 2019, arXiv 1810.04805, §3.1)
    retromae    that, lightly masked, and the whole text made again from its vector (Xiao et al. 2022, arXiv 2205.12035)

The loss is the mean over the chosen tokens of the whole batch, of all processes; RetroMAE's decoder adds its mean over every
token. Which texts make a step and what is masked in them are pure functions of (seed, step, place in the batch), dropout of (seed,
step, process), so a resumed run goes on to the same bits and several processes see what one would. Texts that are held out, and
never trained on, say whether it learnt.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import remove_folder
from flatcoat.models.backbone import longest
from flatcoat.models.base import Runtime
from flatcoat.models.encode import batches_by_length, pad
from flatcoat.models.fast.training import trained_quickly
from flatcoat.models.retromae import masked_model
from flatcoat.models.texts import TextTower
from flatcoat.objectives.masked import blocked_nll
from flatcoat.records import Track, silent
from flatcoat.training.log import Log
from flatcoat.training.masking import Masked, mask_tokens, visible_of, words_of
from flatcoat.training.processes import Processes
from flatcoat.training.schedule import Shape, share
from flatcoat.training.state import load_state, newest, save_state

Task = Literal["mlm", "retromae"]
TRAINED, JUDGED = 2, 3  # kinds of draws; the decoder's masks are drawn by the numbers two above
MASK = {"mlm": 0.15, "retromae": 0.3}  # as the papers have it
HELD_OUT, LEAST_HELD_OUT, MOST_HELD_OUT = 0.01, 8, 1000  # a share of the texts, and texts


@dataclass(frozen=True)
class PretrainSettings:
    """How long, how fast, how much is masked. `batch` counts texts of one step over all processes.

    `max_length` counts tokens, special ones included; None is the tower's own. `mask` is the share of tokens chosen, None the
    task's own; `decoder_mask` the share of other tokens that a position of RetroMAE's decoder does not see.
    """

    task: Task = "mlm"
    steps: int = 1000
    batch: int = 64
    rate: float = 5e-5
    weight_decay: float = 0.01
    schedule: Shape = "linear"
    warmup: int = 50
    floor: float = 0.1
    max_length: int | None = None
    mask: float | None = None
    decoder_mask: float = 0.5
    clip: float | None = 1.0
    seed: int = 0
    save_every: int | None = None

    @property
    def masked(self) -> float:
        """The share of tokens chosen."""
        return MASK[self.task] if self.mask is None else self.mask


@dataclass(frozen=True)
class Reading:
    """How text is read for post-training: the tower's prompt at a length of its own."""

    max_length: int
    prompt: str


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of texts of an epoch."""
    return np.random.default_rng([seed, 1, epoch]).permutation(size)


def held_out(size: int, seed: int) -> np.ndarray:
    """Rows of the texts that are only measured on: one in a hundred, of few texts more. Sorted."""
    count = min(MOST_HELD_OUT, max(int(HELD_OUT * size), min(LEAST_HELD_OUT, size // 4), 1))
    return np.sort(np.random.default_rng([seed, 0]).choice(size, count, replace=False))


class PostTraining:
    """One post-training run in a folder: `checkpoints/`, `log.jsonl`. It moves the weights of the tower's backbone."""

    def __init__(
        self,
        tower: TextTower,
        texts: Sequence[str],
        settings: PretrainSettings,
        folder: Path,
        *,
        runtime: Runtime | None = None,
        processes: Processes | None = None,
    ):
        _refuse(settings, len(texts))
        self.texts, self.settings, self.folder = texts, settings, folder
        self.runtime, self.processes = runtime or Runtime(), processes or Processes()
        if settings.batch % self.processes.world:
            raise Misuse(
                f"batch={settings.batch} does not divide among {self.processes.world} processes; use a multiple"
            )
        self.model = masked_model(tower, decoder=settings.task == "retromae", seed=settings.seed)
        self.model.to(self.runtime.device)
        self.words = words_of(tower, self.model)
        self.reader = TextTower(tower.tokenizer, Reading(_length(tower, settings), tower.settings.prompt))
        self.held = held_out(len(texts), settings.seed)
        self.rows = np.setdiff1d(np.arange(len(texts)), self.held)
        self.order = functools.lru_cache(maxsize=2)(functools.partial(epoch_order, len(self.rows), settings.seed))
        self.optimizer = _optimizer(self.model, settings)
        self.step = 0
        self.before: dict[str, float] = {}

    def run(self, *, resume: bool = False, track: Track = silent) -> dict[str, float]:
        """Train to the last step; how many texts were held out, and the losses and accuracies on them before and after."""
        checkpoint = newest(self.folder / "checkpoints") if resume else None
        if checkpoint:
            self.restore(checkpoint)
        else:
            if self.processes.rank == 0:
                remove_folder(self.folder / "checkpoints")
            self.before = self.judge()
        log = Log(self.folder, self.step) if self.processes.rank == 0 else None
        self.model.train()
        try:
            for _ in track(range(self.step, self.settings.steps), self.settings.steps - self.step, "post-train"):
                self._advance(log)
        finally:
            if log:
                log.close()
            self.model.train(False)
        sides = {"before": self.before, "after": self.judge()}
        found = {f"{name}_{side}": value for side, values in sides.items() for name, value in values.items()}
        return {"held_out": float(len(self.held)), **found}

    def _advance(self, log: Log | None) -> None:
        started = time.perf_counter()
        values = self.one_step()
        self.step += 1
        if log:
            log.write(self.step, {**values, "seconds": time.perf_counter() - started})
        every = self.settings.save_every
        if every is not None and self.step % every == 0 and self.step < self.settings.steps:
            self.save()

    def one_step(self) -> dict[str, float]:
        """One optimizer step; what it showed. Raises FlatcoatError where the loss or the gradient is not finite."""
        settings = self.settings
        rate = settings.rate * share(self.step, settings.steps, settings.schedule, settings.warmup, settings.floor)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = np.random.SeedSequence([settings.seed, self.step, self.processes.rank]).generate_state(1)
        torch.manual_seed(int(drawn[0]))  # dropout's: nothing drawn elsewhere can shift it
        self.optimizer.zero_grad(set_to_none=True)
        values = self._measure(self.batch(self.step), learn=True)
        moving = self._moving()
        self.processes.add_gradients(moving)
        norm = torch.nn.utils.clip_grad_norm_(moving, settings.clip or math.inf)
        if not (math.isfinite(values["loss"]) and torch.isfinite(norm)):
            at = f"step {self.step + 1} (loss {values['loss']:.4g}, gradient {float(norm):.4g})"
            raise FlatcoatError(f"post-training: loss or gradient is not finite at {at}; lower its rate")
        self.optimizer.step()
        return {**values, "gradient_norm": float(norm), "rate": rate}

    def _moving(self) -> list[nn.Parameter]:
        """Parameters with a gradient in any process; a pooler that nothing asks has none, and must not decay either."""
        every = [p for p in self.model.parameters() if p.requires_grad]
        own = torch.tensor([[p.grad is not None for p in every]], dtype=torch.int64, device=self.runtime.device)
        return [p for p, moves in zip(every, self.processes.gather(own).amax(0).tolist(), strict=True) if moves]

    def batch(self, step: int) -> list[Masked]:
        """This process's share of a step's texts, masked: a pure function of the step, the seed and the process."""
        size = self.settings.batch
        places = np.arange(step * size, (step + 1) * size)
        epochs = places // len(self.rows)
        rows = np.concatenate([self.order(int(e))[places[epochs == e] % len(self.rows)] for e in np.unique(epochs)])
        mine = self.processes.slice(size)
        return self._masked(self.rows[rows[mine]], TRAINED, step, range(size)[mine])

    def _masked(self, rows: np.ndarray, kind: int, step: int, places: Sequence[int]) -> list[Masked]:
        """Texts masked by what (seed, kind, step, place) draws."""
        made = []
        tokens = self.reader.tokenize([self.texts[int(row)] for row in rows])
        for ids, place in zip(tokens, places, strict=True):
            rng = np.random.default_rng([self.settings.seed, kind, step, place])
            read, chosen = mask_tokens(ids, self.words, self.settings.masked, rng)
            ordinary = np.flatnonzero(self.words.ordinary[np.array(ids, dtype=np.int64)])
            made.append(Masked(ids, read, chosen, ordinary, (self.settings.seed, kind + 2, step, place)))
        return [text for text in made if len(text.chosen)]  # a text of no words has nothing to ask

    def judge(self) -> dict[str, float]:
        """Losses and accuracies on the texts held out, always masked alike."""
        training = self.model.training
        self.model.train(False)
        try:
            with torch.no_grad():
                alone = self._masked(self.held, JUDGED, 0, range(len(self.held)))
                return self._measure(alone, learn=False)
        finally:
            self.model.train(training)

    def _measure(self, texts: Sequence[Masked], *, learn: bool) -> dict[str, float]:
        """The loss of masked texts and its parts; where `learn`, of all processes' texts, with gradients added to `.grad`."""
        gather = self.processes.gather if learn else Tensor.detach
        counts = [[sum(len(text.chosen) for text in texts), sum(len(text.ordinary) for text in texts)]]
        totals = gather(torch.tensor(counts, device=self.runtime.device)).sum(0).clamp(min=1)
        sums = torch.zeros(
            1, 2, 2, dtype=torch.float64, device=self.runtime.device
        )  # (loss, right) of (encoder, decoder)
        for part in batches_by_length([len(text.ids) for text in texts], self.runtime.tokens):
            with trained_quickly(self.model, self.runtime):
                parts = self._losses([texts[i] for i in part])
                if learn:
                    sum(nll.sum() / totals[i] for i, (nll, _) in enumerate(parts)).backward()  # pyright: ignore[reportAttributeAccessIssue]
            for i, (nll, hit) in enumerate(parts):
                sums[0, 0, i] += nll.detach().double().sum()
                sums[0, 1, i] += hit.sum()
        (encoder, decoder), (accuracy, accuracy_decoder) = (gather(sums).sum(0) / totals).tolist()
        if self.model.decoder is None:
            return {"loss": encoder, "accuracy": accuracy}
        return {
            "loss": encoder + decoder, "loss/encoder": encoder, "loss/decoder": decoder,
            "accuracy": accuracy, "accuracy/decoder": accuracy_decoder,
        }  # fmt: skip

    def _losses(self, texts: Sequence[Masked]) -> list[tuple[Tensor, Tensor]]:
        """(negative log-likelihoods, whether right) at the places chosen, and of the decoder at those of all words."""
        device = self.runtime.device
        ids, mask = pad([text.ids for text in texts], self.reader.pad_id, device)
        read, _ = pad([text.read for text in texts], self.reader.pad_id, device)
        with self.runtime.autocast():
            states, head = self.model(read, mask)
            parts = [self._guessed(head, ids, [text.chosen for text in texts])]
            if self.model.decoder is not None:
                visible = torch.from_numpy(visible_of(texts, ids.shape[1], self.settings.decoder_mask)).to(device)
                rebuilt = self.model.rebuild(states, head, ids, mask, visible)
                parts.append(self._guessed(rebuilt, ids, [text.ordinary for text in texts]))
        return parts

    def _guessed(self, states: Tensor, ids: Tensor, places: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        flat = np.concatenate([row * ids.shape[1] + some for row, some in enumerate(places)])
        at = torch.from_numpy(flat).to(ids.device)
        output = self.model.output
        return blocked_nll(states.flatten(0, 1)[at], ids.flatten()[at], output.weight, output.bias)

    def save(self) -> None:
        """Write a checkpoint and remove the one before it."""
        target = self.folder / "checkpoints" / f"step-{self.step:08d}"
        if self.processes.rank == 0:
            save_state(
                target, self.model, self.optimizer, {}, {"step": self.step, "before": self.before, **self._said()}
            )
            for old in target.parent.glob("step-*"):
                if old != target:
                    remove_folder(old)

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises FlatcoatError where it is of other texts or settings."""
        _, progress = load_state(folder, self.model, self.optimizer)
        for key, value in self._said().items():
            if progress.get(key) != value:
                raise FlatcoatError(f"{folder}: was made with {key}={progress.get(key)}, now {key}={value}; start anew")
        self.step, self.before = progress["step"], progress["before"]

    def _said(self) -> dict[str, Any]:
        """What a checkpoint must have in common with what goes on from it."""
        said = {name: value for name, value in dataclasses.asdict(self.settings).items() if name != "save_every"}
        return {"texts": len(self.texts), **said}


def post_train(
    tower: TextTower,
    texts: Sequence[str],
    settings: PretrainSettings,
    folder: Path,
    *,
    runtime: Runtime | None = None,
    processes: Processes | None = None,
    resume: bool = False,
    track: Track = silent,
) -> dict[str, float]:
    """Move the weights of `tower.backbone` by post-training on texts; what it needs beside them is made here and thrown away.

    Returns how many texts were held out (`held_out`) and, over them, each loss (nats a token) and accuracy as `NAME_before` and
    `NAME_after`. Log and checkpoints are in `folder`.

    Raises:
        Misuse: settings out of range, fewer than two texts, a tokenizer without a mask token, or a tower that the task cannot do.
        FlatcoatError: a loss that is not finite, or a checkpoint of other settings.
    """
    run = PostTraining(tower, texts, settings, folder, runtime=runtime, processes=processes)
    return run.run(resume=resume, track=track)


def _refuse(settings: PretrainSettings, texts: int) -> None:
    """Raises Misuse where settings are out of range."""
    if texts < 2:
        raise Misuse(f"post-training wants 2 texts or more, one of them to be held out; there are {texts}")
    if not 0 < settings.masked < 1:
        raise Misuse(f"mask={settings.masked} is not within 0 and 1")
    if not 0 <= settings.decoder_mask <= 1:
        raise Misuse(f"decoder_mask={settings.decoder_mask} is not from 0 to 1")
    if settings.steps < 1 or settings.batch < 1:
        raise Misuse(f"steps={settings.steps} and batch={settings.batch}: want 1 or more of each")


def _length(tower: TextTower, settings: PretrainSettings) -> int:
    """Tokens of a text, special ones included. Raises Misuse where the network has fewer positions."""
    length = tower.settings.max_length if settings.max_length is None else settings.max_length
    most = longest(tower.backbone)  # pyright: ignore[reportArgumentType]
    if most is not None and length > most:
        raise Misuse(f"max_length={length}, but the network has {most} positions; use max_length <= {most}")
    return length


def _optimizer(module: nn.Module, settings: PretrainSettings) -> torch.optim.AdamW:
    """AdamW; biases and normalisation weights do not decay."""
    decay = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, fused=True)
