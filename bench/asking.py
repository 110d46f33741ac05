"""Ask for something again and again, of three kinds at once, and note how long each took.

Run as a script by its path, on the standard library alone:

    python asking.py ADDRESS PORT

It asks for a word over a connection of its own (`new`), for one over a connection that is kept
(`kept`), and for a mebibyte (`transfer`), each kind one at a time, until a line comes on its
standard input. Then it prints as JSON what it noted: `{"noted": {KIND: [[BEGUN, ENDED], …]},
"failed": {WHY: N}}`, in seconds of the monotonic clock. An answer that is not what was asked for is
a failure.
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import threading
import time

SIZE = 1 << 20
PAUSE = {"new": 0.004, "kept": 0.002, "transfer": 0.05}
"""Seconds after an answer."""
PATIENCE = 30.0


class Asker:
    """Asks one address, until told to end."""

    def __init__(self, address: str, port: int) -> None:
        self._server = (address, port)
        self._ends = threading.Event()
        self.noted: dict[str, list[tuple[float, float]]] = {kind: [] for kind in PAUSE}
        self.failed: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Ask until the standard input says that it is enough."""
        threads = [threading.Thread(target=self._ask_on, args=(kind,)) for kind in PAUSE]
        for thread in threads:
            thread.start()
        print("asking", flush=True)
        sys.stdin.readline()
        self._ends.set()
        for thread in threads:
            thread.join()

    def _ask_on(self, kind: str) -> None:
        number, kept = 0, None
        while not self._ends.wait(PAUSE[kind]):
            begun = time.monotonic()
            try:
                if kept is None:
                    kept = socket.create_connection(self._server, timeout=PATIENCE)
                    kept.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if kind == "transfer":
                    is_right = _answer(kept, f"/bytes/{SIZE}") == b"x" * SIZE
                else:
                    is_right = _answer(kept, f"/say/{number}") == str(number).encode()
                if not is_right:
                    raise ValueError("another answer than was asked for")
                self.noted[kind].append((begun, time.monotonic()))
            except (OSError, ValueError) as error:
                self.failed[f"{kind}: {error}"] += 1
                kept = None
            if kept is not None and kind == "new":
                kept.close()
                kept = None
            number += 1


def _answer(sock: socket.socket, path: str) -> bytes:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: asking\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(1 << 18)
        if not part:
            raise ValueError("the connection has ended")
        head += part
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    parts = [body]
    left = length - len(body)
    while left:
        part = sock.recv(min(left, 1 << 18))
        if not part:
            raise ValueError("the connection has ended")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    asker = Asker(sys.argv[1], int(sys.argv[2]))
    asker.run()
    print(json.dumps({"noted": asker.noted, "failed": asker.failed}), flush=True)
