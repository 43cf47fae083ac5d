"""One encoder read several ways in one forward pass: its pooled vector, its term weights, its token vectors.

ERNIE-Search's interaction distillation (Lu et al. 2022, arXiv 2205.09153) teaches a dual encoder by late interaction *of the same
encoder*: both scores come from the same states. Texts are therefore tokenised once, as the dual encoder has them: without the
markers and the [MASK] expansion that a late-interaction model of its own may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from flatcoat.models.base import Runtime
from flatcoat.models.colbert import LateModel, LateTower
from flatcoat.models.cross import CrossModel
from flatcoat.models.dense import DenseModel, Tower
from flatcoat.models.splade import SpladeModel, SpladeTower
from flatcoat.models.texts import TextTower


class ReadingTower(TextTower):
    """One backbone and the towers that read its states. A sparse tower, where there is one, has the whole network."""

    def __init__(self, dual: Tower | None, sparse: SpladeTower | None, late: LateTower | None):
        """Raises ValueError where there is nothing to read, or a late tower has markers or expansion that the others lack."""
        first = next((tower for tower in (sparse, dual, late) if tower is not None), None)
        if first is None:
            raise ValueError("a tower wants at least one reading")
        if first is not late and late is not None and (late.settings.marker or late.settings.expansion):
            raise ValueError("token vectors of a shared encoder have neither markers nor expansion")
        super().__init__(first.tokenizer, first.settings)
        self.dual, self.sparse, self.late, self.first = dual, sparse, late, first
        self._structure = structural_ids(first.tokenizer)
        self._prompt = len(first.tokenizer(first.settings.prompt, add_special_tokens=False)["input_ids"])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids as the first reading has them."""
        return self.first.tokenize(texts)

    def forward(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> dict[str, Tensor]:
        """`dual` [b d], `sparse` [b v], `tokens` [b t k] and `present` [b t], as far as they are read; `content` [b t] beside tokens."""
        made: dict[str, Tensor] = {}
        if self.late is not None and self.first is self.late:
            made |= self.late(ids, mask)
        else:
            states, head = self._states(ids, mask)
            if self.sparse is not None:
                made["sparse"] = self.sparse.read(head, mask)
            if self.dual is not None:
                made["dual"] = self.dual.read(states, ids, mask)
            if self.late is not None:
                made |= self.late.read(states, ids, mask)
        return made | {"content": self.content(ids, mask)} if self.late is not None else made

    def _states(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Any]:
        """The backbone's last states, and its head's where it has one."""
        if self.sparse is None:
            assert self.dual is not None
            return self.dual.backbone(input_ids=ids, attention_mask=mask).last_hidden_state, None
        return with_body(self.sparse.backbone, lambda net: net(input_ids=ids, attention_mask=mask).logits)

    def content(self, ids: Int[Tensor, "b t"], mask: Int[Tensor, "b t"] | None) -> Bool[Tensor, "b t"]:
        """Which tokens are the text's own: neither padding nor special, nor of the prompt."""
        structure = torch.tensor(self._structure, device=ids.device)
        own = ~torch.isin(ids, structure)
        if mask is not None:
            own &= mask.bool()
        return own & (own.cumsum(1) > self._prompt) if self._prompt else own


def structural_ids(tokenizer: Any) -> list[int]:
    """Ids of tokens that frame a text; an unknown word's token stands for text and is none."""
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    return sorted({number for name in names if (number := getattr(tokenizer, name, None)) is not None})


def with_body(network: Any, run: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """The last states of a network's body while `run` runs the network, and what `run` gives."""
    caught: list[Tensor] = []
    hook = network.base_model.register_forward_hook(lambda _m, _i, out: caught.append(out.last_hidden_state))
    try:
        made = run(network)
    finally:
        hook.remove()
    return caught[0], made


class Cascade(nn.Module):
    """What learns together: `student`, the dual encoder that is served (dense or sparse), or None; late interaction over the same
    encoder, or alone; a cross-encoder; and term weights beside a dense student, whose backbone is then the body of their network.
    """

    def __init__(
        self,
        student: DenseModel | SpladeModel | None,
        late: LateModel | None = None,
        cross: CrossModel | None = None,
        sparse: SpladeModel | None = None,
        runtime: Runtime | None = None,
    ):
        super().__init__()
        self.student, self.late, self.cross, self.sparse = student, late, cross, sparse
        self.runtime = runtime or Runtime()

    def train(self, mode: bool = True) -> Cascade:
        """Enter or leave training mode; a cross-encoder that does not learn stays out of it, and says the same at every step."""
        super().train(mode)
        if self.cross is not None and not any(p.requires_grad for p in self.cross.parameters()):
            self.cross.train(False)
        return self

    def readers(self) -> tuple[ReadingTower, ReadingTower] | None:
        """The towers of queries and of documents; None where only a cross-encoder learns."""
        if self.student is None and self.late is None:
            return None
        return self._reader("query"), self._reader("document")

    def _reader(self, side: str) -> ReadingTower:
        own, late, sparse = (None if m is None else getattr(m, side) for m in (self.student, self.late, self.sparse))
        if isinstance(own, SpladeTower):
            return ReadingTower(None, own, late)
        return ReadingTower(own, sparse, late)

    def encoder(self) -> nn.Module | None:
        """The body that the readings share (the documents', where queries have their own)."""
        owner: Any = self.student if self.student is not None else self.late
        return None if owner is None else owner.document.backbone.base_model
