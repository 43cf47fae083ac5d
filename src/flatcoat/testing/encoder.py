"""The contract of every `Encoder`: subclass, and give `encoder`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.representations import Sparse

TEXTS = ["a", "the otter lives in the marsh", "heron", "what does the adder eat at dusk " * 4, "", "the river"]


def as_array(representation: Any) -> np.ndarray:
    """A representation as one array [item, …], for comparison."""
    return representation.array() if isinstance(representation, Sparse) else np.asarray(representation.vectors)


class EncoderContract:
    """What holds for every encoder of one vector a text."""

    def encoder(self) -> Any:
        """The encoder under test, in fp32."""
        raise NotImplementedError

    def test_order_is_kept(self) -> None:
        """Reversed texts give reversed vectors."""
        encoder = self.encoder()
        there, back = as_array(encoder.encode_documents(TEXTS)), as_array(encoder.encode_documents(TEXTS[::-1]))
        np.testing.assert_allclose(there, back[::-1], atol=1e-5)

    def test_the_batch_does_not_matter(self) -> None:
        """A text alone has the vector that it has among others."""
        encoder = self.encoder()
        for encode in (encoder.encode_queries, encoder.encode_documents):
            together = as_array(encode(TEXTS))
            alone = np.concatenate([as_array(encode([text])) for text in TEXTS])
            np.testing.assert_allclose(together, alone, atol=1e-5)

    def test_nothing_gives_nothing(self) -> None:
        """No texts, no vectors."""
        assert len(self.encoder().encode_queries([])) == 0

    def test_twice_is_the_same(self) -> None:
        """Encoding has no state."""
        encoder = self.encoder()
        np.testing.assert_array_equal(as_array(encoder.encode_queries(TEXTS)), as_array(encoder.encode_queries(TEXTS)))
