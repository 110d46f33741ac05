"""Hanging the classifiers on an interface's TCX hook, where the kernel has it (Linux 6.6).

A packet comes there before it comes to any filter on clsact, for less. The hook holds a list of
programs, one after the other, and matches no protocol: both families' programs see every packet,
and pass what is not of theirs. Ours hang there by links that are pinned beside the maps, as
`link_INDEX`: so they outlive the daemon, are found again, and replaced in place. Programs of others
stay as they are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llb_core.datapath import bpf_syscall as sys
from llb_core.datapath.pinning import pin, pinned, unpin
from llb_core.datapath.pins import LLB
from llb_core.errors import HostError

_PIN = "link_"
_NOT_KNOWN = (errno.EINVAL, errno.EOPNOTSUPP)
"""What a kernel says that has no TCX."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """A program on a hook: its number and name, and whether it is of an LLB on this host."""

    number: int
    name: str
    is_ours: bool


class Links:
    """The links that this process holds open: while it runs, the classifiers hang on, though
    somebody removes the pins."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def attach(self, folder: Path, index: int, program: int) -> bool:
        """Hang a program on the ingress of an interface, in place of the one that a link pinned in
        this folder has there. False where the kernel has no TCX."""
        path = folder / f"{_PIN}{index}"
        for earlier in pinned(folder.parent.parent, f"*/{folder.name}/{path.name}"):
            earlier.rename(path)  # Of another layout's maps: the link goes on.
        if self._replace(path, program):
            return True
        try:
            link = sys.link_create(program, index, sys.TCX_INGRESS)
        except OSError as error:
            if error.errno in _NOT_KNOWN:
                return False
            raise HostError(
                f"the kernel refuses the program on interface {index}: {error}"
            ) from None
        try:
            pin(link, path)
        except HostError:
            os.close(link)
            raise
        self._held[path] = link
        return True

    def pin_again(self, folder: Path, index: int) -> bool:
        """Pin the link of an interface whose pin is gone; False where nothing was to be done."""
        path = folder / f"{_PIN}{index}"
        link = self._held.get(path)
        if link is None or path.exists() or sys.link_info(link).interface != index:
            return False
        pin(link, path)
        return True

    def let_go(self, folder: Path, *, keep: Collection[int] = ()) -> None:
        """Hold those pinned below this folder no longer, but those of the interfaces to keep."""
        for path in [each for each in self._held if folder in each.parents]:
            if _index(path) not in keep:
                os.close(self._held.pop(path))

    def close(self) -> None:
        """Hold none. What is pinned hangs on."""
        while self._held:
            os.close(self._held.popitem()[1])

    def _replace(self, path: Path, program: int) -> bool:
        """Put a program in place of the one of a link; False where there is none that hangs."""
        held = self._held.get(path)
        try:
            link = held or self._held.setdefault(path, sys.obj_get(path))
            sys.link_update(link, program)
            if not path.exists():
                pin(link, path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ENOLINK:
                raise HostError(f"{path}: can't be updated: {error.strerror}") from None
            os.close(self._held.pop(path))
            if held:
                return self._replace(path, program)  # Another link may be pinned by now.
            unpin(path)  # Of an interface that is gone; another has its number.
            return False
        return True


def detach(folder: Path, *, keep: Collection[int] = ()) -> list[int]:
    """Take away what hangs by links pinned below this folder, but on the interfaces to keep; return
    the indices of the interfaces that it hung on."""
    leaving = [path for path in _pins(folder) if _index(path) not in keep]
    for path in leaving:
        link = sys.obj_get(path)
        try:
            sys.link_detach(link)
        except OSError as error:
            if error.errno != errno.ENOLINK:  # Its interface is gone.
                raise HostError(f"{path}: can't be detached: {error.strerror}") from None
        finally:
            os.close(link)
        unpin(path)
    return sorted({_index(path) for path in leaving})


def attached_program(folder: Path, index: int) -> int | None:
    """Return the kernel's number of the program that hangs on an interface by a link pinned in this
    folder, None where none does."""
    try:
        info = sys.pinned_link_info(folder / f"{_PIN}{index}")
    except OSError:
        return None
    return info.program if info.interface == index else None


def programs(index: int, kind: int) -> list[Hanging]:
    """Return what hangs on the TCX hook of an interface, in the order in which a packet comes to
    it; `kind` is TCX_INGRESS or TCX_EGRESS. Nothing where the kernel has no TCX; HostError where
    one may not look."""
    ours = set()
    try:
        numbers = sys.prog_query(index, kind)
        for path in pinned(LLB, f"*/*/*/{_PIN}{index}"):
            with suppress(FileNotFoundError):  # It has gone meanwhile.
                ours.add(sys.pinned_link_info(path).program)
        return [Hanging(number, _name(number), number in ours) for number in numbers]
    except OSError as error:
        if error.errno in _NOT_KNOWN:
            return []
        raise HostError(
            f"what hangs on TCX can't be seen ({error.strerror}): run as root"
        ) from None


def _name(number: int) -> str:
    try:
        return sys.prog_name(number)
    except FileNotFoundError:  # It has gone meanwhile.
        return ""


def _pins(folder: Path) -> list[Path]:
    return pinned(folder, f"**/{_PIN}*")


def _index(path: Path) -> int:
    return int(path.name.removeprefix(_PIN))
