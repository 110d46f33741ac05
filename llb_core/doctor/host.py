"""What LLB needs of a host, whatever it balances: kernel, packages, rights, limits, clock."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
import resource
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from llb_core.capabilities import NEEDED, TO_COMPILE, Capability
from llb_core.datapath import kernel
from llb_core.doctor.finding import Finding, State, judge

_ENOUGH_FILES = 1024
_STA_UNSYNC = 0x40
_TIMEX_SIZE, _TIMEX_STATUS = 256, 40
"""struct timex of linux/timex.h, on machines of 64 bits, with room to spare; and where in it."""


def look_at_host(backends: int = 0, daemon: int | None = None) -> Iterator[Finding]:
    """Look at everything here; `backends` is how many are to be checked at once, `daemon` the
    process that checks them, where it runs."""
    yield _kernel(platform.release())
    yield _bcc()
    yield _headers()
    yield _capabilities(Path("/proc/self/status").read_text())
    yield _bpffs(Path("/proc/self/mounts").read_text())
    yield _open_files(_files_limit(daemon), backends)
    yield _clock(_clock_status())


def _kernel(release: str) -> Finding:
    return judge("kernel", not kernel.is_too_old(release), release, kernel.NEEDED)


def _bcc() -> Finding:
    """Look for bcc as the compiling child does: where this Python sees it, or Debian put it."""
    places = [
        Path(found.origin).parent
        for found in (find_spec("bcc"),)
        if found is not None and found.origin is not None
    ]
    places.append(Path("/usr/lib/python3/dist-packages/bcc"))
    # PyPI's package of that name has no libbcc.py: it is about crystal lattices.
    place = next((each for each in places if (each / "libbcc.py").exists()), None)
    found = str(place) if place else "none, or another package of that name"
    return judge("bcc for Python", place is not None, found, "apt install python3-bpfcc")


def _headers() -> Finding:
    header = Path("/usr/include/linux/bpf.h")
    found = str(header) if header.exists() else f"no {header}"
    return judge("C headers of Linux", header.exists(), found, "apt install linux-libc-dev")


def _capabilities(status: str) -> Finding:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    has = int(match[1], 16) if match else 0
    missing = sorted(f"CAP_{each.name}" for each in NEEDED | TO_COMPILE if not has >> each & 1)
    found = f"{', '.join(missing)} missing" if missing else "all that it takes"
    # Without it, traffic is balanced; a file of another user's may be read half written.
    otherwise = State.WARN if missing == [f"CAP_{Capability.LEASE.name}"] else State.FAIL
    remedy = "run as root, or by LLB's unit of systemd"
    return judge("capabilities", not missing, found, remedy, otherwise)


def _bpffs(mounts: str) -> Finding:
    is_mounted = re.search(r"^\S+ /sys/fs/bpf bpf ", mounts, re.MULTILINE) is not None
    found = "/sys/fs/bpf" if is_mounted else "not mounted"
    return judge("BPF file system", is_mounted, found, "llb run mounts it", State.WARN)


def _files_limit(daemon: int | None) -> int:
    """Return how many files the daemon may have open. One that is to start raises its soft limit to
    the hard one, which it has from whoever starts it."""
    with contextlib.suppress(OSError, ValueError):  # It has ended meanwhile, or knows no limit.
        text = Path(f"/proc/{daemon}/limits").read_text()
        if match := re.search(r"^Max open files\s+(\S+)", text, re.MULTILINE):
            return resource.RLIM_INFINITY if match[1] == "unlimited" else int(match[1])
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _open_files(limit: int, backends: int) -> Finding:
    """A check is a socket, and one that takes long does not hold up the next."""
    wanted = max(_ENOUGH_FILES, 256 + 4 * backends)
    return judge(
        "open files",
        limit in (resource.RLIM_INFINITY, -1) or limit >= wanted,
        f"{limit} may be open" + (f", {wanted} may be needed" if limit < wanted else ""),
        f"LimitNOFILE={wanted} in the unit of systemd, or ulimit -Hn {wanted}, and a restart",
        State.WARN,
    )


def _clock_status() -> int:
    """Return the kernel's status of its clock (adjtimex(2)); 0 where it does not say."""
    timex = ctypes.create_string_buffer(_TIMEX_SIZE)
    if ctypes.CDLL(None).adjtimex(timex) < 0:
        return 0
    return int(ctypes.c_int.from_buffer(timex, _TIMEX_STATUS).value)


def _clock(status: int) -> Finding:
    is_set = not status & _STA_UNSYNC
    return judge(
        "clock",
        is_set,
        "it is kept right" if is_set else "nobody keeps it right: times in logs can't be compared",
        "apt install systemd-timesyncd, or chrony",
        State.WARN,
    )
