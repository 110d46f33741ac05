"""Whom a service lets in, as llb.toml and the files beside it say."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from llb_core.config import load
from llb_core.errors import ConfigurationError
from llb_core.model import Access, Service
from tests.bpf.model_admission import is_let_in

TEXT = """
[loadbalancer]
public_interface = "eth0"
backend_cidrs = ["10.0.0.0/24", "fd00::/64"]
snat_addresses = ["10.0.0.1", "fd00::1"]

[services.web]
address = ["203.0.113.10", "2001:db8::10"]
port = 80
{keys}

[services.web.provider]
name = "static"
path = "backends.toml"
"""


def configured(folder: Path, keys: str) -> Service:
    (folder / "llb.toml").write_text(TEXT.format(keys=keys))
    return load(folder / "llb.toml").services[0].service


def lets_in(service: Service, client: str) -> bool:
    address = ip_address(client)
    return is_let_in(address, service.access, service.rules_of(address.version))


def test_everybody_gets_in_without_prefixes(tmp_path: Path) -> None:
    service = configured(tmp_path, "")

    assert service.policy(4).access is service.policy(6).access is Access.OPEN
    assert not service.rules_of(4)
    assert not service.rules_of(6)


def test_only_the_denied_are_kept_out_where_nobody_is_allowed(tmp_path: Path) -> None:
    service = configured(tmp_path, 'deny = ["192.0.2.0/24", "2001:db8:1::/48"]')

    assert not lets_in(service, "192.0.2.1")
    assert not lets_in(service, "2001:db8:1::1")
    assert lets_in(service, "192.0.3.1")
    assert lets_in(service, "2001:db8:2::1")


def test_only_the_allowed_get_in_where_anybody_is_over_either_family(tmp_path: Path) -> None:
    service = configured(tmp_path, 'allow = "192.0.2.0/24"\ndeny = ["192.0.2.128/25"]')

    assert lets_in(service, "192.0.2.1")
    assert not lets_in(service, "192.0.2.129")
    assert not lets_in(service, "192.0.3.1")
    assert not lets_in(service, "2001:db8::1")


def test_files_add_to_the_keys(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("# all\n\n198.51.100.0/24  # the first\n2001:db8:5::/48\n")
    (tmp_path / "out.txt").write_text("198.51.100.7\n")

    service = configured(
        tmp_path, 'allow = ["192.0.2.0/24"]\nallow_file = "in.txt"\ndeny_file = "out.txt"'
    )

    assert [len(service.rules_of(family)) for family in (4, 6)] == [3, 1]
    assert lets_in(service, "198.51.100.6")
    assert not lets_in(service, "198.51.100.7")


def test_an_empty_list_of_the_allowed_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("# nobody yet\n")

    assert not lets_in(configured(tmp_path, 'allow_file = "in.txt"'), "192.0.2.1")


@pytest.mark.parametrize(
    ("keys", "text", "message"),
    [
        ('allow = ["192.0.2.1/24"]', "", 'allow[0]: "192.0.2.1/24" has bits set beyond its prefix'),
        ('deny = ["nobody"]', "", 'deny[0]: "nobody" is not a network'),
        (
            'allow = ["192.0.2.0/24"]\ndeny = ["192.0.2.0/24"]',
            "",
            "deny: 192.0.2.0/24 is allowed as well: take it out of the one or the other",
        ),
        (
            'allow = ["192.0.2.0/24"]\ndeny_file = "list.txt"',
            "192.0.2.0/24\n",
            "deny: 192.0.2.0/24 is allowed as well: take it out of the one or the other",
        ),
        (
            'deny_file = "list.txt"',
            "192.0.2.0/24\n10.0.0.300\n",
            'deny_file: {folder}/list.txt: line 2: "10.0.0.300" is not a network',
        ),
        (
            'allow_file = "missing.txt"',
            "",
            "allow_file: {folder}/missing.txt: can't be read: No such file or directory",
        ),
        ("deny_file = 3", "", "deny_file: 3 is not a string"),
    ],
)
def test_an_error_names_key_file_and_line(
    tmp_path: Path, keys: str, text: str, message: str
) -> None:
    (tmp_path / "list.txt").write_text(text)

    with pytest.raises(ConfigurationError) as raised:
        configured(tmp_path, keys)

    place = f"{tmp_path}/llb.toml: services.web."
    assert str(raised.value).startswith(place + message.format(folder=tmp_path))


def test_more_prefixes_than_the_classifier_takes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llb_core.config.MOST", 1)

    with pytest.raises(ConfigurationError, match="2 IPv4 prefixes are allowed or denied"):
        configured(tmp_path, 'deny = ["192.0.2.0/24", "198.51.100.0/24"]')
