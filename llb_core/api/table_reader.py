"""Read the tables for the daemon, as a process of its own: `python -m llb_core.api.table_reader`,
with what is wanted on standard input. What it finds it writes to standard output, or onto the
connection of the daemon's client, so that a million rows don't go through the daemon.

It imports little, since whoever asked waits for that.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import sys

from llb_core.api.taking_turns import Piece, write_in_turns
from llb_core.errors import ConfigurationError, LLBError

READY, CHUNKED = b"ready\n", b"chunked\n"


def main() -> None:
    """Answer the daemon: a balancer's name, a question and the descriptor of a connection, or None,
    pickled on standard input. Before anything goes onto the connection, it says that it is ready,
    and waits for a word in which form."""
    balancer, question, connection = pickle.load(sys.stdin.buffer)
    os.nice(5)  # The health checks come first.
    try:
        pieces = question.answer(balancer, "daemon")
    except LLBError as error:
        is_wrong_call = isinstance(error, ConfigurationError)
        sys.stderr.write(json.dumps({"error": str(error), "is_wrong_call": is_wrong_call}))
        raise SystemExit(1) from None
    if connection is None:
        sys.stdout.buffer.writelines(pieces)
        return
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    form = sys.stdin.buffer.readline()
    try:
        write_in_turns(pieces, Sender(connection, is_chunked=form == CHUNKED).send)
    except ConnectionError:
        raise SystemExit("whoever asked has gone") from None
    except LLBError as error:
        raise SystemExit(str(error)) from None


class Sender:
    """Sends pieces onto a connection that somebody else has put into the non-blocking mode."""

    def __init__(self, connection: int, *, is_chunked: bool) -> None:
        self._connection = connection
        self._is_chunked = is_chunked
        self._room = select.poll()
        self._room.register(connection, select.POLLOUT)

    def send(self, piece: Piece) -> None:
        """Send a piece; as one of HTTP's chunks (RFC 9112, 7.1), where it goes in these."""
        if not self._is_chunked:
            self._send(piece)
        elif len(piece):
            self._send(b"%x\r\n" % len(piece))
            self._send(piece)
            self._send(b"\r\n")

    def _send(self, piece: Piece) -> None:
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self._connection, left) :]
            except BlockingIOError:
                self._room.poll()


if __name__ == "__main__":
    main()
