"""A question with a long answer, for the process that reads: it needs no tables."""

from __future__ import annotations

import os
from dataclasses import dataclass

from llb_core.api.taking_turns import Pieces
from llb_core.errors import ConfigurationError

LINE = b"%099d\n"
LINES_A_PIECE = 5_000


@dataclass(frozen=True)
class Lines:
    """Pieces of numbered lines; one of them may end the process that makes it."""

    pieces: int = 20
    fatal: int | None = None
    is_unknown: bool = False
    gate: str | None = None
    """A pipe by name: the tables are read until somebody opens it to write."""

    def check(self) -> None:
        """Anything can be meant."""

    def answer(self, balancer: str, source: str) -> Pieces:
        """Return the pieces."""
        if self.is_unknown:
            raise ConfigurationError(f"{balancer}: no such lines")
        if self.gate:
            os.close(os.open(self.gate, os.O_RDONLY))
        return Pieces(self.pieces, self._make)

    def _make(self, number: int) -> bytes:
        if number == self.fatal:
            os._exit(9)
        first = number * LINES_A_PIECE
        return b"".join(LINE % each for each in range(first, first + LINES_A_PIECE))

    def whole(self) -> bytes:
        """Return all lines."""
        return b"".join(LINE % each for each in range(self.pieces * LINES_A_PIECE))
