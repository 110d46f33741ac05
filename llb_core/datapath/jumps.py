"""The array of programs that the classifier jumps to: one for each load, pinned by a generation.

A filter goes on jumping to the programs that it was loaded with, so no two loads share an array.
Its entries vanish with its last file descriptor or pin, and the data path outlives the daemon: so
each is pinned, and those of earlier loads go once no filter uses them.
"""

from __future__ import annotations

from pathlib import Path

from llb_core.datapath import bpf_syscall, pinning

JUMPS = ("icmp_error", "later_fragment", "refuse", "open_new", "make_room")
"""The programs, in the order of `enum jump` in `bpf/jumps.h`."""
_PIN = "jumps_"


def pin_path(fd: int, folder: Path) -> Path:
    """Return where an array is pinned. Its generation is the number that the kernel gave the map,
    which is not given again while the machine runs."""
    return folder / f"{_PIN}{bpf_syscall.map_info(fd).id}"


def pin(fd: int, folder: Path) -> None:
    """Keep an array's entries beyond the end of this process; HostError where it can't be done."""
    pinning.pin(fd, pin_path(fd, folder))


def pin_again(fd: int, folder: Path) -> bool:
    """Pin an array whose pin somebody has removed; False where it is there."""
    if pin_path(fd, folder).exists():
        return False
    pin(fd, folder)
    return True


def unpin_others(fd: int, folder: Path) -> None:
    """Let go of every array but this one: what filters no longer use, and what a daemon left that
    was killed before it attached anything."""
    ours = pin_path(fd, folder)
    for path in pinning.pinned(folder, f"{_PIN}*"):
        if path != ours:
            path.unlink()
