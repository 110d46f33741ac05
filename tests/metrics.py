"""Read a metric of a running daemon."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from llb_core.api.client import Client


def read_metric(control: Client, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of that name, by the values of their labels."""
    text = b"".join(control.stream("/metrics")).decode()
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }
