"""Where the daemon's sentences go: to a person on a terminal, to a program as lines of JSON.

What is said, and when, is each module's own business: `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO


def set_up(*, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send what LLB logs to `stream` (standard error), readable or as JSON by what that is."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ReadableFormatter() if stream.isatty() else JsonFormatter())
    handler.addFilter(is_ours_or_serious)
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)


def is_ours_or_serious(record: logging.LogRecord) -> bool:
    """Let LLB and its providers speak, and other libraries only where something is wrong."""
    return record.name.startswith("llb_") or record.levelno >= logging.WARNING


class ReadableFormatter(logging.Formatter):
    """`12:03:04 web: 3 backends`; what is worse than information says so before."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(mark)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        is_ordinary = record.levelno <= logging.INFO
        record.mark = "" if is_ordinary else f"{record.levelname.lower()}: "
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
