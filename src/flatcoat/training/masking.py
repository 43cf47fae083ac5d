"""Masking: which tokens of a text are chosen, what the encoder reads in their place, and what RetroMAE's decoder sees.

Of a text's tokens, special ones left out, a share is chosen: eight in ten become [MASK], one another token, one stays as it is
(BERT: Devlin et al. 2019, arXiv 1810.04805, §3.1). Every draw is from a generator that is handed in, or of a key that the text
carries, so that neither its batch nor its process changes it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from flatcoat.errors import Misuse
from flatcoat.models.mlm import switched_off
from flatcoat.models.retromae import MaskedModel, enhanced_mask
from flatcoat.models.splade import special_ids
from flatcoat.models.texts import TextTower


@dataclass(frozen=True)
class Words:
    """What may be masked, and by what: `ordinary[id]` where an entry of the vocabulary stands for text."""

    mask_id: int
    ordinary: np.ndarray

    @functools.cached_property
    def entries(self) -> np.ndarray:
        """The ordinary ids."""
        return np.flatnonzero(self.ordinary)


def words_of(tower: TextTower, model: MaskedModel) -> Words:
    """The vocabulary of a tower, without special tokens and entries that are switched off. Raises Misuse where it has no mask token."""
    tokenizer = tower.tokenizer
    if tokenizer.mask_token_id is None:
        raise Misuse("post-training wants a tokenizer with a mask token; this one has none")
    ordinary = np.zeros(len(model.output.weight), dtype=bool)
    ordinary[[number for number in tokenizer.get_vocab().values() if number < len(ordinary)]] = True
    ordinary[[*special_ids(tokenizer), *switched_off(model.network)]] = False
    return Words(int(tokenizer.mask_token_id), ordinary)


@dataclass(frozen=True)
class Masked:
    """A text as it was and as the encoder reads it; the places chosen, those of all its words, and what the decoder's mask is drawn by."""

    ids: list[int]
    read: list[int]
    chosen: np.ndarray
    ordinary: np.ndarray
    key: tuple[int, ...]


def mask_tokens(
    ids: Sequence[int], words: Words, portion: float, rng: np.random.Generator
) -> tuple[list[int], np.ndarray]:
    """The ids as the encoder reads them, and the places chosen: `portion` of the ordinary ones, at least one where there is one."""
    own = np.array(ids, dtype=np.int64)
    places = np.flatnonzero(words.ordinary[own])
    chosen = rng.permutation(places)[: max(1, round(portion * len(places)))]
    draw = rng.random(len(chosen))
    own[chosen[draw < 0.8]] = words.mask_id
    swapped = chosen[(draw >= 0.8) & (draw < 0.9)]
    own[swapped] = rng.choice(words.entries, len(swapped))
    return own.tolist(), np.sort(chosen)


def visible_of(texts: Sequence[Masked], width: int, hidden: float) -> Bool[np.ndarray, "b t u"]:
    """`enhanced_mask` of each of several texts padded to `width`: nobody sees padding, and padding sees the text's vector."""
    seen = np.zeros((len(texts), width, 1 + width), dtype=bool)
    seen[:, :, 0] = True
    for row, text in zip(seen, texts, strict=True):
        length = len(text.ids)
        row[:length, : 1 + length] = enhanced_mask(length, hidden, np.random.default_rng(text.key))
    return seen
