"""Do two things at a time: read on from the kernel while what was read is dealt with."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(each: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields, which meanwhile makes the next in a thread. That is of use
    where it waits, or works without Python's lock as a call of the kernel does."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, each, end)
        while (one := coming.result()) is not end:
            coming = thread.submit(next, each, end)
            yield one  # type: ignore[misc]
