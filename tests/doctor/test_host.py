"""What the doctor says of a host, by what the kernel says."""

from __future__ import annotations

import resource

import pytest

from llb_core.capabilities import NEEDED, TO_COMPILE
from llb_core.doctor import State, host
from llb_core.doctor.finding import some

ALL = sum(1 << each for each in NEEDED | TO_COMPILE)


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("6.1.0-18-amd64", State.OK),
        ("5.15.0-204-generic", State.FAIL),
        ("5.10.0-28-amd64", State.FAIL),
        ("4.19.0", State.FAIL),
        ("of another kind", State.FAIL),
    ],
)
def test_an_old_kernel_fails(release: str, state: State) -> None:
    assert host._kernel(release).state is state


def test_capabilities_that_are_missing_are_named() -> None:
    assert host._capabilities(f"Name:\tx\nCapEff:\t{ALL:016x}\n").state is State.OK
    without = host._capabilities(f"CapEff:\t{ALL & ~(1 << 39):016x}\n")
    assert (without.state, without.found) == (State.FAIL, "CAP_BPF missing")
    assert without.remedy
    assert host._capabilities("").state is State.FAIL
    without = host._capabilities(f"CapEff:\t{ALL & ~(1 << 28):016x}\n")
    assert (without.state, without.found) == (State.WARN, "CAP_LEASE missing")


def test_a_file_system_that_is_not_mounted_is_a_warning() -> None:
    assert host._bpffs("bpf /sys/fs/bpf bpf rw 0 0\n").state is State.OK
    finding = host._bpffs("tmpfs /sys/fs/bpf tmpfs rw 0 0\n")
    assert (finding.state, finding.remedy) == (State.WARN, "llb run mounts it")


@pytest.mark.parametrize(
    ("limit", "backends", "state"),
    [
        (1024, 100, State.OK),
        (1024, 1000, State.WARN),
        (65536, 10_000, State.OK),
        (256, 0, State.WARN),
        (resource.RLIM_INFINITY, 100_000, State.OK),
    ],
)
def test_open_files_must_do_for_the_checks(limit: int, backends: int, state: State) -> None:
    finding = host._open_files(limit, backends)
    assert finding.state is state
    assert ("LimitNOFILE" in finding.remedy) is (state is State.WARN)


def test_a_clock_that_nobody_keeps_right_is_a_warning() -> None:
    assert host._clock(0x2001).state is State.OK
    assert host._clock(0x40).state is State.WARN
    assert host._clock_status() >= 0


def test_names_some_and_counts_the_rest() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg"), 3) == "a, b, c and 4 more"
    assert some([]) == ""
