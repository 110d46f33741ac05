"""One program run on one packet after the other, a million times where that is wanted: nothing is
made anew for each.
"""

from __future__ import annotations

import ctypes
import struct

from llb_core.datapath import bpf_syscall

ROOM = 4096
_CONTEXT = 192
_IFINDEX_AT, _GSO_SIZE_AT = 40, 176
_SIZES_AT, _ANSWER_AT = 8, 4
_NUMBER, _SIZES, _ANSWER = struct.Struct("=I"), struct.Struct("=II"), struct.Struct("=iII")


class Runner:
    """A program, and room for what it is given and gives back."""

    def __init__(self, program: int) -> None:
        self._in = ctypes.create_string_buffer(ROOM)
        self._out = ctypes.create_string_buffer(ROOM + 256)
        self._context = ctypes.create_string_buffer(_CONTEXT)
        attribute = struct.pack(
            "=IIIIQQIIIIQQ",
            program,
            0,
            0,
            0,
            ctypes.addressof(self._in),
            ctypes.addressof(self._out),
            1,
            0,
            _CONTEXT,
            0,
            ctypes.addressof(self._context),
            0,
        )
        self._attribute = ctypes.create_string_buffer(attribute, 144)

    def run(self, frame: bytes, interface: int, gso_size: int = 0) -> tuple[int, bytes]:
        """Return the action, and the frame as it came out."""
        ctypes.memmove(self._in, frame, len(frame))
        _NUMBER.pack_into(self._context, _IFINDEX_AT, interface)
        _NUMBER.pack_into(self._context, _GSO_SIZE_AT, gso_size)
        _SIZES.pack_into(self._attribute, _SIZES_AT, len(frame), len(self._out))
        error = bpf_syscall._call_in_place(bpf_syscall.PROG_TEST_RUN, self._attribute)
        assert not error, f"the kernel refuses {frame.hex()} with errno {error}"
        action, _, size = _ANSWER.unpack_from(self._attribute, _ANSWER_AT)
        return action, self._out[:size]
