"""What is said where somebody interrupts a command: the daemon may carry it out all the same."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from llb_core.cli import show
from llb_core.cli.options import DEFAULT_CONFIG


@contextmanager
def telling(what: str, *command: str, config: Path) -> Iterator[Callable[[str], None]]:
    """Say, where it is interrupted, what may be, and the command that takes it back or shows it.

    Yields what to call with other words for `what` once more is known.
    """

    def is_known(better: str) -> None:
        nonlocal what
        what = better

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield is_known
    except (KeyboardInterrupt, SystemExit):
        of = [] if config == DEFAULT_CONFIG else ["--config", str(config)]
        show.remark(f"nobody waits any more, and {what}: {shlex.join(['llb', *command, *of])}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
