"""What may stand in llb.toml for the provider, and how an error there reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from llb_provider_aws import AwsOptions, AwsProvider
from llb_provider_aws.states import Treatment

from llb_core import ConfigurationError, ProviderContext
from llb_core import config as llb_config
from llb_core.option_docs import describe
from llb_core.plugins import load_provider, load_providers, provider_class

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/73e2d6bc24d8a067"
CONFIG = """
[loadbalancer]
public_interface = "eth0"
private_interface = "eth1"
backend_cidrs = ["10.0.0.0/16"]
snat_addresses = ["10.0.255.1"]

[services.web]
address = "203.0.113.10"
port = 80

[services.web.provider]
name = "aws"
"""

Check = Callable[[str], AwsOptions]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Read the options from llb.toml, as the daemon does."""

    def check(text: str) -> AwsOptions:
        path = tmp_path / "llb.toml"
        path.write_text(CONFIG + text)
        config = llb_config.load(path)
        load_providers(config)
        _, options = load_provider(config, config.services[0].providers[0])
        assert isinstance(options, AwsOptions)
        return options

    return check


def test_the_entry_point_brings_the_provider() -> None:
    assert provider_class("aws") is AwsProvider


def test_options_of_every_kind(check: Check) -> None:
    options = check(
        f"""
        target_group = "{ARN}"
        role_arn = "arn:aws-cn:iam::123456789012:role/path/llb"
        refresh = "1m"
        connect_timeout = "500ms"
        read_timeout = 2
        [services.web.provider.states]
        unhealthy_draining = "omit"
        """
    )

    assert options.target_group == ARN
    assert (options.refresh, options.connect_timeout, options.read_timeout) == (60.0, 0.5, 2.0)
    assert options.states.by_state()["unhealthy.draining"] is Treatment.OMIT


def test_tags_with_one_value_or_several(check: Check) -> None:
    options = check('tags = { Role = "web", Stage = ["live", "canary"] }\nport = 80')

    assert options.tags == {"Role": ("web",), "Stage": ("live", "canary")}


ONE = "write just one of target_group, auto_scaling_group and tags"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "target_group: is missing: write target_group, auto_scaling_group or tags"),
        ('target_group = "a"\nauto_scaling_group = "b"\nport = 1', f"auto_scaling_group: .*{ONE}"),
        ('target_group = "a"\ntags = { a = "b" }', f"tags: stands beside target_group: {ONE}"),
        (
            'auto_scaling_group = "a"\nport = 1\ntags = { a = "b" }',
            f"tags: stands beside auto_scaling_group: {ONE}",
        ),
        ('target_group = "a"\nport = 80', "port: is not for a target group"),
        ('tags = { a = "b" }', "port: is missing: tags doesn't say the backends' port"),
        ('auto_scaling_group = "a"', "port: is missing: auto_scaling_group doesn't say"),
        ('auto_scaling_group = "a"\nport = 0', "port: 0 is less than 1"),
        ('auto_scaling_group = "a"\nport = "80"', 'port: "80" is not a whole number'),
        ("tags = {}\nport = 80", "tags: is empty, and would mean every instance there is"),
        ("tags = { a = 1 }\nport = 80", "tags: a: is neither a string nor a list of strings"),
        ("tags = { a = [] }\nport = 80", "tags: a: has 0 values: write from 1 to 200"),
        ('tags = "a=b"\nport = 80', 'tags: "a=b" is not a table'),
        ('target_group = "my group"', 'target_group: "my group" is no name of a target group'),
        (
            f'target_group = "{ARN.replace("targetgroup/", "loadbalancer/app/")}"',
            "target_group: .* is the ARN of no target group",
        ),
        (f'target_group = "{ARN}"\nregion = "eu-central-1"', 'region: "eu-central-1" is not that'),
        ('target_group = "a"\nregion = "eu-central-1a"', 'region: "eu-central-1a" is not a region'),
        ('target_group = "a"\nrole_arn = "llb"', 'role_arn: "llb" is the ARN of no role'),
        ('target_group = "a"\nexternal_id = "us"', "external_id: is only for a role"),
        ('target_group = "a"\nendpoint_url = "localhost:80"', "endpoint_url: is not a URL"),
        ('target_group = "a"\nendpoint_url = "http://[::1"', "endpoint_url: is not a URL"),
        ('target_group = "a"\nrefresh = "soon"', 'refresh: "soon" is not a duration'),
        ('target_group = "a"\nrefresh = "10ms"', 'refresh: "10ms" is less than "1s"'),
        ('target_group = "a"\nmax_attempts = 0', "max_attempts: 0 is less than 1"),
        ('target_group = "a"\ntarget_grup = "b"', r"target_grup: .*did you mean target_group\?"),
        ('target_group = "a"\nstates = { initial = "up" }', 'states.initial: "up" is not'),
        (
            'target_group = "a"\nstates = { inital = "omit" }',
            "states.inital: .*did you mean initial",
        ),
        ('tags = { a = "b" }\nport = 1\nstates = {}', "states: is only for a target group"),
    ],
)
def test_an_error_names_the_key(check: Check, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"services\.web\.provider\.{sentence}"):
        check(text)


@pytest.mark.parametrize("key", ["access_key", "aws_secret_access_key", "session_token"])
def test_keys_have_no_place_here_and_are_not_shown(check: Check, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}: unknown key") as caught:
        check(f'target_group = "a"\n{key} = "hush-hush"')
    assert "hush-hush" not in str(caught.value)


def test_a_password_in_a_url_is_refused_and_not_shown(check: Check) -> None:
    with pytest.raises(ConfigurationError, match="endpoint_url: holds a user or pass") as caught:
        check('target_group = "a"\nendpoint_url = "https://me:hush-hush@proxy"')
    assert "hush-hush" not in str(caught.value)


def test_every_option_is_described_with_its_type_and_default() -> None:
    shown = {each.name: each for each in describe(AwsOptions)}
    assert all(each.description for each in shown.values())
    assert shown["tags"].type == 'table, { TAG = "VALUE" } or { TAG = ["VALUE", …] }'
    assert "1 to 40 tags of 1 to 200 values" in shown["tags"].description
    words = [str(each) for each in Treatment]
    assert all(f"{word} (" in shown["states"].description for word in words if word != "unhealthy")
    assert shown["states.initial"].type == '"healthy", "check", "unhealthy", "drain" or "omit"'
    states = {name: each.default for name, each in shown.items() if name.startswith("states.")}
    assert states == {
        "states.healthy": '"healthy"',
        "states.unhealthy": '"unhealthy"',
        "states.initial": '"unhealthy"',
        "states.draining": '"drain"',
        "states.unhealthy_draining": '"drain"',
        "states.unused": '"check"',
        "states.unavailable": '"check"',
    }


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
def test_the_refresh_is_spread(tmp_path: Path, chance: float, seconds: float) -> None:
    context = ProviderContext("web", tmp_path)

    provider = AwsProvider(AwsOptions(target_group="web"), context, chance=lambda: chance)

    assert provider.refresh == pytest.approx(seconds)
