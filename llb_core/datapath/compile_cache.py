"""What was compiled, kept on the disk: the same text with the same settings is compiled once.

So a restart takes a second where it would take ten, and needs no compiler. A file that is damaged,
or that somebody else could have written, counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llb_core import durable
from llb_core.datapath.compiled import Compiled

FOLDER = Path("/var/cache/llb")
MOST = 32
"""Files that are kept, the newest."""
_FORMAT = 1


def key_of(request: Mapping[str, Any], headers: Path) -> str:
    """Return what stands for all that decides what clang makes of a request."""
    ours = {str(path.relative_to(headers)): path.read_text() for path in headers.rglob("*.h")}
    host = [platform.machine(), platform.release()]
    whole = json.dumps([_FORMAT, host, ours, dict(request)], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def find(key: str) -> Compiled | None:
    """Return what was kept under a key."""
    try:
        if not (_is_ours(FOLDER) and _is_ours(_path(key))):
            return None
        digest, _, text = _path(key).read_text().partition("\n")
        if digest != hashlib.sha256(text.encode()).hexdigest():
            return None
        return Compiled.from_json(text)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(key: str, compiled: Compiled) -> None:
    """Keep it, where there is room for it; without, it is compiled again the next time."""
    text = compiled.to_json()
    with contextlib.suppress(OSError):
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(FOLDER):
            return
        digest = hashlib.sha256(text.encode()).hexdigest()
        durable.write(_path(key), f"{digest}\n{text}", mode=0o600)
        files = sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[MOST:]:
            path.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return FOLDER / f"{key}.json"


def _is_ours(path: Path) -> bool:
    """Say whether nobody but us, and root, can have written it."""
    found = path.lstat()
    is_link = stat.S_ISLNK(found.st_mode)
    return not is_link and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
