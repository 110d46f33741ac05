"""The BPF file system refuses a pin: it is said which and why, and nothing is left half done."""

from __future__ import annotations

import errno
import itertools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.datapath import Datapath, Family, bpf_syscall, pins
from llb_core.datapath.pinning import unpin
from llb_core.demo import lab
from llb_core.errors import HostError
from tests.datapath.conftest import NAME, Host
from tests.netns.test_outlives import snapshot

INTERFACES = ("public", "private")


def refusing(monkeypatch: pytest.MonkeyPatch, number: int, error: int) -> None:
    """Have the number-th pin refused, counted from 1, as the kernel refuses it."""
    bpf, pinned = bpf_syscall.bpf, itertools.count(1)

    def refuse(command: int, attribute: bytes) -> int:
        if command == bpf_syscall.OBJ_PIN and next(pinned) == number:
            raise OSError(error, os.strerror(error))
        return bpf(command, attribute)

    monkeypatch.setattr(bpf_syscall, "bpf", refuse)


def each_refused(monkeypatch: pytest.MonkeyPatch, error: int) -> Iterator[None]:
    """Yield while the first pin is refused, the second, …, until the caller stops."""
    for number in itertools.count(1):
        with monkeypatch.context() as patch:
            refusing(patch, number, error)
            yield


def test_a_first_start_takes_away_what_it_has_made(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for _ in each_refused(monkeypatch, errno.ENOSPC):
        try:
            family = Family.open(host.config.loadbalancer, 4)
            break
        except HostError as error:
            said.append(str(error))
        left = pins.pin_root(NAME).exists()
        assert not left, said[-1]
    family.close()
    assert len(said) == len(family.maps) + 1, "each map, and what the classifier jumps to"
    for each in said:
        assert each.startswith(f"{pins.pin_folder(NAME)}/")
        assert each.endswith("can't be pinned: No space left on device: free some memory")


def test_a_restart_leaves_what_runs(
    host: Host, datapath: Datapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pins what it jumps to anew, and nothing else."""
    datapath.prepare_host([])
    datapath.attach()
    before = snapshot(host.namespace, INTERFACES), sorted(pins.pin_folder(NAME).iterdir())
    refusing(monkeypatch, 1, errno.EROFS)

    with pytest.raises(HostError, match=r"jumps_\d+: can't be pinned: Read-only file system: let"):
        Datapath.open(host.config.loadbalancer, [4])

    now = snapshot(host.namespace, INTERFACES), sorted(pins.pin_folder(NAME).iterdir())
    assert now == before


def test_a_name_that_something_else_has_is_named(host: Host) -> None:
    root = pins.pin_root(NAME)
    root.parent.mkdir(exist_ok=True)
    fd = bpf_syscall.map_create(2, 4, 4, 1, 0, "foreign")
    bpf_syscall.obj_pin(fd, root)
    os.close(fd)
    try:
        with pytest.raises(HostError, match=rf"{NAME}/.*: can't be made: .*else has that name"):
            Datapath.open(host.config.loadbalancer, [4])
        assert root.is_file(), "it is left alone"
    finally:
        lab.forget(NAME)


def test_what_can_not_be_removed_is_named() -> None:
    with pytest.raises(HostError, match=r"^/proc/self/status: can't be removed: .*: run as root$"):
        unpin(Path("/proc/self/status"))


def test_tables_that_may_not_be_read_are_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pins.pinned_capacity("no-such-balancer") is None

    def refuse(_: Path) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(bpf_syscall, "obj_get", refuse)
    with pytest.raises(
        HostError, match=r"dnat_table: can't be read: Permission denied: run as root"
    ):
        pins.pinned_capacity("no-such-balancer")


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("6.1.0-57-amd64", "does not let this process make eBPF maps: run as root"),
        ("5.10.0-46-amd64", r"\(5.10.0-46-amd64\) refuses the maps: LLB needs Linux 6.1"),
    ],
)
def test_an_old_kernel_is_not_taken_for_a_lack_of_rights(
    monkeypatch: pytest.MonkeyPatch, release: str, words: str
) -> None:
    """Before 5.11 maps are refused like that to root, too, where locked memory is bounded."""
    monkeypatch.setattr(platform, "release", lambda: release)
    bpf = bpf_syscall.bpf

    def refuse(command: int, attribute: bytes) -> int:
        if command == bpf_syscall.MAP_CREATE:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return bpf(command, attribute)

    monkeypatch.setattr(bpf_syscall, "bpf", refuse)

    with pytest.raises(HostError, match=words):
        pins.open_maps(NAME, 4, 1000)
