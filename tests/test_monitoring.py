"""The dashboard and the alert rules among the examples ask for nothing that there is not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llb_core.datapath.layout import Verdict
from llb_core.meters import STEPS
from llb_core.model import BackendMode
from llb_core.planning.states import ConnectionState

FOLDER = Path(__file__).parents[1] / "examples" / "monitoring"
PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_A_SCRAPE = {"instance", "job"}
VALUES = {
    "mode": {*map(str, BackendMode), "waiting"},
    "reason": {each.name.lower().removeprefix("drop_") for each in Verdict},
    "verdict": {each.name.lower() for each in Verdict},
    "state": {each.name.lower() for each in ConnectionState},
    "table": {"connections", "services", "backends"},
    "family": {"ipv4", "ipv6"},
    "direction": {"in", "out"},
    "step": set(STEPS),
    "outcome": {"unchanged", "changed", "failed"},
    "health": {"healthy", "unhealthy"},
    "job": {"llb"},
}
WORDS = {"by", "on", "ignoring", "without", "or", "and", "unless", "group_left", "group_right"}


def documented() -> dict[str, set[str]]:
    """The labels of every metric, as they may stand in a query. What the page lists is what there
    is: tests/netns/test_metrics.py holds it against a real daemon."""
    found = dict(OF_PROMETHEUS)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    for name, kind, text in rows:
        labels = {*re.findall(r"`(\w+)`", text), *OF_A_SCRAPE}
        if kind == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels}
            name += "_count"
        found[name] = labels
    return found


def selectors(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield each metric that a query names, with its matchers: label, operator, value."""
    plain = re.sub(r"\[[^\]]*\]", "", query)
    plain = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", "", plain)
    for found in re.finditer(r"([a-z_][a-z0-9_]*)\s*(\{([^}]*)\})?(\s*\()?", plain):
        name, _, inner, is_function = found.groups()
        if is_function or name in WORDS or _is_in_braces(plain, found.start()):
            continue
        yield name, re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', inner or "")


def _is_in_braces(text: str, place: int) -> bool:
    return text.rfind("{", 0, place) > text.rfind("}", 0, place)


def grouped(query: str) -> set[str]:
    """Return the labels that a query groups or joins by."""
    lists = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", query)
    return {label.strip() for each in lists for label in each.split(",")}


def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text())


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return group["rules"]


def queries() -> Iterator[Any]:
    for panel in dashboard()["panels"]:
        for number, target in enumerate(panel.get("targets", ())):
            yield pytest.param(target["expr"], id=f"panel {panel['title']} {number}")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(
                variable["definition"].removeprefix("label_values(").rpartition(",")[0],
                id=f"variable {variable['name']}",
            )
    for rule in rules():
        yield pytest.param(rule["expr"], id=f"alert {rule['alert']}")


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_asks_for_what_there_is(query: str) -> None:
    known = documented()
    found = list(selectors(query))
    assert found
    usable: set[str] = set()
    for name, matchers in found:
        assert name in known, f"there is no metric {name}"
        usable |= known[name]
        for label, operator, value in matchers:
            assert label in known[name], f"{name} has no label {label}"
            if not value.startswith("$") and label in VALUES:
                wanted = set(value.split("|")) if "~" in operator else {value}
                assert wanted <= VALUES[label], f"{name}: {label} is never {value}"
    assert grouped(query) <= usable


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_what_to_do_and_uses_labels_that_it_has(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    known = documented()
    labels = {label for name, _ in selectors(rule["expr"]) for label in known[name]}
    if aggregated := re.match(r"sum by \(([^)]*)\)", rule["expr"]):
        labels = set(re.split(r",\s*", aggregated[1]))
    for text in (rule["annotations"]["summary"], rule["annotations"]["description"]):
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_the_tests_own_reading_of_queries_finds_what_is_wrong() -> None:
    (found,) = selectors('sum by (step, le) (rate(llb_x_bucket{a=~"b|c",d!="e"}[5m])) > 0')
    assert found == ("llb_x_bucket", [("a", "=~", "b|c"), ("d", "!=", "e")])
    assert [name for name, _ in selectors("time() - a_b > 60 or a / on (c) b")] == ["a_b", "a", "b"]
    assert grouped("sum by (step, le) (x) / on (c) y") == {"step", "le", "c"}


def test_promtool_finds_the_rules_right() -> None:
    done = subprocess.run(
        [Path(sys.prefix, "bin", "promtool"), "check", "config", "prometheus.yml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def test_panels_have_ids_of_their_own_and_say_what_they_show() -> None:
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
