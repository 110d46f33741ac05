"""The BPF file system that everything is pinned in: mounting it, and who else sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from llb_core.errors import HostError

BPFFS = Path("/sys/fs/bpf")


def ensure_bpffs() -> None:
    """Mount the BPF file system where it is missing."""
    if _mounted("self"):
        return
    try:
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise HostError(
            f"{BPFFS} is no BPF file system, and it can't be mounted: mount -t bpf bpf {BPFFS}"
        ) from None


def is_apart() -> bool:
    """Say whether the init process does not see the BPF file system that is seen here: this is a
    mount namespace of its own, as ip netns exec makes one, and what is mounted in it goes with its
    last process. False where init can't be asked."""
    try:
        others = {device for device, _ in _mounts("1")}
    except OSError:
        return False
    ours = _mounted("self")
    return ours[-1] not in others if ours else bool(others)


def _mounted(process: str) -> list[str]:
    """Return the devices of what is mounted at BPFFS, as a process sees it; the last is on top."""
    try:
        return [device for device, place in _mounts(process) if place == str(BPFFS)]
    except OSError:
        return []


def _mounts(process: str) -> list[tuple[str, str]]:
    """Return the device and the place of each BPF file system that a process sees (proc(5))."""
    found = []
    for line in Path("/proc", process, "mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("bpf "):
            _, _, device, _, place, *_ = mount.split()
            found.append((device, place))
    return found
