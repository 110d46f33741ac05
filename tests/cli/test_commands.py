"""The commands without a daemon and without root: what they print, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llb_core.demo import lab
from tests.cli.conftest import Llb

RIGHT = """\
[loadbalancer]
name = "no-such-balancer"
public_interface = "eth0"
backend_cidrs = ["10.0.0.0/24"]
snat_addresses = ["10.0.0.1"]

[services.web]
address = "203.0.113.10"
port = 80

[services.web.provider]
name = "static"
path = "backends.toml"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llb.toml"
    path.write_text(RIGHT)
    return path


def test_check_says_that_a_right_configuration_is_right(llb: Llb, config: Path) -> None:
    done = llb("check", "-c", config)
    assert (done.code, done.out, done.err) == (0, f"{config}: is right (1 service)\n", "")


def test_check_shows_as_json_what_it_understood(llb: Llb, config: Path) -> None:
    understood = json.loads(llb("check", "-c", config, "--json").out)
    assert understood["services"] == [
        {
            "name": "web",
            "addresses": ["203.0.113.10:80/tcp"],
            "providers": ["static"],
            "health": "tcp",
        }
    ]


WRONG = {
    "key": ("port = 80", "prot = 80", "services.web.prot: unknown key"),
    "type": ("port = 80", 'port = "x"', 'services.web.port: "x" is not'),
    "syntax": ("[loadbalancer]", "[loadbalancer", "is not valid TOML"),
}
WRONG_PROVIDER = {
    "provider": ('"static"', '"etcd"', 'provider "etcd" is not installed: pip install'),
    "its option": ('path = "b', 'paht = "b', "services.web.provider.paht: unknown key"),
}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        *((command, each) for command in ("status", "backends") for each in WRONG),
        *((command, "syntax") for command in ("detach", "drain 10.0.0.2", "events", "top --once")),
        *((command, each) for command in ("check", "run") for each in WRONG | WRONG_PROVIDER),
    ],
)
def test_a_wrong_configuration_is_told_in_a_line_that_names_the_place(
    llb: Llb, config: Path, command: str, wrong: str
) -> None:
    old, new, message = (WRONG | WRONG_PROVIDER)[wrong]
    config.write_text(RIGHT.replace(old, new))
    done = llb(*command.split(), "-c", config)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert all(line.startswith(f"llb: {config}: ") for line in done.err.splitlines())


def test_a_file_that_is_not_there_is_named(llb: Llb, tmp_path: Path) -> None:
    done = llb("check", "-c", tmp_path / "llb.toml")
    assert (done.code, done.err) == (
        2,
        f"llb: {tmp_path}/llb.toml: there is no such file: name one with -c FILE\n",
    )


def test_a_file_that_may_not_be_read_is_told_in_a_line(config: Path) -> None:
    config.chmod(0)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*powerless, sys.executable, "-m", "llb_core", "check", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"llb: {config}: can't be read: Permission denied\n"


@pytest.mark.parametrize("command", ["status", "backends"])
def test_says_that_nothing_is_installed(llb: Llb, config: Path, command: str) -> None:
    done = llb(command, "-c", config)
    assert done.code == 1
    assert 'nothing is installed under the name "no-such-balancer"' in done.err


@pytest.mark.parametrize(
    "call",
    [
        ("drain", "10.0.0.2"),
        ("undrain", "10.0.0.2"),
        ("disable", "10.0.0.2"),
        ("enable", "10.0.0.2"),
        ("weight", "10.0.0.2", "5"),
        ("weight", "10.0.0.2", "provider"),
        ("kill", "198.51.100.7:40000"),
        ("kill", "--backend", "10.0.0.2", "--service", "web"),
        ("drain", "10.0.0.2", "--wait", "--deadline", "5m"),
        ("reload",),
        ("reload", "--dry-run"),
    ],
    ids=" ".join,
)
def test_an_order_needs_a_daemon(llb: Llb, config: Path, call: tuple[str, ...]) -> None:
    done = llb(*call, "-c", config)
    assert done.code == 1
    assert done.err == (
        "llb: /run/llb/no-such-balancer.sock: no daemon answers: start one with llb run\n"
    )


@pytest.mark.parametrize("wrong", ["key", "type"])
@pytest.mark.parametrize("call", ["drain 10.0.0.2", "kill --backend 10.0.0.2", "events"])
def test_an_order_does_not_need_a_right_configuration(
    llb: Llb, config: Path, call: str, wrong: str
) -> None:
    old, new, _ = WRONG[wrong]
    config.write_text(RIGHT.replace(old, new))
    done = llb(*call.split(), "-c", config)
    assert done.err == (
        "llb: /run/llb/no-such-balancer.sock: no daemon answers: start one with llb run\n"
    )


