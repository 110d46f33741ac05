"""Columns of short texts in machine words: joined, and laid side by side, a column at a time. Pure.

A million rows of a dozen cells are written within a second, so nothing is done for one row alone
and nothing for one character. A text lies in words of 64 bits, its first character in the lowest
byte of the first, zeros behind its last; to put a text behind another is to shift it to where that
one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_WORD = 8
_BITS = 64
_NOTHING = np.zeros(1, dtype=np.uint64)
_MYRIAD = np.uint64(10_000)


@dataclass(frozen=True, slots=True)
class Texts:
    """A text for each row: words of all, how many bits each has, and the bytes of the longest that
    there may be. A column of one text, beside longer columns, stands in each of their rows."""

    words: tuple[Words, ...]
    bits: Words
    width: int

    def take(self, rows: npt.NDArray[Any]) -> Texts:
        """Return the texts of these rows."""
        return Texts(tuple(each[rows] for each in self.words), self.bits[rows], self.width)

    def fitted(self) -> Texts:
        """Return the same, as wide as the longest text is."""
        width = int(self.bits.max(initial=0)) // _WORD
        return Texts(self.words[: max(1, -(-width // _WORD))], self.bits, width)

    def where(self, condition: npt.NDArray[np.bool_], other: Texts) -> Texts:
        """Return these texts where the condition holds, the others elsewhere."""
        count = max(len(self.words), len(other.words))
        mine = (*self.words, *[_NOTHING] * (count - len(self.words)))
        others = (*other.words, *[_NOTHING] * (count - len(other.words)))
        words = [np.where(condition, a, b) for a, b in zip(mine, others, strict=True)]
        bits = np.where(condition, self.bits, other.bits)
        return Texts(tuple(words), bits, max(self.width, other.width))


def texts(each: Sequence[bytes]) -> Texts:
    """Return a column of these; none may hold a zero byte."""
    width = max(map(len, each), default=0)
    size = _WORD * max(1, -(-width // _WORD))
    words = np.array(each, dtype=f"S{size}").view("<u8").reshape(len(each), size // _WORD)
    bits = np.array([_WORD * len(text) for text in each], dtype=np.uint64)
    return Texts(tuple(np.ascontiguousarray(words.T, dtype=np.uint64)), bits, width)


def joined(first: Texts, *others: Texts) -> Texts:
    """Return the texts of each row, one put behind the other."""
    for each in others:
        first = _join(first, each)
    return first


def numbers(column: npt.NDArray[Any]) -> Texts:
    """Write whole numbers, from 0 up to 64 bits."""
    if column.max(initial=0) < _MYRIAD:
        return _SHORT.take(column).fitted()
    column = column.astype(np.uint64, copy=False)
    above = column // _MYRIAD
    below = column - above * _MYRIAD
    is_short = above == 0
    head = Texts((_NOTHING,), _NOTHING, 0).where(is_short, numbers(above))
    return _join(head, _SHORT.take(below).where(is_short, _FOUR_DIGITS.take(below))).fitted()


def beside(pieces: Sequence[bytes | Texts], count: int) -> Bytes:
    """Return `count` rows of bytes with the pieces beside each other, each as wide as its longest
    may be; what a text doesn't fill are zero bytes."""
    template = b"".join(e if isinstance(e, bytes) else bytes(e.width) for e in pieces)
    rows = np.empty((count, len(template)), dtype=np.uint8)
    rows[:] = np.frombuffer(template, dtype=np.uint8)
    begins = 0
    for each in pieces:
        if isinstance(each, bytes):
            begins += len(each)
            continue
        _lay(each, rows, begins)
        begins += each.width
    return rows


def padded(column: Texts, width: int) -> Texts:
    """Return the texts in columns of at least that many bytes."""
    missing = -(-width // _WORD) - len(column.words)
    words = (*column.words, *[_NOTHING] * missing)
    return Texts(words, column.bits, max(width, column.width))


def _join(first: Texts, second: Texts) -> Texts:
    width = first.width + second.width
    count = -(-width // _WORD)
    words: list[Any] = [*first.words[:count], *[_NOTHING] * (count - len(first.words))]
    for number, piece in enumerate(second.words):
        begins = first.bits + np.uint64(_BITS * number)
        for place in range(number, min(count, number + first.width // _WORD + 2)):
            start = np.uint64(_BITS * place)
            # What is shifted by 64 bits or more is gone; a difference below zero is far more.
            words[place] = words[place] | (piece << (begins - start)) | (piece >> (start - begins))
    return Texts(tuple(words), first.bits + second.bits, width)


def _lay(column: Texts, rows: Bytes, begins: int) -> None:
    """Put the texts into the rows: whole words, and of the last only what is its own."""
    for place, word in enumerate(column.words):
        left = min(_WORD, column.width - _WORD * place)
        source, done = word.astype("<u8", copy=False), 0
        for size in (8, 4, 2, 1):
            if left & size:
                target = rows[:, begins + done : begins + done + size].view(f"<u{size}")[:, 0]
                target[...] = source.view(f"<u{size}")[done // size :: _WORD // size]
                done += size
        begins += _WORD


_SHORT = texts([b"%d" % number for number in range(int(_MYRIAD))])
_FOUR_DIGITS = texts([b"%04d" % number for number in range(int(_MYRIAD))])
