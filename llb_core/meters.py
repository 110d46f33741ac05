"""Count and time what the daemon does, for its metrics. What they are named and mean stands in
docs/metrics.md; what is read from the maps is not here but in `api.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from llb_core import logs

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

STEPS = ("gather", "plan", "apply", "collect", "routes", "sample", "scrape")


class _LinesLost(Collector):
    """What the log itself has counted."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "llb_log_lines_lost", "Lines of the log that were never written.", logs.lines_lost()
        )


class Meters:
    """One daemon's meters, in a registry of their own: several may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._steps = Histogram(
            "llb_loop_step_duration_seconds",
            "How long a step took that the daemon does again and again.",
            ("step",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        for step in STEPS:
            self._steps.labels(step)  # From the start at 0, so that a rate is known at once.
        self.turns = self._count("llb_turns", "Turns of the loop, by how they ended.", "outcome")
        for outcome in ("unchanged", "changed", "failed"):
            self.turns.labels(outcome)
        self.transitions = self._count(
            "llb_health_transitions", "Times that a backend turned, by what it turned.", "health"
        )
        for health in ("healthy", "unhealthy"):
            self.transitions.labels(health)
        self.collected = self._count(
            "llb_collected_connections", "Connections that were over, and removed."
        )
        self.lone_halves = self._count(
            "llb_lone_halves", "Entries of a connection without the other one, and removed."
        )
        self.past_connections = Gauge(
            "llb_past_connections",
            "Connections that are over, and are remembered.",
            ("family",),
            registry=self.registry,
        )
        self.registry.register(_LinesLost())
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def timed(self, step: str) -> AbstractContextManager[object]:
        """Time what is done inside; `step` is one of STEPS."""
        return self._steps.labels(step).time()

    def _count(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
