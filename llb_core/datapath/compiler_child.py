"""Compile, in a process of its own: LLVM costs 50 MiB, which the daemon need not carry.

Run as a script, by its path, so that nothing of `llb_core` is imported. One line of JSON on
standard input says what to compile; one line of JSON on standard output is the answer, in the shape
of `compiled.Compiled`. What clang has to say goes to standard error.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import struct
import sys
from typing import Any

DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"
_LOAD_TWO_WORDS, _OF_MAP = 0x18, 1
"""An instruction that takes two places, and what its second byte says where it loads a map."""


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


def maps_of(bcc: Any, module: Any) -> dict[int, tuple[str, dict[str, int]]]:
    """Return each map's name and what it is like, by the file descriptor that stands for it."""
    of = ctypes.c_void_p(module.module)
    bcc.lib.bpf_table_name.restype = ctypes.c_char_p

    def ask(what: str, number: int) -> int:
        return int(getattr(bcc.lib, f"bpf_table_{what}_id")(of, ctypes.c_size_t(number)))

    return {
        ask("fd", number): (
            bcc.lib.bpf_table_name(of, number).decode(),
            {
                "kind": ask("type", number),
                "key": ask("key_size", number),
                "value": ask("leaf_size", number),
                "entries": ask("max_entries", number),
                "flags": ask("flags", number),
            },
        )
        for number in range(bcc.lib.bpf_num_tables(of))
    }


def loaded_maps(instructions: bytes) -> dict[int, int]:
    """Return the file descriptors of maps in a program, by the number of the instruction."""
    found, number = {}, 0
    while number < len(instructions) // 8:
        code, registers, _, value = struct.unpack_from("=BBhi", instructions, number * 8)
        if code == _LOAD_TWO_WORDS and registers >> 4 == _OF_MAP:
            found[number] = value
        number += 2 if code == _LOAD_TWO_WORDS else 1
    return found


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile; say what came of it, or `failed` and `why`."""
    try:
        bcc = import_bcc()
    except ImportError as error:
        return {"failed": "bcc", "why": str(error)}
    try:
        module = bcc.BPF(text=request["text"], cflags=request["cflags"])
        texts = {name: module.dump_func(name.encode()) for name in request["programs"]}
    except Exception as error:  # noqa: BLE001 - bcc raises nothing finer
        return {"failed": "compile", "why": str(error)}
    maps = maps_of(bcc, module)
    programs = {
        name: {
            "instructions": base64.b64encode(text).decode(),
            "maps": {number: maps[fd][0] for number, fd in loaded_maps(text).items()},
        }
        for name, text in texts.items()
    }
    return {"programs": programs, "maps": dict(maps.values())}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    print(json.dumps(answer(request)))


if __name__ == "__main__":
    main()
