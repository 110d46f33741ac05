"""A daemon whose looks at the maps are still under way when it is told to stop.

As a program: `python -m tests.lingering collect|turn llb-arguments…` is `llb`, whose second
collection, or turn, goes on only once it stops, and says on standard error how far it came.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llb_core import cli, core_loop, init_system
from llb_core.datapath import Datapath
from llb_core.map_sync import MapSync

WORK = {
    "collect": (MapSync, "collect"),
    "turn": (core_loop, "turn"),
}
PATIENCE = 1.0
"""Seconds that it lingers, where the maps are not closed before."""


def linger(name: str) -> None:
    """Have that work of this process linger, for good."""
    stopping, closed = threading.Event(), threading.Event()
    of, attribute = WORK[name]
    work: Callable[..., Any] = getattr(of, attribute)
    close, tell = Datapath.close, init_system.tell
    began = threading.Event()

    def lingering(*args: Any, **more: Any) -> Any:
        if not began.is_set():  # The first is for the start.
            began.set()
            return work(*args, **more)
        say(f"{name}: begun")
        stopping.wait()
        closed.wait(PATIENCE)
        try:
            result = work(*args, **more)
        except BaseException as error:
            say(f"{name}: failed: {type(error).__name__}: {error}")
            raise
        say(f"{name}: {'after the end' if closed.is_set() else 'to its end'}")
        return result

    def closing(datapath: Datapath) -> None:
        close(datapath)
        closed.set()

    def telling(state: str) -> None:
        tell(state)
        if state == "STOPPING=1":
            stopping.set()

    setattr(of, attribute, lingering)
    Datapath.close = closing  # type: ignore[method-assign]
    init_system.tell = telling


def say(text: str) -> None:
    print(f"lingering: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run `llb`, and linger."""
    linger(sys.argv[1])
    sys.argv[:] = ["llb", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
