"""Have several processes make the pieces of something, and write them in order: where a piece costs
time, two CPUs take half of it.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Piece = bytes | memoryview
Write = Callable[[Piece], None]

MANY = 4
"""Pieces for which another process is worth its start."""
_MOST = 4
"""Processes at once: whoever reads can't keep pace with more."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Something in pieces: how many, and what makes each of them, in any order and process."""

    count: int
    make: Callable[[int], Piece]

    def __iter__(self) -> Iterator[Piece]:
        return map(self.make, range(self.count))


def write_in_turns(pieces: Pieces, write: Write, processes: int | None = None) -> None:
    """Make and write all pieces, by as many processes as there are CPUs. `write` leaves nothing in
    a buffer of the process's own.

    Call it where no other thread runs. Raises ChildProcessError where another process fails.
    """
    count = processes or min(len(os.sched_getaffinity(0)), _MOST)
    if pieces.count < MANY or count < 2:
        for piece in pieces:
            write(piece)
        return
    ring = [os.pipe() for _ in range(count)]
    children = []
    for number in range(1, count):
        child = os.fork()
        if not child:
            _be_a_child(pieces, write, ring, number)
        children.append(child)
    try:
        _take_turns(pieces, write, ring, 0)
    finally:
        failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise ChildProcessError(f"{len(failed)} of {count} processes that write have failed")


def _be_a_child(pieces: Pieces, write: Write, ring: Sequence[tuple[int, int]], number: int) -> None:
    """Take this process's turns, and end it: nothing that the other has begun is to end twice."""
    status = 1
    try:
        _take_turns(pieces, write, ring, number)
        status = 0
    except (ChildProcessError, ConnectionError):
        pass  # The first process says what there is to say.
    except BaseException:  # noqa: BLE001 - the process ends here in any case
        traceback.print_exc()
    finally:
        os._exit(status)


def _take_turns(pieces: Pieces, write: Write, ring: Sequence[tuple[int, int]], number: int) -> None:
    """Write every piece that is this process's. Each tells the next one when it has written; where
    one ends early, the next finds that nobody is left to tell it."""
    count = len(ring)
    following = (number + 1) % count
    mine, next_one = ring[number][0], ring[following][1]
    for reading, writing in ring:
        for end in (reading, writing):
            if end not in (mine, next_one):
                os.close(end)
    try:
        for place in range(number, pieces.count, count):
            piece = pieces.make(place)
            if place and not os.read(mine, 1):
                raise ChildProcessError("the process whose turn it was has ended")
            write(piece)
            if place + 1 < pieces.count:
                os.write(next_one, b".")
    finally:
        os.close(mine)
        os.close(next_one)
