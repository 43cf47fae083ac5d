"""Cross-encoders: s(q, d) = wᵀ h_[CLS](q ⊕ d)   (monoBERT: Nogueira & Cho 2019, arXiv 1901.04085).

Query and document are read together, so every pair is a forward pass: cross-encoders re-rank, and teach. A pair is laid out
as its tokenizer lays out pairs ([CLS] q [SEP] d [SEP], <s> q </s></s> d </s>). Cut to `max_length` by taking from
the longer text first, or, where `query_length` is given, the query to that many tokens and the document to the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flatcoat.errors import FlatcoatError
from flatcoat.models.base import Runtime
from flatcoat.models.encode import WINDOW, each_batch
from flatcoat.models.texts import TextTower

Activation = Literal["identity", "sigmoid"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class CrossSettings:
    """What a cross-encoder does around its network.

    `max_length` counts the tokens of a pair, special ones included; `query_length` those of the query, special ones not.
    `prompt` stands before the query. `activation` is for `predict`; `score` and training have the logit.
    """

    max_length: int
    query_length: int | None = None
    activation: Activation = "identity"
    prompt: str = ""


class Frame(NamedTuple):
    """The special tokens that a tokenizer puts before, between and behind two texts; `typed` where the second has type 1."""

    head: list[int]
    middle: list[int]
    tail: list[int]
    typed: bool

    @property
    def size(self) -> int:
        """Tokens of a pair that are of neither text."""
        return len(self.head) + len(self.middle) + len(self.tail)


def frame_of(tokenizer: Any) -> Frame:
    """How a tokenizer frames pairs.

    Raises:
        FlatcoatError: nothing stands between two texts, or token types do not change behind the first token that does.
    """
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
    both = tokenizer("a", "b")
    ids, types = list(both["input_ids"]), list(both.get("token_type_ids") or [])
    at = _place(ids, first, 0)
    behind = at + len(first)
    then = _place(ids, second, behind)
    frame = Frame(ids[:at], ids[behind:then], ids[then + len(second) :], any(types))
    if not frame.middle:
        raise FlatcoatError(
            f"{type(tokenizer).__name__} puts no separator between two texts; a cross-encoder wants one"
        )
    if frame.typed and types != [0] * (behind + 1) + [1] * (len(ids) - behind - 1):
        raise FlatcoatError(f"{type(tokenizer).__name__}: token types {types} of a pair; want 1 behind the separator")
    return frame


def _place(ids: list[int], wanted: list[int], start: int) -> int:
    """Where `wanted` stands in `ids` from `start` on; `start` where it does not."""
    return next((i for i in range(start, len(ids)) if ids[i : i + len(wanted)] == wanted), start)


class CrossTower(TextTower):
    """A network that gives a text pair one label, and its tokenizer."""

    def __init__(self, backbone: nn.Module, tokenizer: Any, settings: CrossSettings):
        super().__init__(tokenizer, settings)
        self.backbone, self.frame = backbone, frame_of(tokenizer)
        self.typed = self.frame.typed and getattr(backbone.config, "type_vocab_size", 0) > 1
        self._prompt = len(tokenizer(settings.prompt, add_special_tokens=False)["input_ids"])
        room = settings.max_length - self.frame.size
        if room < 2 or (settings.query_length is not None and not 0 < settings.query_length < room):
            length = "" if settings.query_length is None else f"query_length {settings.query_length} and "
            raise ValueError(
                f"{length}max_length {settings.max_length}: {self.frame.size} tokens are special; want at least one of each text"
            )

    @property
    def dim(self) -> int:
        """Numbers of a pair."""
        return 1

    def tokenize(self, texts: Sequence[Pair]) -> list[list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Token ids of each (query, document), cut to `max_length`."""
        queries, documents = [self.settings.prompt + query for query, _ in texts], [document for _, document in texts]
        if not texts:
            return []
        if self.settings.query_length is not None:
            return self._query_first(queries, documents, self.settings.query_length)
        length = self.settings.max_length
        if self.tokenizer.is_fast:
            pairs = list(zip(queries, documents, strict=True))
            return [encoding.ids for encoding in self._rust(length).encode_batch_fast(pairs)]
        return self.tokenizer(queries, documents, truncation="longest_first", max_length=length)["input_ids"]

    def lengths(self, texts: Sequence[Pair]) -> list[int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Tokens of each (query, document), uncut."""
        queries, documents = (
            self._plain([self.settings.prompt + q for q, _ in texts]),
            self._plain([d for _, d in texts]),
        )
        return [len(q) + len(d) + self.frame.size for q, d in zip(queries, documents, strict=True)]

    def _query_first(self, queries: list[str], documents: list[str], length: int) -> list[list[int]]:
        head, middle, tail, _ = self.frame
        room, rows = self.settings.max_length - self.frame.size, []
        distinct = list(dict.fromkeys(queries))
        known = dict(zip(distinct, self._plain(distinct, self.settings.max_length), strict=True))
        for query, document in zip(queries, self._plain(documents, self.settings.max_length), strict=True):
            asked = known[query][:length]
            rows.append([*head, *asked, *middle, *document[: room - len(asked)], *tail])
        return rows

    def _plain(self, texts: list[str], most: int | None = None) -> list[list[int]]:
        """Token ids without special ones, of at least the first `most` tokens."""
        if most is not None and self.tokenizer.is_fast:
            return [e.ids for e in self._rust(most).encode_batch_fast(texts, add_special_tokens=False)]
        return (
            self.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            if texts
            else []
        )

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Float[Tensor, " b"]:
        """Logits of tokenised pairs; `mask` None where no row is padded."""
        return self._run(ids, mask).logits.squeeze(-1).float()

    def attend(
        self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b m n"]]:
        """Logits, and the last layer's attention from each query token to each document token, without gradient.

        The mean over heads; special tokens are no rows and no columns, so rows do not sum to one; zero where a pair has
        fewer tokens than others. In training mode the network's own dropout of attention is in it. The first call
        turns the network to plain attention for good: fused kernels give no probabilities. It costs layers × heads × t²
        numbers a pair in memory, and the speed of those kernels.

        Raises:
            FlatcoatError: the architecture gives no attention.
        """
        switch = getattr(self.backbone, "set_attn_implementation", None)
        if switch is not None and getattr(self.backbone.config, "_attn_implementation", None) != "eager":
            switch("eager")
        given = self._run(ids, mask, output_attentions=True)
        if not getattr(given, "attentions", None):
            raise FlatcoatError(f"{type(self.backbone).__name__} gives no attention; there is nothing to match")
        heads = given.attentions[-1].detach().float().mean(1)
        query, document = self.content(ids, mask)
        return given.logits.squeeze(-1).float(), _block(heads, query, document)

    def content(
        self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None
    ) -> tuple[Bool[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Which positions hold the query's own tokens, behind its prompt, and which the document's."""
        frame = torch.tensor([*self.frame.head, *self.frame.middle, *self.frame.tail, self.pad_id], device=ids.device)
        own = ~torch.isin(ids, frame)
        if mask is not None:
            own = own & mask.bool()
        first = self._separated(ids) == 0
        query = own & first
        return query & (query.cumsum(1) > self._prompt), own & ~first

    def _separated(self, ids: Tensor) -> Tensor:
        """How many separators stand before or at each position. A text that spells the separator out counts as one too."""
        return (ids == self.frame.middle[0]).cumsum(1)

    def _run(self, ids: Tensor, mask: Tensor | None, output_attentions: bool = False) -> Any:
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self.typed:
            behind = self._separated(ids) - (ids == self.frame.middle[0]).long() > 0
            given["token_type_ids"] = (behind if mask is None else behind & mask.bool()).long()
        if output_attentions:
            given["output_attentions"] = True
        return self.backbone(**given)


def _block(heads: Tensor, query: Tensor, document: Tensor) -> Tensor:
    """The rows of `query` and the columns of `document`, moved to the left; zero where a pair has fewer."""
    counts = query.sum(1), document.sum(1)
    rows, columns = (
        torch.argsort((~side).to(torch.int8), dim=1, stable=True)[:, : int(count.max()) if len(count) else 0]
        for side, count in zip((query, document), counts, strict=True)
    )
    found = heads.gather(1, rows[:, :, None].expand(-1, -1, heads.shape[2]))
    found = found.gather(2, columns[:, None, :].expand(-1, rows.shape[1], -1))
    real = [
        torch.arange(p.shape[1], device=p.device) < c[:, None] for p, c in zip((rows, columns), counts, strict=True)
    ]
    return found.masked_fill(~(real[0][:, :, None] & real[1][:, None, :]), 0.0)


@torch.inference_mode()
def score_window(tower: CrossTower, pairs: Sequence[Pair], runtime: Runtime) -> np.ndarray:
    """Logits [pair] of one window of pairs, float32."""
    rows = tower.tokenize(pairs)
    out = np.empty(len(pairs), dtype=np.float32)

    def take(batch: list[int], scores: Tensor) -> None:
        out[batch] = scores.float().cpu().numpy()

    each_batch(tower, rows, runtime, take)
    return out


class CrossModel(nn.Module):
    """A cross-encoder: a `Scorer`."""

    def __init__(self, tower: CrossTower, runtime: Runtime | None = None):
        super().__init__()
        self.tower, self.runtime = tower, runtime or Runtime()

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Logits [pair] of queries[i] with documents[i], float32, in the order given. Raises ValueError where one has no other."""
        if len(queries) != len(documents):
            raise ValueError(f"{len(queries)} queries and {len(documents)} documents: want one document a query")
        pairs = list(zip(queries, documents, strict=True))
        out, training = np.empty(len(pairs), dtype=np.float32), self.tower.training
        self.tower.train(False)
        try:
            for start in range(0, len(pairs), WINDOW):
                window = slice(start, start + WINDOW)
                out[window] = score_window(self.tower, pairs[window], self.runtime)
        finally:
            self.tower.train(training)
        return out

    def predict(self, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
        """Scores [pair] behind the activation that the checkpoint says: a sigmoid's lie between 0 and 1."""
        scores = torch.from_numpy(self.score(queries, documents))
        return (torch.sigmoid(scores) if self.tower.settings.activation == "sigmoid" else scores).numpy()


def score_slowly(model: CrossModel, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """The slow twin of `CrossModel.score`: a pair at a time, as the tokenizer itself encodes it (no `query_length`)."""
    tower, scores, training = model.tower, [], model.tower.training
    tower.train(False)
    for query, document in zip(queries, documents, strict=True):
        given = tower.tokenizer([tower.settings.prompt + query], [document], truncation="longest_first",
                                max_length=tower.settings.max_length, return_tensors="pt")  # fmt: skip
        given = {name: value.to(model.runtime.device) for name, value in given.items()}
        if not tower.typed:
            given.pop("token_type_ids", None)
        with torch.inference_mode():
            scores.append(float(tower.backbone(**given).logits))
    tower.train(training)
    return np.array(scores, dtype=np.float32)
