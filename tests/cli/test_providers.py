"""`llb providers`: what is installed, what its options mean, what it says, and one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from llb_core import installed, plugins
from llb_core.api.client import Client
from llb_core.errors import DaemonUnreachable, LLBError
from tests.cli.conftest import Llb

CONFIG = """\
[loadbalancer]
name = "no-such-balancer"
public_interface = "eth0"
backend_cidrs = ["10.0.0.0/24"]
snat_addresses = ["10.0.0.1"]
"""
SERVICE = """
[services.{name}]
address = "203.0.113.{number}"
port = 80
[[services.{name}.provider]]
"""
TWO = (
    'backends = [{address = "10.0.0.2", port = 80}, {address = "10.0.0.3", port = 80, weight = 2}]'
)

PLUGIN = '''
from pydantic import BaseModel, Field, SecretStr
from llb_core import Provider, ProviderError, ProviderOptions, hookimpl

class Options(ProviderOptions):
    region: str = Field(description="where it is")
    size: int = Field(3, ge=1, le=9, description="how many")
    token: SecretStr = Field(SecretStr("sesame"), description="who asks")

class Plugin(Provider):
    """What a test plugs in.

    More of it.
    """
    name = "plugin"
    Options = Options
    def gather_backends(self):
        {body}

@hookimpl
def llb_provider():
    return Plugin
'''


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with the services web and api, both with backends from a file."""
    path = tmp_path / "llb.toml"
    services = [
        SERVICE.format(name=name, number=number) + f'name = "static"\npath = "{name}.toml"\n'
        for number, name in enumerate(["web", "api"], start=10)
    ]
    path.write_text(CONFIG + "".join(services))
    (tmp_path / "web.toml").write_text(TWO)
    (tmp_path / "api.toml").write_text("backends = []")
    return path


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a plugin of that text, or of that body of its `gather_backends`."""
    real = installed.find_entry_points

    def _plug(body: str = "return []", text: str = PLUGIN) -> None:
        module = f"plugin_of_cli_{tmp_path.name}"  # One that hangs at import hangs for its name.
        (tmp_path / f"{module}.py").write_text(text.replace("{body}", body))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, module, raising=False)

        def find() -> installed.Found:
            return installed.Found((*real().entries, EntryPoint("plugin", module, "llb")))

        for function in (
            installed.available,
            plugins.provider_class,
            plugins.described,
            plugins.load_providers,
        ):
            monkeypatch.setattr(function, "__defaults__", (find,))
        monkeypatch.setattr(plugins.load_provider, "__defaults__", (find,))

    return _plug


def use_plugin(config: Path) -> None:
    table = SERVICE.format(name="plugged", number=99) + 'name = "plugin"\nregion = "eu"\n'
    config.write_text(CONFIG + table)


def test_lists_what_is_installed_with_version_and_options(llb: Llb) -> None:
    done = llb("providers", "--json")
    found = {each["name"]: each for each in json.loads(done.out)["providers"]}
    assert found["static"] == {
        "name": "static",
        "distribution": "llb-provider-static",
        "version": "0.1.0",
        "options": [
            {"name": "path", "is_required": True},
            {"name": "format", "is_required": False},
        ],
        "error": "",
    }
    assert llb("providers", "list", "--json").out == done.out
    assert "llb-provider-static" in llb("providers").out


def test_a_broken_distribution_hides_no_provider(tmp_path: Path) -> None:
    """In a process of its own: libraries look at what is installed where they are imported, too."""
    (tmp_path / "zzz-1.0.dist-info").mkdir()
    (tmp_path / "zzz-1.0.dist-info/entry_points.txt").write_text("[console_scripts]\nfoo\n")
    broken = tmp_path / "llb_provider_cut_off-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_text("[llb]\ncut_off = llb_provider_cut_off\n")
    done = subprocess.run(
        [sys.executable, "-m", "llb_core", "providers", "--json"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "static" in {each["name"] for each in json.loads(done.stdout)["providers"]}
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"{broken}: it has no METADATA")


def test_a_broken_plugin_is_told_of_and_harms_no_other(llb: Llb, plug: Any) -> None:
    plug(text="import a_module_that_is_not_there\n")
    done = llb("providers", "--json")
    found = {each["name"]: each for each in json.loads(done.out)["providers"]}
    assert "a_module_that_is_not_there" in found["plugin"]["error"]
    assert not found["static"]["error"]
    assert "can't be imported" in llb("providers").out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import threading\nthreading.Event().wait(60)\n", "takes more than 2 s"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    ],
    ids=["hangs", "interrupts"],
)
def test_a_plugin_that_hangs_or_interrupts_is_told_of_on_its_line(
    llb: Llb, plug: Any, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    plug(text=text)
    monkeypatch.setattr("llb_core.cli.providers.LIST_LIMIT", 2.0 if "takes" in told else 30)
    done = llb("providers", "--json")
    found = {each["name"]: each for each in json.loads(done.out)["providers"]}
    assert done.code == 0
    assert told in found["plugin"]["error"]
    assert "static" in found


def test_what_a_plugin_prints_never_stands_among_the_output(
    llb: Llb, config: Path, plug: Any
) -> None:
    chatty = PLUGIN.replace("class Plugin", "print('imported')\n\nclass Plugin")
    plug("print('asked'); return []", chatty)
    use_plugin(config)
    asked = llb("providers", "test", "plugin", "-c", config, "--json")
    assert json.loads(asked.out)["provider"] == "plugin"
    assert "imported" in asked.err
    assert "asked" in asked.err
    plug("return []", chatty)
    assert json.loads(llb("providers", "--json").out)
    plug("return []", chatty)
    checked = llb("check", "-c", config, "--json")
    assert json.loads(checked.out)["services"]
    assert "imported" in checked.err


def test_documents_the_options_of_a_provider(llb: Llb, plug: Any) -> None:
    plug()
    shown = json.loads(llb("providers", "show", "plugin", "--json").out)
    assert shown["summary"] == "What a test plugs in."
    assert shown["options"] == [
        {
            "name": "region",
            "type": "string",
            "default": None,
            "is_secret": False,
            "description": "where it is",
            "is_required": True,
        },
        {
            "name": "size",
            "type": "whole number, 1 to 9",
            "default": "3",
            "is_secret": False,
            "description": "how many",
            "is_required": False,
        },
        {
            "name": "token",
            "type": "string",
            "default": "",
            "is_secret": True,
            "description": "who asks",
            "is_required": False,
        },
    ]
    text = llb("providers", "show", "plugin").out
    assert "region  string" in text
    assert "(needed)" in text
    assert "sesame" not in text


def test_a_provider_that_is_not_installed_names_the_remedy(llb: Llb) -> None:
    done = llb("providers", "show", "etcd")
    assert done.code == 2
    assert done.err.startswith('llb: provider "etcd" is not installed: pip install llb-provider-e')


def test_asks_once_for_each_service_and_tells_what_would_change(llb: Llb, config: Path) -> None:
    done = llb("providers", "test", "static", "-c", config, "--json")
    assert done.code == 0
    web, api = json.loads(done.out)["services"]
    assert web.pop("seconds") < 30
    assert web == {
        "service": "web",
        "error": "",
        "backends": [
            {"backend": "10.0.0.2:80", "weight": 1, "draining": False, "healthy": None},
            {"backend": "10.0.0.3:80", "weight": 2, "draining": False, "healthy": None},
        ],
        "changes": ["register 10.0.0.2:80, weight 1", "register 10.0.0.3:80, weight 2"],
        "is_whole": True,
    }
    assert (api["backends"], api["changes"]) == ([], [])


def test_shows_the_answer_to_a_person(llb: Llb, config: Path) -> None:
    out = llb("providers", "test", "static", "-c", config).out
    assert "web: provider static says 2 backends, in " in out
    assert "  register 10.0.0.3:80, weight 2" in out
    assert "api: provider static says no backends, in " in out
    assert "nothing would change" in out


def test_one_that_fails_is_told_of_beside_the_others(llb: Llb, config: Path) -> None:
    (config.parent / "web.toml").unlink()
    done = llb("providers", "test", "static", "-c", config)
    assert done.code == 1
    assert "llb: web: provider static: web.toml: there is no such file (after " in done.err
    assert "api: provider static says no backends" in done.out


def test_an_answer_that_breaks_the_contract_is_an_error(llb: Llb, config: Path, plug: Any) -> None:
    plug('return ["10.0.0.1:80"]')
    use_plugin(config)
    done = llb("providers", "test", "plugin", "-c", config)
    assert done.code == 1
    assert "plugged: provider plugin: entry 0 of 1: '10.0.0.1:80' is no Backend" in done.err


def test_a_fault_in_its_code_is_told_with_its_place(llb: Llb, config: Path, plug: Any) -> None:
    """Its own, not that of what it called: here LLB's."""
    plug("from llb_core import Endpoint; return Endpoint.parse('oops')")
    use_plugin(config)
    done = llb("providers", "test", "plugin", "-c", config)
    (plugin,) = config.parent.glob("plugin_of_cli_*.py")
    line = 1 + next(
        number for number, text in enumerate(plugin.read_text().splitlines()) if "'oops'" in text
    )
    assert done.code == 1
    assert f" ({plugin}, line {line}, in gather_backends) (after " in done.err


