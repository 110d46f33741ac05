"""Write metrics as text, in the format that Prometheus reads. Pure.

`prometheus_client` takes a second for ten thousand backends; here a family is written as a whole,
by labels that are escaped but once (docs/decisions/metrics-text.md).

https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Number = int | float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, as it is written, what kind it is, and what it says."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str

    def write(self, samples: Iterable[tuple[str, Number | None]]) -> str:
        """Return the family: labels as `labels` gives them, and values; None is left out."""
        name = self.name
        lines = [f"{name}{labels} {value}\n" for labels, value in samples if value is not None]
        if not lines:
            return ""
        return (
            f"# HELP {name} {_escape_help(self.text)}\n# TYPE {name} {self.kind}\n{''.join(lines)}"
        )


def labels(values: Mapping[str, str]) -> str:
    """Return labels as they are written: `{service="web",backend="10.0.0.2:80"}`."""
    inner = ",".join(f'{name}="{_escape(value)}"' for name, value in values.items())
    return f"{{{inner}}}" if inner else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
