"""A soak of some seconds, and what one holds the balancer to: `make soak` runs it for longer."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import pytest

from tests.netns.conftest import Balance
from tests.soak.__main__ import soak
from tests.soak.invariants import Footprint, growth
from tests.soak.orders import OrderFailed, Orders

SECONDS = 6.0
"""What happens is begun until then."""


@pytest.mark.parametrize(
    ("samples", "grown"),
    [([7, 7, 7, 7], 0), ([1, 2, 3, 4], 3), ([5, 9, 5, 9, 5], 0), ([4, 3, 2, 1], -3)],
)
def test_growth_is_that_of_a_line_through_all_samples(samples: list[int], grown: float) -> None:
    assert growth(samples) == pytest.approx(grown, abs=1e-9)


def test_a_daemon_that_grows_is_found_and_one_that_warms_up_is_not() -> None:
    warming = [60.0, 70.0, 80.0, 88.0, *[90.0] * 20]
    assert Footprint(1, warming, [50] * 24).complaints() == []
    (complaint,) = Footprint(1, [float(60 + each) for each in range(24)], [50] * 24).complaints()
    assert complaint.startswith("the daemon's memory in MiB grew by 17.0")
    (complaint,) = Footprint(1, warming, list(range(50, 74))).complaints()
    assert complaint.startswith("the daemon's open files grew by 17.0")


@pytest.mark.netns
def test_an_order_that_hangs_is_told_from_a_slow_one(balance: Balance) -> None:
    balancer = balance()
    orders = Orders(balancer, slow=0)
    orders.give("reload")
    (slow,) = orders.slow
    assert re.fullmatch(r"reload took \d+\.\d s", slow)
    with pytest.raises(OrderFailed, match=r"reload: hangs: no end after .* s, and .* answers$"):
        Orders(balancer, limit=0.01).give("reload")
    balancer.kill()
    with pytest.raises(OrderFailed, match=r"reload: exit code 1 after .* does not answer: .*/run"):
        orders.give("reload")


@pytest.mark.netns
def test_some_happenings_find_nothing(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    said: list[str] = []
    assert soak(SECONDS, seed, tmp_path, said.append) == [], "\n".join(said)
