"""What the page is told: of many rows those that are looked at, and what needs a look."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llb_core.api import page
from llb_core.api.page.drops import meaning
from llb_core.api.page.live import ROWS, Look, Moment, live
from llb_core.api.views import Observed, backend_views
from llb_core.datapath.layout import Verdict
from llb_core.recent import KEPT, Event, RecentEvents
from llb_core.samples import Samples
from tests.api.observed import observed, status_view

CSS = (Path(page.__file__).parent / "page.css").read_text()


def moment(seen: Observed, warnings: tuple[str, ...] = (), **status: Any) -> Moment:
    samples = Samples()
    counted = [(each.installed, each.counters) for each in seen.families]
    samples.add(0.0, counted)
    samples.add(2.0, counted)
    view = status_view(seen) | {"connections": 3, "max_connections": 1000} | status
    events = [Event(1, 1_000_000.0, "info", "web: 3 backends")]
    return Moment(view, backend_views(seen), samples, events, warnings, 1_000_060.0)


def shown(seen: Observed, warnings: tuple[str, ...] = (), **query: str) -> Any:
    return json.loads(live(moment(seen, warnings), Look.of(query)))


def test_shows_the_first_rows_and_says_how_many_there_are() -> None:
    answer = shown(observed(services=100, backends=10))
    assert len(answer["services"]["rows"]) == len(answer["backends"]["rows"]) == ROWS
    assert (answer["services"]["count"], answer["backends"]["count"]) == (100, 1000)
    assert answer["services"]["pages"] == 4
    assert answer["backends"]["rows"][0]["past"] == {
        name: [0.0] for name in ("opened", "packets", "bytes", "drops")
    }


def test_a_page_beyond_the_last_is_the_last() -> None:
    answer = shown(observed(services=3, backends=10), backends_page="99")
    assert answer["backends"]["page"] == 1
    assert len(answer["backends"]["rows"]) == 5


@pytest.mark.parametrize("family", [4, 6])
def test_sorts_backends_by_number_not_by_text(family: int) -> None:
    rows = shown(observed(1, 12, family), backends_order="-backend")["backends"]["rows"]
    ports = [re.sub(r"\D", " ", each["backend"]).split()[-2] for each in rows]
    assert [each["backend"] for each in rows] == [
        each["backend"] for each in reversed(backend_views(observed(1, 12, family)))
    ]
    assert ports[0] != ports[-1]


def test_finds_backends_by_service_text_and_trouble() -> None:
    seen = observed(services=4, backends=10)
    assert shown(seen, service="service-2")["backends"]["count"] == 10
    assert shown(seen, text="REFUSED")["backends"]["count"] == 4
    assert shown(seen, text="10.0.0.1")["backends"]["count"] == 10
    assert shown(seen, only_troubled="1", service="service-2")["backends"]["count"] == 1
    assert shown(seen, text="nothing of that kind")["backends"]["rows"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"services_page": "-1"},
        {"backends_page": "x"},
        {"backends_page": "9" * 4000},
        {"services_order": "__class__"},
        {"backends_order": "--"},
        {"text": "x" * 10_000, "service": "<script>"},
    ],
    ids=str,
)
def test_a_query_without_sense_breaks_nothing(query: dict[str, str]) -> None:
    assert shown(observed(), **query)["services"]["count"] == 2


def test_troubles_come_the_worst_first_and_say_why() -> None:
    seen = observed(services=2, backends=20)
    texts = [each["text"] for each in shown(seen, ("the table is full",))["troubles"]]
    assert texts[0] == "the table is full"
    assert (
        "service-1: 2 of 20 backends unhealthy "
        "(connection refused: 10.0.0.11:8080, 10.0.0.21:8080)" in texts
    )
    assert any(text.startswith('service-1: provider od"d') for text in texts)
    none = observed(services=1, backends=0)
    assert shown(none)["troubles"][0] == {
        "level": "error",
        "service": "service-1",
        "text": "service-1: no backend takes connections",
    }


def test_drops_are_told_with_what_they_mean() -> None:
    (drop,) = shown(observed())["drops"]
    assert drop == {
        "reason": "no_port",
        "meaning": meaning("no_port"),
        "packets": 2,
        "past": [0.0],
    }


def test_every_reason_for_drops_has_a_sentence() -> None:
    reasons = [each.name.lower() for each in Verdict if each.name.startswith(("DROP_", "REFUSE_"))]
    assert [each for each in reasons if not meaning(each.removeprefix("drop_"))] == []


def test_events_are_the_newest_and_bounded() -> None:
    events = RecentEvents()
    for number in range(KEPT + 10):
        events.add(f"event {number}")
    newest = events.newest(3)
    assert [each.text for each in newest] == [f"event {KEPT + n}" for n in (9, 8, 7)]
    assert len(events.newest()) == KEPT


def test_connections_are_among_the_events_where_they_are_wanted() -> None:
    connections = [Event(-n, 1_000_000.0 + n, "info", f"connection {n}") for n in range(99, 0, -1)]
    answer = json.loads(live(moment(observed()), Look.of({"connections": "1"}), connections))
    assert [each["text"] for each in answer["events"][:2]] == ["connection 99", "connection 98"]
    assert answer["events"][-1]["text"] == "web: 3 backends", "they push no others out"
    assert len(answer["events"]) == 31
    assert len({each["number"] for each in answer["events"]}) == 31
    assert not Look.of({}).connections


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("text", "ground"),
        ("text", "surface"),
        ("text", "warn-soft"),
        ("text", "bad-soft"),
        ("quiet", "ground"),
        ("quiet", "surface"),
        ("accent", "ground"),
        ("warn", "surface"),
        ("bad", "surface"),
    ],
)
def test_text_can_be_read(scheme: str, text: str, ground: str) -> None:
    """4.5 to 1 is what WCAG 2.1 AA asks for."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", blocks[scheme == "dark"]))
    assert contrast(colours[text], colours[ground]) >= 4.5
