"""Call `llb` as a shell does, in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from llb_core.cli import main


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    code: int
    out: str
    err: str


Llb = Callable[..., Called]


@pytest.fixture
def llb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Llb]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["llb", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        captured = capsys.readouterr()
        return Called(code, captured.out, captured.err)

    yield call
    # `llb run` sets up logs for its own process, on a standard error that ends with the test.
    root.handlers[:] = handlers
    root.setLevel(level)
