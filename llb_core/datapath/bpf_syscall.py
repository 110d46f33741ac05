"""The kernel's bpf(2), as far as LLB uses it, and nothing on top of it.

File descriptors in, file descriptors and numbers out; errors are `OSError`. Source: bpf(2) and
`include/uapi/linux/bpf.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_ATTRIBUTE_BYTES = 144
_ANY_ALIGNMENT = 2
"""BPF_F_ANY_ALIGNMENT: headers lie behind one of 14 bytes. Processors that read them all the same
are never asked; of others the verifier wants to be told."""
_VERIFIER_SAYS = (1 << 24) - 1
"""Bytes that the verifier may say at most."""

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE = 0, 1, 2, 3
PROG_LOAD, OBJ_PIN, OBJ_GET, PROG_TEST_RUN = 5, 6, 7, 10
PROG_GET_FD_BY_ID, MAP_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 13, 14, 15, 16
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH, MAP_DELETE_BATCH = 24, 26, 27
LINK_CREATE, LINK_UPDATE, LINK_DETACH = 28, 29, 34
TCX_INGRESS, TCX_EGRESS = 46, 47

ANY, NOEXIST, EXIST = 0, 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """The number of a link, which program hangs by it, and on which interface: 0 where that is
    gone."""

    number: int
    program: int
    interface: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a program made of a packet: its return value, the packet, nanoseconds a repetition."""

    retval: int
    data: bytes
    duration_ns: int


def bpf(command: int, attribute: bytes) -> int:
    """Call bpf(2) with an attribute of up to 144 bytes; the rest is zero."""
    number = _SYSCALL_NUMBER[platform.machine()]
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    result: int = _libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _call_in_place(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Call bpf(2) where it writes into the attribute; return errno, 0 for none."""
    number = _SYSCALL_NUMBER[platform.machine()]
    if _libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES) < 0:
        return ctypes.get_errno()
    return 0


def map_create(
    kind: int, key: int, value: int, entries: int, flags: int, name: str, inner: int = 0
) -> int:
    """Make a map; inner is the file descriptor of the prototype of a map of maps."""
    head = struct.pack("=IIIIIII", kind, key, value, entries, flags, inner, 0)
    return bpf(MAP_CREATE, head + name.encode()[:15].ljust(16, b"\0"))


def obj_pin(fd: int, path: Path) -> None:
    """Pin a map, a program or a link under a path of a bpffs."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    bpf(OBJ_PIN, struct.pack("=QII", ctypes.addressof(text), fd, 0))


def obj_get(path: Path) -> int:
    """Open what is pinned at a path; `FileNotFoundError` where nothing is."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))


def link_create(program: int, index: int, kind: int) -> int:
    """Hang a program on an interface's hook, behind those that hang there; return the link."""
    return bpf(LINK_CREATE, struct.pack("=IIII", program, index, kind, 0))


def link_update(link: int, program: int) -> None:
    """Put a program in place of a link's, in one step."""
    bpf(LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0))


def link_info(link: int) -> LinkInfo:
    """Ask the kernel what a TCX link hangs where."""
    room = ctypes.create_string_buffer(128)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", link, len(room), ctypes.addressof(room)))
    _, number, program, _, interface = struct.unpack_from("=IIIII", room)
    return LinkInfo(number, program, interface)


def pinned_link_info(path: Path) -> LinkInfo:
    """The same of a link that is pinned there; OSError where none is."""
    link = obj_get(path)
    try:
        return link_info(link)
    finally:
        os.close(link)


def link_detach(link: int) -> None:
    """Take what hangs by a link away at once, whoever else holds the link."""
    bpf(LINK_DETACH, struct.pack("=I", link))


def map_get_fd_by_id(map_id: int) -> int:
    """Open a map by its id."""
    return bpf(MAP_GET_FD_BY_ID, struct.pack("=III", map_id, 0, 0))


def map_info(fd: int) -> MapInfo:
    """Ask the kernel what a map is like."""
    room = ctypes.create_string_buffer(128)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(room), ctypes.addressof(room)))
    return MapInfo(*struct.unpack_from("=IIIIII", room))


def prog_id(fd: int) -> int:
    """Return the number that the kernel gave a program."""
    room = ctypes.create_string_buffer(128)
    bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(room), ctypes.addressof(room)))
    return int(struct.unpack_from("=II", room)[1])


def prog_name(number: int) -> str:
    """Return the name of the program of that number, of 15 characters at most; OSError where there
    is none."""
    fd = bpf(PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
    try:
        room = ctypes.create_string_buffer(128)
        bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(room), ctypes.addressof(room)))
    finally:
        os.close(fd)
    return room.raw[64:80].partition(b"\0")[0].decode(errors="replace")


