"""Entries of a vocabulary that carry no content: special tokens, punctuation, stop words.

`switch_off` of `mlm.py` writes them into the head's bias, so that a checkpoint is clean in every other tool too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

Group = Literal["special", "punctuation", "stopwords"]
GROUPS: tuple[str, ...] = get_args(Group)

# Function words of English: articles, pronouns, prepositions, conjunctions, auxiliaries, and what contractions leave.
_WORDS = """
a an the this that these those i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his
himself she her hers herself it its itself they them their theirs themselves who whom whose which what where when why how am
is are was were be been being do does did doing done has have had having can could shall should will would may might must
ought of at by for with about against between into through during before after above below to from up down in out on off
over under again further then once here there and but or nor so yet if because as until while than too very just not no only
own same such both each few more most other some any all s t d ll m o re ve y don isn aren wasn weren doesn didn hasn haven
hadn won wouldn shouldn couldn mustn needn shan ain also however therefore thus whether though although since unless upon
within without among per via
"""
STOPWORDS = frozenset(_WORDS.split())


def plain(token: str) -> str:
    """A token's letters without the marks that tokenizers put on word pieces and word beginnings."""
    for mark in ("##", "▁", "Ġ", "</w>"):
        token = token.replace(mark, "")
    return token.strip()


def is_punctuation(token: str) -> bool:
    """Whether a token has punctuation and symbols only."""
    text = plain(token)
    return bool(text) and all(unicodedata.category(c)[0] in "PSZC" for c in text)


def members(tokenizer: Any, vocabulary: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Which entries belong to the groups: bool [vocabulary]. Unused and unknown entries count as special."""
    special = set(tokenizer.all_special_tokens)

    def inside(token: str) -> bool:
        if "special" in groups and (
            token in special or (token.startswith("#") and token[1:].isdigit()) or token.startswith("[unused")
        ):
            return True
        if "punctuation" in groups and token not in special and is_punctuation(token):
            return True
        return "stopwords" in groups and not token.startswith("##") and plain(token).lower() in STOPWORDS

    return np.fromiter((inside(token) for token in vocabulary), dtype=bool, count=len(vocabulary))
