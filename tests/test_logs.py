"""Sentences for a person, JSON for a program."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core import logs

log = logging.getLogger("llb_core.tests")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written() -> None:
    """Wait until all that was logged is written."""
    for handler in logging.getLogger().handlers:
        handler.flush()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if isinstance(handler, logs.PatientHandler):
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("llb_core", "llb_providers"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_person_reads_sentences() -> None:
    terminal = Terminal()
    logs.set_up(stream=terminal)
    log.info("web: %d backends", 3)
    log.warning("web: none left")
    written()
    first, second = terminal.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d web: 3 backends", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: web: none left", second)


def test_a_program_reads_json_a_line() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream, form=logs.LogFormat.JSON)
    log.info("web: %d\nbackends", 3)
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        log.exception("failed")
    written()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["message"] == "web: 3\nbackends"
    assert first["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert second["exception"].endswith("ZeroDivisionError: oh")


@pytest.mark.parametrize(("verbose", "lines"), [(False, 0), (True, 1)])
def test_details_are_for_whoever_asks(verbose: bool, lines: int) -> None:
    stream = io.StringIO()
    logs.set_up(verbose=verbose, stream=stream)
    log.debug("detail")
    logging.getLogger("asyncio").info("not ours")
    written()
    assert len(stream.getvalue().splitlines()) == lines


def test_a_file_has_dates() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream)
    log.info("web: 3 backends")
    written()
    line = stream.getvalue()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d web: 3 backends\n", line)


@pytest.mark.parametrize("form", [logs.LogFormat.AUTO, logs.LogFormat.JSON])
def test_the_journal_gets_json_with_a_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: logs.LogFormat
) -> None:
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.set_up(stream=journal, form=form)
        log.warning("web: none left")
        log.info("web: 3 backends")
        written()
    first, second = (tmp_path / "journal").read_text().splitlines()
    assert first.startswith('<4>{"time": ')
    assert json.loads(second.removeprefix("<6>"))["message"] == "web: 3 backends"


def test_another_stream_than_the_journals_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "log").open("w") as stream:
        logs.set_up(stream=stream)
        log.info("web: 3 backends")
        written()
    assert (tmp_path / "log").read_text().endswith(" web: 3 backends\n")


class Stuck(io.StringIO):
    """Whoever reads it has stopped, until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.is_stuck = threading.Event()

    def write(self, text: str) -> int:
        self.is_stuck.set()
        assert self.go.wait(10)
        return super().write(text)


def test_a_reader_that_stands_still_costs_lines_that_are_counted_and_told() -> None:
    stream = Stuck()
    logs.set_up(stream=stream, room=10)
    log.info("the first")
    assert stream.is_stuck.wait(5)
    for number in range(100):
        log.info("line %d", number)  # Returns at once, or this test never ends.
    assert logs.lines_lost() == 90
    stream.go.set()
    written()
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(" the first")
    assert sum(" line " in line for line in lines) == 10
    (told,) = (line for line in lines if "lost" in line)
    assert told.endswith("warning: 90 lines of this log are lost: it is read too slowly")


def test_lines_wait_in_little_space_however_long_they_are() -> None:
    stream = Stuck()
    logs.set_up(stream=stream)
    log.info("the first")
    assert stream.is_stuck.wait(5)
    for _ in range(10):
        log.info("long: %s", "." * (logs.SPACE // 4))
    assert logs.lines_lost() == 7
    stream.go.set()
    written()
    log.info("the last")
    written()
    assert stream.getvalue().endswith(" the last\n"), "there is space again"


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with Path("/dev/full").open("w") as stream:
        handler = logs.set_up(stream=stream)
        log.info("lost")
        written()
        handler.close()
        assert handler.lost == 1
        with contextlib.suppress(OSError):
            stream.close()


def test_a_process_that_ends_has_written_everything(tmp_path: Path) -> None:
    program = """if True:
        import logging
        from llb_core import logs
        logs.set_up(form=logs.LogFormat.JSON)
        for number in range(5000):
            logging.getLogger("llb_core.x").info("line %d", number)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert lines == [f"line {number}" for number in range(5000)]
