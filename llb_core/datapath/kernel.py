"""The oldest kernel that LLB names; docs/datapath.md says what is newer than that in which one."""

from __future__ import annotations

import re

OLDEST = (6, 1)
NEEDED = f"LLB needs Linux {OLDEST[0]}.{OLDEST[1]} or newer"


def is_too_old(release: str) -> bool:
    """Say whether a release (uname -r) is older than that, or says nothing."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return match is None or (int(match[1]), int(match[2])) < OLDEST
