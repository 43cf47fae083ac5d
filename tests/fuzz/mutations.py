"""Damage to bytes: flips, cuts, splices, repeats, and words that have broken readers before."""

from __future__ import annotations

import random

WORDS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n", b"\t", b'"', b"\\", b"{", b"[",
    b"}", b"]", b",", b"null", b"true", b"-1", b"0", b"1e400", b"-1e400", b"NaN", b"Infinity", b"9" * 30, b"9" * 5000, b"[" * 5000,
    b'{"a":' * 3000, b'"\\ud800"', b"1000000000000", b"18446744073709551616", b"(1000000000000,)", b"'<f8'", b"'|O'", b"\x80\x04",
)  # fmt: skip


def damaged(data: bytes, rng: random.Random, words: tuple[bytes, ...] = ()) -> bytes:
    """`data` with one to four things wrong."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        _once(out, rng, (*WORDS, *words, *words))
    return bytes(out)


def _once(out: bytearray, rng: random.Random, words: tuple[bytes, ...]) -> None:
    at = rng.randrange(len(out) + 1)
    end = min(len(out), at + rng.choice((1, 1, 2, 4, 16, 64)))
    match rng.randrange(8):
        case 0 if out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        case 1:
            del out[at:]
        case 2:
            del out[at:end]
        case 3:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        case 4 | 5:
            out[at:at] = rng.choice(words)
        case 6:
            _value(out, rng, rng.choice(words))
        case _:
            other = rng.randrange(len(out) + 1)
            out[at:at] = out[other : other + 40]


def _value(out: bytearray, rng: random.Random, word: bytes) -> None:
    """Put a word in place of what stands between two marks, where a format has its values."""
    places = [i for i, byte in enumerate(out) if byte in b":,[= \t\n"]
    if places:
        at = rng.choice(places) + 1
        end = next((i for i in range(at, len(out)) if out[i] in b",]}\n\t"), len(out))
        out[at:end] = word
