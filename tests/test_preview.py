"""What a reload would change, and says of settings that no change of the maps would show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llb_core.config import Config, parse
from llb_core.orders import Orders
from llb_core.plugins import load_providers
from llb_core.preview import changed_settings, planned_changes
from llb_core.running import Running
from llb_core.source import Source
from llb_core.sources import make_sources
from llb_core.testing.maps import MemoryMaps
from tests.waiting import until_now

FILE = """
[loadbalancer]
public_interface  = "eth0"
private_interface = "eth1"
backend_cidrs     = ["10.0.0.0/24"]
snat_addresses    = ["10.0.0.1"]

[services.web]
address  = "203.0.113.10"
port     = 80
provider = { name = "consul", service = "web", token = "a secret" }
health   = { type = "tcp" }
"""


def changes(old: str, new: str) -> tuple[str, ...]:
    """What becomes another where the file says `new` in place of `old`."""

    def read(text: str) -> Config:
        return parse(text, Path("llb.toml"))

    return changed_settings(read(FILE), read(FILE.replace(old, new)))


def test_a_table_of_a_service_that_is_another_is_named_and_not_shown() -> None:
    assert changes('"tcp"', '"http"') == ("services.web.health: another than before",)
    assert changes("a secret", "another one") == ("services.web.providers: another than before",)


def test_what_the_maps_show_is_not_said_twice() -> None:
    assert changes("port     = 80", "port     = 81") == ()
    assert changes("services.web", "services.new") == ()


class TestPlannedChanges:
    """Of a daemon with nothing installed yet, and the static provider's files."""

    @pytest.fixture
    def config(self, tmp_path: Path) -> Config:
        provider = 'provider = { name = "static", path = "backends.toml" }'
        text = FILE.replace(
            'provider = { name = "consul", service = "web", token = "a secret" }', provider
        )
        return parse(text, tmp_path / "llb.toml")

    def planned(self, config: Config, *sources: Source) -> tuple[tuple[str, ...], list[str]]:
        parts: dict[str, Any] = {
            "map_syncs": {4: MemoryMaps()},
            "checker": SimpleNamespace(states={}),
            "sources": list(sources),
            "orders": Orders(config.base / "orders.json"),
            "datapath": SimpleNamespace(routes=lambda *_: {}),
        }
        running, complaints = cast("Running", SimpleNamespace(**parts)), list[str]()
        changes = planned_changes(running, config, load_providers(config), complaints.append)
        return changes, complaints

    def test_are_told_without_a_complaint_where_the_providers_answer(self, config: Config) -> None:
        backend = '[[backends]]\naddress = "10.0.0.2"\nport = 80\n'
        (config.base / "backends.toml").write_text(backend)
        changes, complaints = self.planned(config)
        assert any("10.0.0.2:80" in each for each in changes)
        assert complaints == []

    def test_a_new_provider_that_fails_is_complained_of(self, config: Config) -> None:
        changes, (complaint,) = self.planned(config)
        assert not any("10.0.0.2:80" in each for each in changes)
        assert complaint.startswith("web: provider static: ")
        assert "backends.toml" in complaint
        assert complaint.endswith("; what is installed stays")

    def test_one_that_is_kept_and_fails_now_is_too(self, config: Config) -> None:
        file = config.base / "backends.toml"
        file.write_text("backends = []")
        providers = load_providers(config)
        (source,) = make_sources(config, providers, on_change=lambda: None)
        source.start()
        until_now(lambda: source.is_ready)
        file.unlink()
        until_now(lambda: source.error)
        _, (complaint,) = self.planned(config, source)
        assert "its last answer stays (0 backends, " in complaint
        source.close()

    def test_one_that_is_kept_and_has_not_answered_was_not_asked_here(self, config: Config) -> None:
        providers = load_providers(config)
        (source,) = make_sources(config, providers, on_change=lambda: None)  # Never started.
        _, (complaint,) = self.planned(config, source)
        assert complaint == (
            "web: provider static: it has not answered yet; what is installed stays"
        )
