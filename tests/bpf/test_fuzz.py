"""A fuzzer on the whole program, and a soak of its tables: `make fuzz PACKETS=10000000`;
`make test` runs a short form.

`LLB_FUZZ_PACKETS` says how many packets, `LLB_FUZZ_SEED` which; a failure names seed and packet.
"""

from __future__ import annotations

import os

import pytest

from llb_core.datapath.layout import Verdict
from tests.bpf.fuzzing import (
    PASS,
    REDIRECT,
    SHOT,
    Checker,
    Packets,
    Sent,
    connect,
    look_over,
    ones_sum,
)
from tests.bpf.harness.packets import at_backend, from_client
from tests.bpf.harness.rig import ETHERNET, Rig, to_frame
from tests.bpf.harness.runner import Runner
from tests.bpf.harness.world import PUBLIC

pytestmark = pytest.mark.root

PACKETS = int(os.environ.get("LLB_FUZZ_PACKETS", "40000"))
SEED = int(os.environ.get("LLB_FUZZ_SEED", "1"))
CONNECTED_ANEW = 20_000
"""After so many packets the tables begin anew: full of what packets by chance have opened, they
would take no more."""
TOLD_EVERY = 250_000
LOOKED_OVER = 2_000
"""After so many packets the tables are looked over, too."""


def test_no_packet_is_half_rewritten_and_none_that_is_not_ours(rig: Rig) -> None:
    runner = Runner(rig.datapath.program_fds["classify"])
    checker = Checker(rig)
    seen: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
    before = rig.verdicts()
    of_family = 0
    most = 0
    for number, sent in enumerate(Packets(rig, SEED)):
        if number % LOOKED_OVER == 0 and number:
            most = max(most, look_over(rig))
        if number % TOLD_EVERY == 0 and number:
            print(f"\nseed {SEED}, IPv{rig.family}: {number:,} packets so far", end="")
        if number % CONNECTED_ANEW == 0:
            _add(seen, before, rig.verdicts())
            rig.reset()
            connect(rig)
            before = rig.verdicts()
            if number >= PACKETS:
                break
        action, out = runner.run(sent.frame, sent.interface, sent.gso_size)
        of_family += checker.is_counted(sent)
        try:
            checker.check(sent, action, out)
        except AssertionError as error:
            raise AssertionError(
                f"packet {number} of seed {SEED}, IPv{rig.family}: {error}\n"
                f"in  {sent.frame.hex()} by interface {sent.interface}, gso {sent.gso_size}\n"
                f"out {out.hex()}, action {action}"
            ) from None

    told = {verdict.name.lower(): count for verdict, count in seen.items() if count}
    print(f"\nseed {SEED}, IPv{rig.family}: {number:,} packets, {told}")
    print(f"the tables, with up to {most} connections, looked over {number // LOOKED_OVER:,} times")
    assert sum(seen.values()) == of_family > 0.9 * number  # others are not for this program
    assert seen[Verdict.DROP_ERROR] == 0
    reached = {verdict for verdict, count in seen.items() if count}
    assert reached >= {
        *(each for each in Verdict if each.name.startswith(("FORWARD", "REFUSE", "PASS_N"))),
        Verdict.PASS_UNPARSED,
        Verdict.DROP_FRAGMENT,
        Verdict.DROP_SPOOFED,
        Verdict.DROP_UNKNOWN_ANSWER,
    }


def _add(seen: dict[Verdict, int], before: list[int], after: list[int]) -> None:
    for verdict in Verdict:
        seen[verdict] += after[verdict] - before[verdict]


def test_fuzzer_finds_what_it_is_there_for(rig: Rig) -> None:
    """Packets that came out wrong, as if the program had made them."""
    checker = Checker(rig)
    frame = to_frame(from_client("S", b"ab"), PUBLIC)
    right = to_frame(at_backend("S", b"ab"), PUBLIC)
    sent = Sent(frame, rig.public_index)
    checker.check(sent, REDIRECT, right)

    for place in range(ETHERNET, len(right)):
        wrong = bytearray(right)
        wrong[place] ^= 0x10
        with pytest.raises(AssertionError):
            checker.check(sent, REDIRECT, bytes(wrong))
    with pytest.raises(AssertionError):
        checker.check(sent, REDIRECT, frame)
    for action in (PASS, SHOT):
        with pytest.raises(AssertionError):
            checker.check(sent, action, right)


def test_sum_is_that_of_the_rfc() -> None:
    """The example of RFC 1071, 3."""
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2
