"""Where the daemon's sentences go: readable for a person, as lines of JSON for a program.

Whoever logs never waits for whoever reads: lines go through a bounded queue to a thread that writes
them. A terminal that stands still, a full disk or thousands of lines a second cost lines, which are
counted and told, and neither time nor memory. What is said, and when, is each module's own
business: `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import queue
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TextIO

from llb_core import capabilities

ROOM = 10_000
"""Lines that may wait to be written."""
SPACE = 8 << 20
"""Characters that they may have together."""
CLOSE_LIMIT = 1.0
"""Seconds that the end of the process waits for lines to be written."""


class LogFormat(enum.StrEnum):
    """How lines are written."""

    AUTO = "auto"
    """JSON where the stream leads to the journal, and text elsewhere."""
    TEXT = "text"
    JSON = "json"


_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog(3)


def set_up(
    *,
    verbose: bool = False,
    stream: TextIO | None = None,
    form: LogFormat = LogFormat.AUTO,
    room: int = ROOM,
) -> PatientHandler:
    """Send what LLB logs to `stream` (standard error) from now on.

    Close what is returned, or end the process, to have everything written.
    """
    stream = stream or sys.stderr
    is_journal = _leads_to_journal(stream)
    formatter: logging.Formatter = ReadableFormatter(with_date=not stream.isatty())
    if form is LogFormat.JSON or (form is LogFormat.AUTO and is_journal):
        formatter = JsonFormatter(with_priority=is_journal)
    handler = PatientHandler(stream, formatter, room)
    handler.addFilter(is_ours_or_serious)
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    return handler


def lines_lost() -> int:
    """Return how many lines of this process were never written."""
    return sum(
        handler.lost
        for handler in logging.getLogger().handlers
        if isinstance(handler, PatientHandler)
    )


def is_ours_or_serious(record: logging.LogRecord) -> bool:
    """Let LLB and its providers speak, and other libraries only where something is wrong."""
    return record.name.startswith("llb_") or record.levelno >= logging.WARNING


def _leads_to_journal(stream: TextIO) -> bool:
    """Say whether systemd connected the stream to its journal, as systemd.exec(5) has it."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class PatientHandler(logging.Handler):
    """Writes in a thread of its own; keeps `room` lines and SPACE characters at most, and counts
    the lines that it can't keep."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter, room: int = ROOM) -> None:
        super().__init__()
        self.lost = 0
        """Lines that found no room, or could not be written."""
        self._stream = stream
        self._told = 0
        self._waiting: queue.Queue[str | None] = queue.Queue(room)
        self._taken = self._written = 0
        """Characters, counted by those who log, one at a time, and by the thread that writes."""
        self.setFormatter(formatter)
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; never wait."""
        if self._waiting.full():  # It need not be put into words.
            self.lost += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)
            return
        try:
            if self._taken + len(line) - self._written > SPACE:
                raise queue.Full
            self._waiting.put_nowait(line)
            self._taken += len(line)
        except queue.Full:
            self.lost += 1

    def flush(self) -> None:
        """Wait, a moment at most, until what was logged is written."""
        end = time.monotonic() + CLOSE_LIMIT
        while self._waiting.unfinished_tasks and self._thread.is_alive():
            if time.monotonic() > end:
                return
            time.sleep(0.001)

    def close(self) -> None:
        """Write what waits, a moment at most, and end the thread."""
        self.flush()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(0.1)
        super().close()

    def _write_all(self) -> None:
        capabilities.keep_only()  # This thread is there before the daemon gives them up.
        while (line := self._waiting.get()) is not None:
            if self.lost > self._told and self._waiting.qsize() < self._waiting.maxsize // 2:
                number, self._told = self.lost - self._told, self.lost
                self._write(
                    self._line(f"{number} lines of this log are lost: it is read too slowly")
                )
            self._write(line)
            self._written += len(line)
            self._waiting.task_done()

    def _line(self, text: str) -> str:
        return self.format(
            logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
        )

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # The disk is full, or nobody reads any more.
            self.lost += 1


class ReadableFormatter(logging.Formatter):
    """`12:03:04 web: 3 backends`, with the date where it is kept; what is worse than information
    says so before."""

    def __init__(self, *, with_date: bool = False) -> None:
        time_format = "%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S"
        super().__init__("%(asctime)s %(mark)s%(message)s", time_format)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        is_ordinary = record.levelno <= logging.INFO
        record.mark = "" if is_ordinary else f"{record.levelname.lower()}: "
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, and exception where there is one.

    With its priority before it, as the journal takes it (sd-daemon(3)): `journalctl -p warning`.
    """

    def __init__(self, *, with_priority: bool = False) -> None:
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": level,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        priority = f"<{_PRIORITIES.get(level, 6)}>" if self._with_priority else ""
        return priority + json.dumps(line, ensure_ascii=False)