def test_refuses_a_deadline_that_is_too_late_in_the_words_it_was_given(
    llb: Llb, config: Path
) -> None:
    done = llb("drain", "10.0.0.2", "--deadline", "99999d", "-c", config)
    assert (done.code, done.err) == (2, 'llb: --deadline: "99999d" is more than 30d\n')


def test_refuses_what_is_no_deadline(llb: Llb, config: Path) -> None:
    done = llb("drain", "10.0.0.2", "--deadline", "soon", "-c", config)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith('llb: --deadline: "soon" is not a duration')


@pytest.mark.parametrize("weight", ["heavy", "65536", "-5", "1.5", "²", ""])
def test_refuses_what_is_no_weight(llb: Llb, config: Path, weight: str) -> None:
    done = llb("weight", "10.0.0.2", weight, "-c", config)
    assert (done.code, done.out) == (2, "")
    assert f'"{weight}" is not a weight' in done.err


def test_backends_of_a_service_that_is_not_there(llb: Llb, config: Path) -> None:
    done = llb("backends", "wbe", "-c", config)
    assert (done.code, done.err) == (2, f'llb: {config}: there is no service "wbe"\n')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "no such command 'nonsense': see llb --help"),
        (("stauts",), "no such command 'stauts'. Did you mean 'status'?: see llb --help"),
        (("check", "--nonsense"), "no such option: --nonsense: see llb check --help"),
        (("drain",), "missing argument 'BACKEND': see llb drain --help"),
        (("check", "-c"), "option '-c' requires an argument: see llb --help"),
        (
            ("providers", "nonsense"),
            "no such command 'nonsense': see llb providers --help",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call_is_told_in_a_sentence_and_ends_with_2(
    llb: Llb, arguments: tuple[str, ...], message: str
) -> None:
    done = llb(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"llb: {message}\n"


def test_without_a_command_it_shows_what_there_is(llb: Llb) -> None:
    done = llb()
    assert done.code == 2
    assert "undrain" in done.out
    assert not done.err


def test_lists_the_providers_that_are_installed(llb: Llb) -> None:
    (static,) = (
        each
        for each in json.loads(llb("providers", "list", "--json").out)["providers"]
        if each["name"] == "static"
    )
    assert static["distribution"] == "llb-provider-static"
    assert "llb-provider-static" in llb("providers", "list").out


def test_doctor_names_what_is_missing_and_the_remedy(llb: Llb, config: Path) -> None:
    config.write_text(RIGHT.replace('"eth0"', '"no-such-if"'))
    done = llb("doctor", "-c", config)
    assert done.code == 1
    assert 'FAIL  interface no-such-if: interface "no-such-if" does not exist' in done.out
    findings = json.loads(llb("doctor", "-c", config, "--json").out)
    assert findings["is_well"] is False
    states = {each["what"]: each["state"] for each in findings["findings"]}
    assert (states["configuration"], states["daemon"]) == ("ok", "warn")


def test_doctor_warns_of_a_provider_that_a_daemon_would_start_without(
    llb: Llb, config: Path
) -> None:
    done = llb("doctor", "-c", config)
    assert "warn  providers: web: provider static: backends.toml: there is no such file" in done.out


@pytest.mark.parametrize(
    ("action", "unwanted"),
    [
        pytest.param("check", ("llb_core.daemon", "llb_core.datapath", "aiohttp"), id="check"),
        pytest.param("run", ("rich", "bcc", "boto3", "aiohttp.pytest_plugin"), id="run"),
    ],
)
def test_a_command_imports_only_what_it_needs(
    config: Path, action: str, unwanted: tuple[str, ...]
) -> None:
    """`check` must touch nothing, and the daemon must be small."""
    program = f"""if True:
        import contextlib, sys
        from llb_core.cli import main
        if {action!r} == "run":
            from llb_core.cli import run
            import llb_core.daemon
        else:
            sys.argv = ["llb", {action!r}, "-c", {str(config)!r}]
            with contextlib.suppress(SystemExit):
                main()
        print([name for name in {unwanted!r} if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_the_demonstration_calls_it_nothing_is_run_from_the_working_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger')")

    subprocess.run([*lab.llb_command(), "--version"], cwd=tmp_path, check=True)


def test_ends_quietly_when_its_reader_goes_away(config: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m llb_core check --json -c {config} | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
