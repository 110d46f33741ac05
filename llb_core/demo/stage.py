"""The demo from the empty stage to the empty stage: network, servers, daemon, story, removal."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from llb_core.demo.story import Listener, Outcome, tell
from llb_core.errors import LLBError


class Audience(Listener, Protocol):
    """A listener that also hears of what comes before and after the story."""

    def step(self, what: str) -> None: ...


def perform(audience: Audience) -> Outcome:
    """Set everything up, tell the story, and leave nothing behind, however it ends."""
    audience.step("making the network: two clients, a load balancer, three backends")
    with Network() as network, tempfile.TemporaryDirectory(prefix="llb-demo-") as folder:
        lab.forget_leftovers()
        hosts = lab.build(network, clients=2, backends=3)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, Path(folder))
        try:
            balancer.write_config()
            balancer.write_backends(hosts.backends)
            audience.step("starting the daemon: llb run")
            balancer.start()
            wait_until(
                lambda: all(map(balancer.is_active, hosts.backends)), 10, "all backends healthy"
            )
            outcome = tell(hosts, balancer, audience)
            audience.step("taking everything away: llb detach")
            balancer.stop()
            balancer.llb("detach")
        except TimeoutError as error:
            raise LLBError(f"demo: {error}; the daemon said:\n{balancer.last_words()}") from None
        finally:
            balancer.remove()
    return outcome
