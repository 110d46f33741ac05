"""What the programs ask of a kernel, held to what the oldest one that LLB names has.

It can't be run here on that kernel: this looks at the calls in the programs as clang made them.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from llb_core.datapath import compiler_child, pins
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
