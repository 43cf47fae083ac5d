"""What every tower does with text before its network sees it: a prompt, a tokenizer, a length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn


class TextSettings(Protocol):
    """The settings of a tower, as far as its text is concerned."""

    @property
    def max_length(self) -> int:
        """Most tokens, special ones included."""
        ...

    @property
    def prompt(self) -> str:
        """What stands before each text."""
        ...


class TextTower(nn.Module):
    """A tokenizer under settings; `special` says whether special tokens are added."""

    special = True

    def __init__(self, tokenizer: Any, settings: Any):
        super().__init__()
        self.tokenizer, self.settings = tokenizer, settings
        self._fast: tuple[int, Any] | None = None

    @property
    def dim(self) -> int:
        """Dimensions of a vector, or entries of the vocabulary."""
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text behind the prompt, cut to `max_length`."""
        prompted = [self.settings.prompt + text for text in texts]
        if self.tokenizer.is_fast:
            fast = self._rust(self.settings.max_length)
            return [encoding.ids for encoding in fast.encode_batch_fast(prompted, add_special_tokens=self.special)]
        return self.tokenizer(
            prompted, truncation=True, max_length=self.settings.max_length, add_special_tokens=self.special
        )["input_ids"]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text behind the prompt, uncut."""
        prompted = [self.settings.prompt + text for text in texts]
        return [len(ids) for ids in self.tokenizer(prompted, truncation=False, verbose=False)["input_ids"]]

    def _rust(self, max_length: int) -> Any:
        if self._fast is None or self._fast[0] != max_length:
            from tokenizers import Tokenizer

            fast = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
            fast.no_padding()
            fast.enable_truncation(max_length)
            self._fast = (max_length, fast)
        return self._fast[1]

    @property
    def pad_id(self) -> int:
        """The token id that padding is made of."""
        return int(self.tokenizer.pad_token_id or 0)
