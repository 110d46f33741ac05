"""What a reload says of settings that no change of the maps would show."""

from __future__ import annotations

from pathlib import Path

from llb_core.config import Config, parse
from llb_core.preview import changed_settings

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
