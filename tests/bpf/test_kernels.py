"""What the programs ask of a kernel, held to what the oldest one that LLB names has.

This looks at the programs as clang made them, on any kernel.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

import numpy as np
import pytest

from llb_core.datapath import bpf_syscall, compile_cache, loader, pins
from llb_core.datapath.compiled import Code, Compiled
from llb_core.datapath.jumps import JUMPS
from llb_core.datapath.layout import compile_flags
from llb_core.datapath.loader import PROGRAMS
from llb_core.datapath.sources import SOURCES, amalgamate
from tests.bpf.harness.rig import Rig

pytestmark = pytest.mark.root

LAST_OF_5_15 = 175
"""bpf_task_pt_regs(): the kernel numbers its helpers in the order in which they came."""
CALL, EXIT, ALWAYS, LOAD_TWO_WORDS = 0x85, 0x95, 0x05, 0x18
PROG_GET_FD_BY_ID = 13
VERIFIED_INSTRUCTIONS_AT = 216
BY_HELPER = 0
"""What the second byte says of a call to a helper: others go to functions of the kernel's own."""


def test_every_helper_is_one_that_linux_5_15_has(rig: Rig) -> None:
    calls = {
        (each.kind, each.value)
        for code in compiled(rig).programs.values()
        for each in instructions(code)
        if each.operation == CALL
    }

    assert len(calls) > 15
    assert {kind for kind, _ in calls} == {BY_HELPER}
    assert max(number for _, number in calls) <= LAST_OF_5_15


def test_no_loop_is_closed_by_going_on_to_the_next_instruction(rig: Rig) -> None:
    """Verifiers before Linux 6.8 let jumps alone close a loop; which of its instructions comes last
    is clang's choice."""
    programs = compiled(rig).programs

    closed = {name: closed_without_a_jump(instructions(code)) for name, code in programs.items()}

    assert len(closed) > 10
    assert {name: where for name, where in closed.items() if where} == {}


class Instruction(NamedTuple):
    """Of struct bpf_insn: its operation, which kind of call it is, where it jumps, its constant."""

    operation: int
    kind: int
    offset: int
    value: int

    @property
    def is_jump(self) -> bool:
        """Say whether it can go on elsewhere than behind itself; it may end the program."""
        return self.operation & 7 in (5, 6) and self.operation != CALL


def compiled(rig: Rig) -> Compiled:
    """Return the rig's programs as clang has made them, which was when the rig was."""
    flags = compile_flags(rig.settings.max_connections, rig.family)
    request = {"text": amalgamate(), "flags": flags, "programs": [*PROGRAMS, *JUMPS]}
    kept = compile_cache.find(compile_cache.key_of(request, SOURCES / "stub"))
    return kept or loader._compile(request, pins.pin_folder(rig.settings.name, rig.family))


def instructions(code: Code) -> list[Instruction]:
    """Take a program apart."""
    fields = struct.iter_unpack("=BBhi", code.instructions)
    return [Instruction(operation, registers >> 4, *rest) for operation, registers, *rest in fields]


def closed_without_a_jump(program: list[Instruction]) -> list[int]:
    """Return the instructions, no jumps, that lead back to where the way to them came by; found as
    the kernel does (check_cfg() of kernel/bpf/verifier.c)."""
    on_the_way, done, found = {0}, set(), []
    way = [(0, iter(following(program, 0)))]
    while way:
        at, rest = way[-1]
        after = next(rest, None)
        if after is None:
            way.pop()
            on_the_way.remove(at)
            done.add(at)
        elif after in on_the_way:
            found += [] if program[at].is_jump else [at]
        elif after not in done:
            on_the_way.add(after)
            way.append((after, iter(following(program, after))))
    return found


def following(program: list[Instruction], at: int) -> list[int]:
    """Return which instructions may come after one, in the order in which the kernel looks."""
    this = program[at]
    if not this.is_jump:
        return [at + (2 if this.operation == LOAD_TWO_WORDS else 1)]
    if this.operation == EXIT:
        return []
    there = at + 1 + this.offset
    return [there] if this.operation == ALWAYS else [at + 1, there]


VERIFIER_LIMIT = 1_000_000
"""Instructions after which the verifier gives up; each kernel counts them its own way."""


def test_programs_leave_the_verifier_room_to_spare(rig: Rig) -> None:
    programs = {name: fd for name, fd in rig.datapath.program_fds.items() if name != "jumps"} | {
        name: jump_fd(rig, place) for place, name in enumerate(JUMPS)
    }

    looked_at = {name: verified_instructions(fd) for name, fd in programs.items()}

    assert {n: count for n, count in looked_at.items() if count > 0.7 * VERIFIER_LIMIT} == {}


def jump_fd(rig: Rig, place: int) -> int:
    """Open a program that the classifier jumps to."""
    key, number = np.array([place], "u4"), np.zeros(1, "u4")
    jumps = rig.datapath.program_fds["jumps"]
    assert bpf_syscall.map_lookup(jumps, key.ctypes.data, number.ctypes.data)
    return bpf_syscall.bpf(PROG_GET_FD_BY_ID, struct.pack("=III", int(number[0]), 0, 0))


def verified_instructions(fd: int) -> int:
    """Return how many instructions the verifier has looked at (struct bpf_prog_info)."""
    room = ctypes.create_string_buffer(256)
    attribute = struct.pack("=IIQ", fd, len(room), ctypes.addressof(room))
    bpf_syscall.bpf(bpf_syscall.OBJ_GET_INFO_BY_FD, attribute)
    (count,) = struct.unpack_from("=I", room, VERIFIED_INSTRUCTIONS_AT)
    return int(count)
