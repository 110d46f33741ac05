"""TLS both ways: whose certificate LLB believes, and which one it shows."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llb_core import ProviderError
from llb_core.testing import Calling, until
from llb_providers.consul.tests.conftest import MakeProvider, Waiting
from llb_providers.consul.tests.fake_consul import FakeConsul


def make_certificate(
    folder: Path, name: str, subject_names: str = "", signed_by: str | None = None
) -> None:
    """Write NAME.pem and NAME-key.pem: signed by another, or an authority of its own."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-keyout", f"{name}-key.pem", "-out", f"{name}.pem"]
    if signed_by is not None:
        command += ["-CA", f"{signed_by}.pem", "-CAkey", f"{signed_by}-key.pem"]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    if subject_names:
        command += ["-addext", f"subjectAltName={subject_names}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, what it has signed, and a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificate(folder, "ca")
    make_certificate(folder, "stranger")
    make_certificate(folder, "agent", "IP:127.0.0.1", signed_by="ca")
    make_certificate(folder, "server", "DNS:server.dc1.consul", signed_by="ca")
    make_certificate(folder, "llb", signed_by="ca")
    both = (folder / "llb.pem").read_text() + (folder / "llb-key.pem").read_text()
    (folder / "both.pem").write_text(both)
    (folder / "nonsense.pem").write_text("nonsense\n")
    lock = ["openssl", "ec", "-aes256", "-passout", "pass:word", "-in", "llb-key.pem"]
    lock += ["-out", "locked-key.pem"]
    subprocess.run(lock, cwd=folder, check=True, capture_output=True)
    return folder


def start_agent(certificates: Path, name: str) -> FakeConsul:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}-key.pem")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    fake = FakeConsul(context)
    fake.start()
    fake.register({"Name": "web", "ID": "web-1", "Address": "10.0.0.1", "Port": 80})
    return fake


@pytest.fixture
def agent(certificates: Path) -> Iterator[FakeConsul]:
    """An agent that is known by its address and asks for a certificate."""
    fake = start_agent(certificates, "agent")
    yield fake
    fake.stop()


@pytest.fixture
def server(certificates: Path) -> Iterator[FakeConsul]:
    """One that is known by the name that Consul gives its servers."""
    fake = start_agent(certificates, "server")
    yield fake
    fake.stop()


@pytest.fixture
def make_for(certificates: Path) -> Iterator[Any]:
    """Make providers for an agent, with options relative to the certificates' folder."""
    makers: list[MakeProvider] = []

    def make_for(fake: FakeConsul, **options: Any) -> Any:
        maker = MakeProvider(fake.url, "web", {}, certificates)
        makers.append(maker)
        return maker(**{"timeout": "10s"} | options)

    yield make_for
    for maker in makers:
        for provider in maker.made:
            provider.close()


OURS = {"ca_file": "ca.pem", "cert_file": "llb.pem", "key_file": "llb-key.pem"}


@pytest.mark.parametrize(
    "options", [OURS, {"ca_file": "ca.pem", "cert_file": "both.pem"}], ids=["two files", "one file"]
)
def test_shows_its_certificate(agent: FakeConsul, make_for: Any, options: dict[str, str]) -> None:
    assert len(make_for(agent, **options).gather_backends()) == 1


def test_waits_and_closes_over_tls(agent: FakeConsul, make_for: Any) -> None:
    provider = make_for(agent, **OURS)
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: agent.blocked)
    agent.set_check("service:web-1", "critical")
    assert waiting.result() is True
    provider.gather_backends()

    waiting = Waiting(provider, 60)
    until(lambda: agent.blocked)
    provider.close()

    assert waiting.result(limit=30) is False


def test_knows_a_server_by_another_name_than_the_urls(server: FakeConsul, make_for: Any) -> None:
    provider = make_for(server, server_name="server.dc1.consul", **OURS)

    assert len(provider.gather_backends()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({**OURS, "ca_file": "stranger.pem"}, r"TLS: self.signed certificate in certificate"),
        (
            {"cert_file": "llb.pem", "key_file": "llb-key.pem"},
            r"TLS: self.signed certificate in certificate chain",
        ),
        ({"ca_file": "ca.pem"}, r"TLS: .*(certificate required|set cert_file)"),
        (
            {**OURS, "cert_file": "stranger.pem", "key_file": "stranger-key.pem"},
            r"TLS: .*(unknown ca|set cert_file)",
        ),
        ({**OURS, "server_name": "other.example"}, r"TLS: .*'other\.example'"),
        ({**OURS, "ca_file": "none.pem"}, r"ca_file none\.pem: no such file or directory"),
        ({**OURS, "cert_file": "none.pem"}, r"cert_file none\.pem: no such file or directory"),
        ({**OURS, "key_file": "none.pem"}, r"key_file none\.pem: no such file or directory"),
        ({**OURS, "ca_file": "nonsense.pem"}, r"ca_file nonsense\.pem: holds no certificate"),
        (
            {**OURS, "cert_file": "nonsense.pem"},
            r"cert_file nonsense\.pem and key_file llb-key\.pem: are not a certificate and its key",
        ),
        (
            {**OURS, "key_file": "stranger-key.pem"},
            r"cert_file llb\.pem and key_file stranger-key\.pem: are not a certificate and its key",
        ),
        (
            {**OURS, "key_file": "locked-key.pem"},
            r"key_file locked-key\.pem: are not a certificate and its key, without a password",
        ),
    ],
    ids=[
        "another authority",
        "no authority of ours",
        "no certificate",
        "a stranger's certificate",
        "another name",
        "no ca_file",
        "no cert_file",
        "no key_file",
        "nonsense for ca_file",
        "nonsense for cert_file",
        "another's key",
        "a key with a password",
    ],
)
def test_a_connection_that_can_not_be_trusted_is_an_error_that_says_why(
    agent: FakeConsul, make_for: Any, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ProviderError, match=sentence):
        make_for(agent, **options).gather_backends()

    assert not agent.health_requests()


@pytest.mark.parametrize("name", OURS)
def test_a_pipe_for_one_of_its_files_is_refused_at_once(
    agent: FakeConsul, make_for: Any, tmp_path: Path, name: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    asking = Calling(make_for(agent, **{**OURS, name: str(pipe)}).gather_backends)

    with pytest.raises(ProviderError, match=f"{name} {pipe}: is not a regular file: name one"):
        asking.result(limit=30)

    assert not agent.health_requests()


def test_tls_spoken_to_an_agent_that_does_not_is_an_error(fake: FakeConsul, make_for: Any) -> None:
    with pytest.raises(ProviderError, match="TLS: wrong version number"):
        make_for(fake, url=fake.url.replace("http:", "https:"), **OURS).gather_backends()


def test_an_agent_that_hangs_in_the_handshake_is_an_error_in_time(
    fake: FakeConsul, make_for: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        asking = Calling(make_for(fake, url=url, timeout="1s", **OURS).gather_backends)

        with pytest.raises(ProviderError, match=r"no connection: it does not|no answer within"):
            asking.result(limit=30)
