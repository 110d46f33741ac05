"""LLB is upgraded to one whose maps have another layout: connections go on."""

from __future__ import annotations

import pytest

from llb_core import config
from llb_core.datapath import Datapath, pins
from llb_core.datapath.old_layouts import OLD_LAYOUTS
from llb_core.demo import lab
from tests.earlier_layouts import pin_as_layout
from tests.netns.conftest import Balance
from tests.netns.test_outlives import say

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("version", [min(OLD_LAYOUTS), max(OLD_LAYOUTS)])
def test_a_connection_outlives_an_upgrade_from_an_earlier_layout(
    balance: Balance, version: int
) -> None:
    balancer = balance()
    with balancer.lab.client.socket() as sock:
        sock.connect((lab.VIP, lab.PORT))
        assert say(sock, "before") == "before"
        balancer.kill()
        reading = Datapath.open_reading(config.load(balancer.config).loadbalancer)
        families = {family: each.maps for family, each in reading.families.items()}
        made = pin_as_layout(version, balancer.name, families)
        reading.close()
        for maps in made.values():
            for each in maps.values():
                each.close()
        assert say(sock, "meanwhile") == "meanwhile"

        balancer.start()

        assert say(sock, "after") == "after"
        assert pins.old_versions(balancer.name) == []
        (line,) = [each for each in balancer.log.read_text().splitlines() if "carried" in each]
        assert f"over from maps of layout {version}" in line
        assert balancer.lab.client.run("curl", "-sS", "-m", "5", balancer.lab.url).stdout
    balancer.kill()
    balancer.start()
    assert balancer.lab.client.run("curl", "-sS", "-m", "5", balancer.lab.url).stdout
