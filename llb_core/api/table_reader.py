"""Read the tables for the daemon, as a process of its own: `python -m llb_core.api.table_reader`,
with what is wanted on standard input; what it finds comes out by standard output.

It imports little, since whoever asked waits for that.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import sys
from contextlib import suppress

from llb_core.errors import ConfigurationError, LLBError

_PIPE = 1 << 20
"""Bytes on their way to the daemon: it is woken the less often."""


def main() -> None:
    """Answer the daemon: the balancer's name and a question on standard input, pickled."""
    balancer, question = pickle.load(sys.stdin.buffer)
    os.nice(5)  # The health checks come first.
    with suppress(OSError):  # More than an unprivileged process may have.
        fcntl.fcntl(sys.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
    try:
        for chunk in question.answer(balancer, "daemon"):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except LLBError as error:
        is_wrong_call = isinstance(error, ConfigurationError)
        sys.stderr.write(json.dumps({"error": str(error), "is_wrong_call": is_wrong_call}))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
