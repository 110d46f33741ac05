"""What is done again and again is done together."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from llb_core.pauses import until_together


@pytest.mark.parametrize(
    ("now", "pause", "until"),
    [
        (100.0, 1.0, 101.0),
        (100.4, 1.0, 101.0),
        (100.6, 1.0, 102.0),
        (100.7, 2.0, 102.0),
        (101.7, 2.0, 104.0),
        (100.1, 0.5, 100.5),
    ],
)
async def test_until_the_next_multiple_that_is_half_a_pause_away(
    now: float, pause: float, until: float
) -> None:
    with patch.object(asyncio.get_running_loop(), "time", lambda: now):
        wait = until_together(pause)
    assert now + wait == pytest.approx(until)
