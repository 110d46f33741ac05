"""What is made ahead comes in order, with its errors, and no further than one ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llb_core.datapath.ahead import ahead


def test_everything_comes_in_order() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter(()))) == []


def test_an_error_comes_where_it_arose() -> None:
    def each() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    coming = ahead(each())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)


def test_the_next_is_made_meanwhile_and_not_the_one_after() -> None:
    made = [threading.Event() for _ in range(3)]

    def each() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    coming = ahead(each())
    assert next(coming) == 0
    assert made[1].wait(10)
    assert not made[2].is_set()
    coming.close()  # type: ignore[attr-defined]
    assert not [each for each in threading.enumerate() if "ThreadPool" in each.name]
