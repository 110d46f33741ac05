"""Plugins that hang, or that fork, in a daemon that runs: they hold up no reload beyond its limit,
nothing that other plugins bring, and neither the daemon's end nor its next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.api.client import Client
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from llb_core.errors import ConfigurationError
from llb_core.run_folder import RunFolder

pytestmark = pytest.mark.netns

LIMIT = 3.0
"""Seconds in place of LOAD_LIMIT, for the test to be over soon."""
LLB = (
    f"import llb_core.plugins, runpy; llb_core.plugins.LOAD_LIMIT = {LIMIT}; "
    "runpy.run_module('llb_core', run_name='__main__')"
)
STUCK = """
import threading
from llb_core import Provider, hookimpl

class Stuck(Provider):
    name = "{name}"
    def gather_backends(self):
        threading.Event().wait()

@hookimpl
def llb_provider():
    return Stuck
"""
POOL = """
import threading
from concurrent.futures import ThreadPoolExecutor
from llb_core import Provider, hookimpl

class Pool(Provider):
    name = "pool"
    def gather_backends(self):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda _: threading.Event().wait(), (1, 2)))

@hookimpl
def llb_provider():
    return Pool
"""
FORKS = """
import multiprocessing, os, threading
from ipaddress import ip_address
from pathlib import Path
from llb_core import Backend, Endpoint, Provider, hookimpl

class Forks(Provider):
    name = "forks"
    def gather_backends(self):
        with multiprocessing.Pool(2) as pool:  # Its end ends the workers, by SIGTERM.
            addresses = pool.map(ip_address, ["10.0.0.11", "10.0.0.12"])
        if not (child := os.fork()):
            threading.Event().wait()
        (self.context.base / "children").open("a").write(f"{child}\\n")
        return [Backend(Endpoint(each, 8080)) for each in addresses]

@hookimpl
def llb_provider():
    return Forks
"""
PLUGINS = {
    "stuck": STUCK.format(name="stuck"),
    "pool": POOL,
    "forks": FORKS,
    "stuck-import": "import threading\nthreading.Event().wait()\n",
}
SERVICE = """
[services.{service}]
address = "203.0.113.{number}"
port = 80
provider = {{ name = "{provider}"{options} }}
"""
GOOD = SERVICE.format(
    service="good", number=21, provider="static", options=', path = "backends.toml"'
)
HANGS = SERVICE.format(service="hangs", number=22, provider="stuck", options="")
HANGS_IN_A_POOL = SERVICE.format(service="pools", number=24, provider="pool", options="")
HANGS_AT_IMPORT = SERVICE.format(service="bad", number=23, provider="stuck-import", options="")


@pytest.fixture
def balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab.Balancer]:
    """A daemon that is not started yet, in whose environment the plugins are installed."""
    plugins = tmp_path / "plugins"
    for name, text in PLUGINS.items():
        word = name.replace("-", "_")
        info = plugins / f"llb_provider_{word}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: llb-provider-{name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[llb]\n{name} = llb_provider_{word}\n")
        (plugins / f"llb_provider_{word}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(plugins))
    with Network() as network:
        hosts = lab.build(network, backends=2)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, tmp_path, command=(sys.executable, "-c", LLB))
        balancer.write_backends(hosts.backends)
        yield balancer
        balancer.remove()
        print(balancer.last_words())


def test_plugins_that_hang_hold_up_neither_a_reload_nor_the_end(balancer: lab.Balancer) -> None:
    def answers(address: str) -> bool:
        asked = balancer.lab.client.run(
            *("curl", "-sS", "-m", "30", f"http://{address}/"), check=False
        )
        return asked.stdout.strip() in {"b1", "b2"}

    balancer.write_config(extra=HANGS + HANGS_IN_A_POOL)
    balancer.start()
    wait_until(lambda: answers(lab.VIP), lab.LIMIT, "what hangs in its question harms no other")

    patient = Client(RunFolder(balancer.name).socket, timeout=60)
    balancer.write_config(extra=HANGS + HANGS_IN_A_POOL + GOOD + HANGS_AT_IMPORT)
    with pytest.raises(ConfigurationError) as refused:
        patient.post("/reload", dry_run=False)
    assert str(refused.value) == (
        f'{balancer.config}: services.bad.provider.name: importing provider "stuck-import" takes '
        f"more than {LIMIT:g} s: mend what it waits for, or do without it"
    )
    assert answers(lab.VIP)

    balancer.write_config(extra=HANGS + HANGS_IN_A_POOL + GOOD)
    patient.post("/reload", dry_run=False)
    wait_until(lambda: answers("203.0.113.21"), lab.LIMIT, "the good one is loaded")
    services = balancer.control.get("/status")["services"]
    (stuck,) = (each for each in services if each["name"] == "hangs")
    assert (stuck["backends"], stuck["sources"][0]["age"]) == (0, None)

    asked = subprocess.run(
        [
            *f"{sys.executable} -m llb_core providers test pool --timeout 1 -c".split(),
            balancer.config,
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 1, "a command ends, too"
    assert "no answer within 1 s" in asked.stdout + asked.stderr

    assert balancer.stop() == 0, "it ends while all still hang, also in threads of their own"
    last = json.loads(balancer.log.read_text().splitlines()[-1])["message"]
    assert last.startswith("stopped: traffic goes on")


def test_what_a_plugin_forks_ends_no_daemon_and_holds_nothing_of_it(
    balancer: lab.Balancer,
) -> None:
    forks = SERVICE.format(service="forks", number=21, provider="forks", options="")
    balancer.write_config(extra=f'{forks}\n[api]\nlisten = "127.0.0.1:9310"\n')

    def is_active() -> bool:
        return balancer.serves() and all(
            balancer.is_active(each, "forks") for each in balancer.lab.backends
        )

    children = balancer.folder / "children"
    try:
        balancer.start()
        wait_until(is_active, lab.LIMIT, "its answer counts")
        balancer.kill()
        balancer.start()
        assert balancer.stop() == 0
        log = [json.loads(line) for line in balancer.log.read_text().splitlines()]
        assert {each["level"] for each in log} == {"info"}, "neither lock nor port is taken"
    finally:
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