def prog_query(index: int, kind: int) -> list[int]:
    """Return the numbers of the programs on an interface's hook, in the order in which a packet
    comes to them."""
    count = 0
    while True:
        numbers = (ctypes.c_uint32 * (count + 16))()
        head = struct.pack("=IIIIQI", index, kind, 0, 0, ctypes.addressof(numbers), len(numbers))
        buffer = ctypes.create_string_buffer(head, _ATTRIBUTE_BYTES)
        error = _call_in_place(PROG_QUERY, buffer)
        (count,) = struct.unpack_from("=I", buffer, 24)
        if not error:
            return list(numbers[:count])
        if error != errno.ENOSPC:
            raise OSError(error, os.strerror(error))


def map_lookup(fd: int, key: int, value: int) -> bool:
    """Read one entry into the memory at value; False where there is none."""
    try:
        bpf(MAP_LOOKUP, struct.pack("=IIQQQ", fd, 0, key, value, 0))
    except FileNotFoundError:
        return False
    return True


def map_update(fd: int, key: int, value: int, flags: int = ANY) -> None:
    """Write one entry from the memory at key and value."""
    bpf(MAP_UPDATE, struct.pack("=IIQQQ", fd, 0, key, value, flags))


def put_program(programs: int, place: int, program: int) -> None:
    """Put a program into its place of an array of programs."""
    key, value = ctypes.c_uint32(place), ctypes.c_uint32(program)
    map_update(programs, ctypes.addressof(key), ctypes.addressof(value))


def map_delete(fd: int, key: int) -> None:
    """Remove one entry; `FileNotFoundError` where there is none."""
    bpf(MAP_DELETE, struct.pack("=IIQ", fd, 0, key))


def map_batch(
    command: int, fd: int, keys: int, values: int, count: int, token_in: int = 0, token_out: int = 0
) -> tuple[int, int]:
    """Run a batch operation; return how many entries it dealt with, and errno (0 for none)."""
    attribute = struct.pack("=QQQQIIQQ", token_in, token_out, keys, values, count, fd, 0, 0)
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    error = _call_in_place(command, buffer)
    (done,) = struct.unpack_from("=I", buffer, 32)
    return done, error


def prog_load(kind: int, instructions: bytes, name: str = "") -> int:
    """Load a program of instructions of 8 bytes each; for more than a few there is a compiler."""
    return _prog_load(kind, instructions, name)


def why_refused(kind: int, instructions: bytes) -> str:
    """Have the kernel refuse a program once more; return what its verifier says, or nothing."""
    said = ctypes.create_string_buffer(_VERIFIER_SAYS)
    try:
        os.close(_prog_load(kind, instructions, "", said))
    except OSError:
        return said.value.decode(errors="replace")
    return ""


def _prog_load(
    kind: int,
    instructions: bytes,
    name: str,
    said: ctypes.Array[ctypes.c_char] | None = None,
) -> int:
    text = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack(
        "=IIQQIIQII16s",
        kind,
        len(instructions) // 8,
        ctypes.addressof(text),
        ctypes.addressof(licence),
        0 if said is None else 1,
        0 if said is None else len(said),
        0 if said is None else ctypes.addressof(said),
        0,
        _ANY_ALIGNMENT,
        name.encode()[:15],
    )
    return bpf(PROG_LOAD, attribute)


def prog_test_run(
    fd: int,
    data: bytes,
    *,
    repeat: int = 1,
    context: bytes = b"",
    room: int = 0,
    flags: int = 0,
) -> TestRun:
    """Run a program on a packet (BPF_PROG_TEST_RUN); context is a `struct __sk_buff`, flags are
    BPF_F_TEST_*.

    The maps that it works on are the live ones. With repeat above 1 each run gets the packet as
    the one before left it.
    """
    source = ctypes.create_string_buffer(data, len(data))
    target = ctypes.create_string_buffer(max(room, len(data) + 256))
    ctx = ctypes.create_string_buffer(context, len(context)) if context else None
    attribute = struct.pack(
        "=IIIIQQIIIIQQI",
        fd,
        0,
        len(data),
        len(target),
        ctypes.addressof(source),
        ctypes.addressof(target),
        repeat,
        0,
        len(context),
        0,
        ctypes.addressof(ctx) if ctx is not None else 0,
        0,
        flags,
    )
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    error = _call_in_place(PROG_TEST_RUN, buffer)
    if error:
        raise OSError(error, os.strerror(error))
    retval, _, size = struct.unpack_from("=III", buffer, 4)
    (duration,) = struct.unpack_from("=I", buffer, 36)
    return TestRun(ctypes.c_int32(retval).value, target.raw[:size], duration)
