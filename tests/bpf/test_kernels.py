"""What the programs ask of a kernel, held to what the oldest one that LLB names has.

It can't be run here on that kernel: this looks at the calls in the programs as clang made them.
"""

from __future__ import annotations

import ctypes
import json
import platform
import struct
import subprocess
import sys

import numpy as np
import pytest

from llb_core.datapath import bpf_syscall, compiler_child, pins
from llb_core.datapath.jumps import JUMPS
from llb_core.datapath.layout import compile_flags
from llb_core.datapath.loader import PROGRAMS
from llb_core.datapath.sources import SOURCES, amalgamate
from tests.bpf.harness.rig import Rig

pytestmark = pytest.mark.root

LAST_OF_5_15 = 175
"""bpf_task_pt_regs(): the kernel numbers its helpers in the order in which they came."""
READ = """
import json, os, runpy, sys
asked = json.load(sys.stdin)
os.environ["BCC_KERNEL_SOURCE"] = asked["headers"]
bcc = runpy.run_path(asked["child"])["import_bcc"]()
module = bcc.BPF(text=asked["text"], cflags=asked["cflags"])
calls = set()
for name in asked["programs"]:
    code = module.dump_func(name)
    for at in range(0, len(code), 8):
        if code[at] == 0x85:
            calls.add((code[at + 1] >> 4, int.from_bytes(code[at + 4 : at + 8], "little")))
print(json.dumps(sorted(calls)))
"""
PROG_GET_FD_BY_ID = 13
VERIFIED_INSTRUCTIONS_AT = 216
BY_HELPER = 0
"""What the second byte says of a call to a helper: others go to functions of the kernel's own."""


def test_every_helper_is_one_that_linux_5_15_has(rig: Rig) -> None:
    request = {
        "headers": str(SOURCES / "stub"),
        "child": compiler_child.__file__,
        "text": amalgamate(),
        "cflags": [
            *("-isystem", "/usr/include"),
            *("-isystem", f"/usr/include/{platform.machine()}-linux-gnu"),
            f'-DPIN="{pins.pin_folder(rig.settings.name, rig.family)}"',
            *compile_flags(rig.settings.max_connections, rig.family),
        ],
        "programs": [*PROGRAMS, *JUMPS],
    }

    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(request), capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    calls = json.loads(done.stdout)
    assert len(calls) > 15
    assert {kind for kind, _ in calls} == {BY_HELPER}
    assert max(number for _, number in calls) <= LAST_OF_5_15


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
