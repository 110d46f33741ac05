"""A provider's secret is nowhere but where it was written, and where it is sent to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.api.routes import READS
from llb_core.demo import lab
from llb_core.demo.network import Network, Process, wait_until
from llb_core.run_folder import RUN, STATE

pytestmark = pytest.mark.netns

SECRET, SECOND = "s3cr3t-0f-the-first", "s3cr3t-0f-the-sec0nd"
CORE_DUMPS = ("prlimit", "--core=unlimited:unlimited")
CONSUL = """
[services.registry]
address = "203.0.113.30"
port = 80

[services.registry.provider]
name = "consul"
service = "web"
url = "http://127.0.0.1:9"
"""


def with_token(token: str) -> str:
    return f"{CONSUL}token = {token}\n"


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[lab.Balancer]:
    with Network() as network:
        hosts = lab.build(network, backends=1)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, tmp_path)
        balancer.write_config(extra=with_token(f'"{SECRET}"'))
        balancer.write_backends(hosts.backends)
        try:
            with balancer.log.open("a") as log:
                balancer.daemon = hosts.lb.start(
                    *CORE_DUMPS, *lab.llb_command(), "run", "--verbose", "-c", balancer.config,
                    stdout=log, stderr=log,
                )  # fmt: skip
            wait_until(balancer.serves, lab.LIMIT, "the daemon answers")
            yield balancer
        finally:
            balancer.remove()


def told(balancer: lab.Balancer, *arguments: str) -> str:
    """Return everything that a command of the operator's prints."""
    command = (*lab.llb_command(), *arguments, "-c", str(balancer.config))
    done = balancer.lab.lb.run(*command, check=False)
    return done.stdout + done.stderr


def fetched(balancer: lab.Balancer, resource: str) -> str:
    socket = str(RUN / f"{balancer.name}.sock")
    url = ("--unix-socket", socket, f"http://llb{resource}")
    return balancer.lab.lb.run("curl", "-sS", "-m", "5", *url, check=False).stdout


def leaves_no_core(daemon: Process | None) -> None:
    """Have it die as by a fault in a library of its."""
    assert daemon is not None
    daemon.send_signal(signal.SIGSEGV)
    ended = os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_code == os.CLD_KILLED, "and not CLD_DUMPED"
    daemon.wait()


def test_a_secret_is_in_no_log_page_answer_or_file(balancer: lab.Balancer) -> None:
    def is_failing() -> bool:
        services = balancer.control.get("/status")["services"]
        (registry,) = (each for each in services if each["name"] == "registry")
        return bool(registry["sources"][0]["error"])

    wait_until(is_failing, lab.LIMIT, "the provider has tried")
    said = [fetched(balancer, route.path) for route in READS]
    said += [fetched(balancer, path) for path in ("/metrics", "/", "/openapi.json")]
    said += [told(balancer, *words) for words in (
        ("status",), ("status", "--json"), ("backends", "--json"), ("plan", "--json"),
        ("check", "--json"), ("providers", "test", "consul"), ("drain", "10.0.0.11"),
    )]  # fmt: skip
    # A reload, one that only shows, and those that are refused, for each of the ways to be wrong.
    balancer.write_config(extra=with_token(f'"{SECOND}"'))
    said += [told(balancer, "reload", "--dry-run"), told(balancer, "reload")]
    for wrong in (
        f'["{SECOND}"]',
        f'"{SECOND}"\ntoken_env = "X"',
        f'"{SECOND}"\ntokne = "{SECOND}"',
    ):
        balancer.write_config(extra=with_token(wrong))
        said += [told(balancer, "reload"), told(balancer, "check")]
    leaves_no_core(balancer.daemon)
    said.append(balancer.log.read_text())
    for folder in (RUN, STATE):
        said += [
            path.read_text(errors="replace")
            for path in folder.glob(f"{balancer.name}*")
            if path.is_file()
        ]
    assert any("connection refused" in text.lower() or "refused" in text for text in said)
    for text in said:
        for secret in (SECRET, SECOND):
            assert secret not in text
