"""The parts of a running daemon, as those that work on them share them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from llb_core.collection import CollectReport
from llb_core.config import Config
from llb_core.core_loop import CoreLoop
from llb_core.datapath import Datapath
from llb_core.event_hub import EventHub
from llb_core.health.checker import HealthChecker
from llb_core.known_routes import KnownRoutes
from llb_core.map_sync import MapSync
from llb_core.meters import Meters
from llb_core.orders import Orders
from llb_core.recent import RecentEvents
from llb_core.report import Report
from llb_core.samples import Samples
from llb_core.source import Source


@dataclass(slots=True)
class Running:
    """The parts, and what they last found. `config` and `sources` are replaced by a reload."""

    config: Config
    datapath: Datapath
    map_syncs: dict[int, MapSync]
    """By address family: those that the datapath has open."""
    orders: Orders
    checker: HealthChecker
    routes: KnownRoutes
    core: CoreLoop
    meters: Meters
    hub: EventHub = field(default_factory=EventHub)
    sources: list[Source] = field(default_factory=list)
    report: Report | None = None
    turned_at: float | None = None
    installs: int = 0
    """Turns that changed something."""
    collected: dict[int, CollectReport] = field(default_factory=dict)
    """By address family, what the last pass over its connections found."""
    samples: Samples = field(default_factory=Samples)
    events: RecentEvents = field(default_factory=RecentEvents)
    listen_error: str = ""
    """Why the page and the metrics are not where the configuration wants them."""
    started: float = field(default_factory=time.time)

    def complain_of_listening(self, error: str) -> None:
        """Note why the page and the metrics are not there; nothing where they are."""
        self.listen_error = error
