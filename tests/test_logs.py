"""Sentences for a person, JSON for a program."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from llb_core import logs

log = logging.getLogger("llb_core.tests")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("llb_core", "llb_providers"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_person_reads_sentences() -> None:
    terminal = Terminal()
    logs.set_up(stream=terminal)
    log.info("web: %d backends", 3)
    log.warning("web: none left")
    first, second = terminal.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d web: 3 backends", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning: web: none left", second)


def test_a_program_reads_json_a_line() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream)
    log.info("web: %d\nbackends", 3)
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        log.exception("failed")
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
    assert len(stream.getvalue().splitlines()) == lines
