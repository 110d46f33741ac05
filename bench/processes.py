"""What processes have used so far, as the kernel tells it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Seconds of the processor that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident(pid: int, key: Literal["VmRSS", "VmHWM"]) -> float:
    """MiB that a process has resident, or had at most."""
    return int(Path(f"/proc/{pid}/status").read_text().split(f"{key}:")[1].split()[0]) / 1024


def proportional(pid: int) -> float:
    """MiB that a process has resident; of what it shares, its part."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("Pss:")[1].split()[0]) / 1024
