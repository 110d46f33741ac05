"""A long transfer, there and back, over one connection.

Run as a script by its path, on the standard library alone:

    python transfer.py serve PORT                     sends back what it gets, and prints `ready`
    python transfer.py send ADDRESS PORT BYTES RATE   sends pseudo-random bytes, so many a second

The sender prints how many bytes came back, ten times a second, as a line each; the last line is
JSON: `{"sent": SHA256, "received": SHA256, "bytes": N}`, or `{"failed": WHY}`. It keeps the last
eighth back, and sends but a little of it now and then, until a line on its standard input says that
the transfer may end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import sys
import threading
import time

BLOCK = 1 << 18
TRICKLE, PAUSE = 1000, 0.05
"""Bytes, and seconds after them."""
PATIENCE = 60.0
"""Seconds without a byte until the transfer has failed."""


def serve(port: int) -> None:
    """Send back what comes in, on any number of connections of both families."""
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: socket.socket) -> None:
    """Send back what comes in, to its end."""
    with connection, contextlib.suppress(OSError):
        while part := connection.recv(BLOCK):
            connection.sendall(part)


def send(address: str, port: int, number: int, rate: float) -> None:
    """Send, and say what came back."""
    hurry = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), hurry.set()), daemon=True).start()
    sent, received, count = hashlib.sha256(), hashlib.sha256(), 0
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        failures: list[OSError] = []

        def pour() -> None:
            source, left, began = random.Random(port), number, time.monotonic()
            try:
                while left:
                    is_held = left <= number // 8 and not hurry.is_set()
                    part = source.randbytes(min(TRICKLE if is_held else BLOCK, left))
                    connection.sendall(part)
                    sent.update(part)
                    left -= len(part)
                    due = began + (number - left) / rate
                    hurry.wait(PAUSE if is_held else max(0.0, due - time.monotonic()))
                connection.shutdown(socket.SHUT_WR)
            except OSError as error:
                failures.append(error)

        pouring = threading.Thread(target=pour, daemon=True)
        pouring.start()
        told = 0.0
        try:
            while part := connection.recv(BLOCK):
                received.update(part)
                count += len(part)
                if time.monotonic() - told > 0.1:
                    told = time.monotonic()
                    print(count, flush=True)
            pouring.join(PATIENCE)
        except OSError as error:
            failures.append(error)
    if failures:
        print(json.dumps({"failed": f"after {count} bytes: {failures[0]}"}))
    else:
        digests = {"sent": sent.hexdigest(), "received": received.hexdigest()}
        print(json.dumps(digests | {"bytes": count}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
