"""Keep Python's collector of cycles still while much is made that is soon gone again, or stays.

A full collection looks at every object of the process, and nothing else runs meanwhile: with ten
thousand backends that holds the event loop up for 200 ms. What is made and gone within one answer
needs none, but enough of it brings one about. So does what is made and stays: the modules that a
command imports.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MADE = 100_000
"""Objects made, and still there, after which the collector looks at them: a turn makes ten for each
new backend, and none of those is ever in a cycle."""
_lock = threading.Lock()
_working = 0


def spare_what_is_there() -> None:
    """Have collections pass over all that has been made by now, which is there to stay, and happen
    less often: a look at what the modules alone are made of takes 80 ms."""
    gc.freeze()
    gc.set_threshold(_MADE, *gc.get_threshold()[1:])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no collection happen until all who asked for it have done; from several threads."""
    global _working
    with _lock:
        _working += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _working -= 1
            if not _working:
                gc.enable()
