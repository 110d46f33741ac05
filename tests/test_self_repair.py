"""What is said of things that somebody changes: at once, and not over and over."""

from __future__ import annotations

import pytest

from llb_core.self_repair import Teller
from llb_core.testing import Clock


def test_the_same_is_told_once_a_minute_with_how_often_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    teller = Teller(clock)

    def look(*texts: str) -> list[str]:
        caplog.clear()
        for text in texts:
            teller.tell(text)
        teller.tell_suppressed()
        return caplog.messages

    assert look("the filter is gone") == ["the filter is gone"]
    for _ in range(30):
        clock.now += 1
        assert look("the filter is gone") == []
    assert look("the address is gone") == ["the address is gone"]
    clock.now += 30
    assert look() == ["the filter is gone (30 times in the last minute)"]
    clock.now += 60
    assert look() == []
    assert look("the filter is gone") == ["the filter is gone"]
