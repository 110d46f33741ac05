"""Compile and load, in a process of its own: LLVM costs 50 MiB, which the daemon need not carry.

Run as a script, by its path, so that nothing of `llb_core` is imported. One line of JSON on
standard input says what to compile; the answer goes over the socket whose number is the first
argument: one line of JSON, with the programs' file descriptors beside it (SCM_RIGHTS). What clang
and the verifier have to say goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from typing import Any

DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"


def import_bcc() -> Any:
    """Import bcc, also where this Python doesn't see the distribution's packages.

    PyPI's package of this name is about crystal lattices, and has no `BPF`.
    """
    try:
        import bcc  # type: ignore[import-not-found, unused-ignore]

        if hasattr(bcc, "BPF"):
            return bcc
    except ImportError:
        pass
    for name in [name for name in sys.modules if name.split(".")[0] == "bcc"]:
        del sys.modules[name]
    sys.path.insert(0, DEBIAN_PACKAGES)
    import bcc  # type: ignore[import-not-found, unused-ignore, no-redef]

    if not hasattr(bcc, "BPF"):
        raise ImportError("what is there under the name bcc is another package, or none")
    return bcc


def fill_jumps(bcc: Any, module: Any, names: list[str]) -> int:
    """Load the programs that the classifier jumps to, and enter each into its array."""
    jumps = module["jumps"]
    for index, name in enumerate(names):
        program = module.load_func(name, bcc.BPF.SCHED_CLS)
        jumps[ctypes.c_int(index)] = ctypes.c_int(program.fd)
    fd: int = jumps.map_fd
    return fd


def main() -> None:
    """Answer one request."""
    answers = socket.socket(fileno=int(sys.argv[1]))
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]

    def answer(fds: list[int], **fields: Any) -> None:
        socket.send_fds(answers, [json.dumps(fields).encode()], fds)

    try:
        bcc = import_bcc()
    except ImportError as error:
        answer([], failed="bcc", why=str(error))
        return
    try:
        module = bcc.BPF(text=request["text"], cflags=request["cflags"])
    except Exception as error:  # noqa: BLE001 - bcc raises nothing finer
        answer([], failed="compile", why=str(error))
        return
    try:
        programs = [module.load_func(name, bcc.BPF.SCHED_CLS) for name in request["programs"]]
        fds = [program.fd for program in programs]
        if request["jumps"]:
            fds.append(fill_jumps(bcc, module, request["jumps"]))
    except Exception as error:  # noqa: BLE001 - bcc raises nothing finer
        answer([], failed="load", why=str(error))
        return
    answer(fds)


if __name__ == "__main__":
    main()
