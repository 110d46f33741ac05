"""Columns of short texts in machine words: joined, and laid side by side, a column at a time. Pure.

A million rows of a dozen cells are written within a second, so nothing is done for one row alone
and nothing for one character. A text lies in words of 64 bits, its first character in the lowest
byte of the first, zeros behind its last; to put a text behind another is to shift it to where that
one ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_WORD = 8
_BITS = 64
_NOTHING = np.zeros(1, dtype=np.uint64)
_MYRIAD = np.uint64(10_000)
_BLANK = np.uint8(ord(" "))


@dataclass(frozen=True, slots=True)
class Texts:
    """A text for each row: words of all, how many bits each has, and the bytes of the longest that
    there may be. A column of one text, beside longer columns, stands in each of their rows."""

    words: tuple[Words, ...]
    bits: Words
    width: int

    def take(self, rows: npt.NDArray[Any]) -> Texts:
        """Return the texts of these rows."""
        rows = rows.astype(np.intp, copy=False)
        words = tuple(each.take(rows) for each in self.words)
        return Texts(words, self.bits.take(rows), self.width)

    def put(self, rows: npt.NDArray[Any], others: Texts) -> None:
        """Write other texts, as wide as these, into these rows."""
        for mine, other in zip(self.words, others.words, strict=True):
            mine[rows] = other
        self.bits[rows] = others.bits

    def fitted(self) -> Texts:
        """Return the same, as wide as the longest text is."""
        width = int(self.bits.max(initial=0)) // _WORD
        return Texts(self.words[: max(1, -(-width // _WORD))], self.bits, width)


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


def numbers(column: npt.NDArray[Any], after: bytes = b"") -> Texts:
    """Write whole numbers, from 0 up to 64 bits, and behind each of them the same few bytes."""
    if column.max(initial=0) < _MYRIAD:
        return _myriad(after).take(column).fitted()
    column = column.astype(np.uint64, copy=False)
    above = column // _MYRIAD
    below = column - above * _MYRIAD
    return _join(_heads(above), _myriad(after).take(below + _MYRIAD * (above > 0))).fitted()


def _heads(column: Words) -> Texts:
    """Write numbers, and nothing for 0."""
    if column.max(initial=0) < _MYRIAD:
        return _myriad_of_heads().take(column).fitted()
    above = column // _MYRIAD
    below = column - above * _MYRIAD
    return _join(_heads(above), _myriad_of_heads().take(below + _MYRIAD * (above > 0))).fitted()


def beside(pieces: Sequence[bytes | Texts], count: int) -> Bytes:
    """Return `count` rows of bytes with the pieces beside each other, each as wide as its longest
    may be; what a text doesn't fill is blank."""
    template = np.frombuffer(
        b"".join(each if isinstance(each, bytes) else bytes(each.width) for each in pieces),
        dtype=np.uint8,
    )
    rows = np.empty((count, len(template)), dtype=np.uint8)
    rows[:] = template
    begins = 0
    for each in pieces:
        if isinstance(each, bytes):
            begins += len(each)
            continue
        _lay(each, rows, begins)
        begins += each.width
    # Ten times as quick as with one blank: for that numpy uses no vector instructions.
    np.maximum(rows, np.full_like(template, _BLANK), out=rows)
    for place in np.flatnonzero((template != 0) & (template < _BLANK)):
        rows[:, place] = template[place]  # a new line
    return rows


def padded(column: Texts, width: int) -> Texts:
    """Return the texts in columns of at least that many bytes."""
    missing = -(-width // _WORD) - len(column.words)
    words = (*column.words, *[_NOTHING] * missing)
    return Texts(words, column.bits, max(width, column.width))


def _join(first: Texts, second: Texts) -> Texts:
    width = first.width + second.width
    count = -(-width // _WORD)
    earliest = int(first.bits.min(initial=0)) // _BITS
    words: list[Any] = [*first.words[:count], *[_NOTHING] * (count - len(first.words))]
    for number, piece in enumerate(second.words):
        begins = first.bits + np.uint64(_BITS * number)
        for place in range(number + earliest, min(count, number + first.width // _WORD + 2)):
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


@cache
def _myriad(after: bytes) -> Texts:
    """Return the numbers below ten thousand, then the same in four digits."""
    numbers = range(int(_MYRIAD))
    return texts(
        [b"%d%b" % (n, after) for n in numbers] + [b"%04d%b" % (n, after) for n in numbers]
    )


@cache
def _myriad_of_heads() -> Texts:
    numbers = range(1, int(_MYRIAD))
    return texts([b"", *[b"%d" % n for n in numbers], *[b"%04d" % n for n in (0, *numbers)]])