def test_one_that_hangs_is_given_up_after_its_time(llb: Llb, config: Path, plug: Any) -> None:
    plug("import threading; threading.Event().wait()")
    use_plugin(config)
    done = llb("providers", "test", "plugin", "-c", config, "--timeout", "0.05")
    assert done.code == 1
    assert "plugged: provider plugin: no answer within 0.05 s" in done.err


def test_one_that_no_service_uses_is_a_wrong_call(llb: Llb, config: Path) -> None:
    done = llb("providers", "test", "consul", "-c", config)
    assert (done.code, done.err) == (2, f'llb: {config}: no service uses provider "consul"\n')
    done = llb("providers", "test", "etcd", "-c", config)
    assert done.code == 2
    assert 'provider "etcd" is not installed' in done.err


def test_leaves_out_what_other_providers_of_the_service_may_name(llb: Llb, config: Path) -> None:
    config.write_text(
        config.read_text().replace(
            'path = "web.toml"\n',
            'path = "web.toml"\n[[services.web.provider]]\nname = "static"\npath = "api.toml"\n',
        )
    )
    done = llb("providers", "test", "static", "-c", config)
    assert done.out.count("other providers of the service are not asked") == 2


def test_writes_a_package_and_says_what_is_next(
    llb: Llb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = llb("providers", "new", "my-registry")
    assert done.code == 0
    assert "llb-provider-my-registry/src/llb_provider_my_registry/__init__.py" in done.out
    steps = done.err.split("llb: to build, test and try it:\n")[1]
    assert steps.startswith(f"  cd {tmp_path}/llb-provider-my-registry\n")
    assert f"  {sys.executable} -m pip install -e '.[test]'\n" in steps
    text = (tmp_path / "llb-provider-my-registry/pyproject.toml").read_text()
    assert 'my-registry = "llb_provider_my_registry"' in text
    again = llb("providers", "new", "my-registry")
    assert (again.code, again.out) == (2, "")
    assert "llb: llb-provider-my-registry: is there already" in again.err


def test_writes_it_where_it_is_told_to(llb: Llb, tmp_path: Path) -> None:
    written = json.loads(llb("providers", "new", "a", "--folder", tmp_path / "b", "--json").out)
    assert written["folder"] == str(tmp_path / "b")
    assert all(Path(path).is_file() for path in written["files"])


def test_writes_no_second_provider_of_a_name(llb: Llb, tmp_path: Path) -> None:
    done = llb("providers", "new", "static", "--folder", tmp_path / "new")
    assert done.code == 2
    assert 'llb: provider "static" is there already, of llb-provider-static ' in done.err
    assert "choose another name, or first pip uninstall llb-provider-static" in done.err
    assert not (tmp_path / "new").exists()


def test_a_package_that_can_not_be_written_is_an_error_that_names_the_place(
    llb: Llb, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name, folder in (
        ("a", tmp_path / "file" / "x"),
        ("a", tmp_path / ("n" * 300)),
        ("n" * 300, tmp_path / "long"),
    ):
        done = llb("providers", "new", name, "--folder", folder)
        assert done.code == 2, done
        assert done.err.startswith(f"llb: {folder}")
        assert "can't be written" in done.err


@pytest.mark.parametrize("name", ["", "Etcd", "1st", "a--b", "-a", "a_b", "../x", "a b"])
def test_refuses_what_is_no_name(llb: Llb, tmp_path: Path, name: str) -> None:
    done = llb("providers", "new", "--folder", tmp_path / "new", "--", name)
    assert done.code == 2
    assert "is not the name of a provider" in done.err
    assert not (tmp_path / "new").exists()


def test_holds_the_answer_against_what_the_daemon_has(
    llb: Llb, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = [
        ("10.0.0.2:80", 7, "active"),
        ("10.0.0.9:80", 1, "waiting"),
        ("10.0.0.8:80", 1, "retired"),
    ]
    views = [
        {"service": "web", "backend": backend, "weight": weight, "mode": mode}
        | {"health": "healthy", "orders": []}
        for backend, weight, mode in has
    ]
    monkeypatch.setattr(Client, "get", lambda *_: {"backends": views})
    done = llb("providers", "test", "static", "-c", config, "--json")
    web, api = json.loads(done.out)["services"]
    assert web["changes"] == [
        "change the weight of 10.0.0.2:80 from 7 to 1",
        "register 10.0.0.3:80, weight 2",
        "deregister 10.0.0.9:80",
    ]
    assert api["changes"] == []


@pytest.mark.parametrize(
    ("status", "is_held"),
    [
        ({"services": [{"name": "web", "is_kept": False}]}, True),
        ({"services": [{"name": "web", "is_kept": True}]}, False),
        ({"services": []}, False),
        (DaemonUnreachable("no daemon answers"), False),
    ],
    ids=["an answer before", "never answered", "a new service", "no daemon"],
)
def test_names_the_guard_where_the_daemon_has_an_answer_that_it_goes_by(
    llb: Llb, config: Path, monkeypatch: pytest.MonkeyPatch, status: Any, is_held: bool
) -> None:
    of_web = {"service": "web", "weight": 1, "mode": "active", "health": "healthy", "orders": []}
    views = [of_web | {"backend": f"10.0.0.{number}:80"} for number in range(2, 14)]

    def get(_: Client, path: str) -> Any:
        if path == "/status" and isinstance(status, Exception):
            raise status
        return {"/backends": {"backends": views}, "/status": status}[path]

    monkeypatch.setattr(Client, "get", get)
    done = llb("providers", "test", "static", "-c", config, "--json")
    web, _ = json.loads(done.out)["services"]
    assert len([each for each in web["changes"] if each.startswith("deregister ")]) == 10
    held = (
        "all of it 10 s later, since so many are lost (guard); at once by a reload that changes "
        "the provider's table"
    )
    assert [each for each in web["changes"] if "(guard)" in each] == is_held * [held]


def test_asks_the_daemon_about_the_guard_once_for_all_services(
    llb: Llb, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"weight": 1, "mode": "active", "health": "healthy", "orders": []}
    answers = {
        "/backends": {
            "backends": [
                state | {"service": name, "backend": f"10.0.0.{number}:80"}
                for name in ("web", "api")
                for number in range(2, 14)
            ]
        },
        "/status": {"services": [{"name": name, "is_kept": False} for name in ("web", "api")]},
    }
    (config.parent / "api.toml").write_text(TWO)
    asked: list[str] = []

    def get(_: Client, path: str) -> Any:
        asked.append(path)
        return answers[path]

    monkeypatch.setattr(Client, "get", get)
    done = llb("providers", "test", "static", "-c", config)
    assert done.out.count("(guard)") == 2
    assert asked == ["/backends", "/status"]


def test_says_that_it_does_not_know_what_would_change(
    llb: Llb, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LLBError("the daemon answers what is no JSON (status 200)")

    monkeypatch.setattr(Client, "get", fail)
    done = llb("providers", "test", "static", "-c", config, "--json")
    assert [each["changes"] for each in json.loads(done.out)["services"]] == [None, None]
    assert "what would change is not known: the daemon answers what is no JSON" in done.err
    shown = llb("providers", "test", "static", "-c", config).out
    assert "web: provider static says 2 backends" in shown
    assert "would change" not in shown
