"""What is asked of a daemon about a service, a backend or an address that it has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from llb_core.past_connections import PastConnection, Seen
from llb_core.run_folder import RunFolder
from tests.api.answers import Answering
from tests.cli.conftest import Llb, served
from tests.cli.test_commands import RIGHT

NO_SERVICE = 'there is no service "nope": see llb status'
NO_BACKEND = "no service has a backend 10.0.0.99: see llb backends for those there are"


class Idle(Answering):
    """Has and had no connection."""

    async def read_tables(self, question: object) -> bytes:
        """Return none."""
        return b'{"source": "daemon", "total": 0, "connections": []}'

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Return none."""
        return [], 50.0


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("events --service nope", NO_SERVICE),
        ("connections --backend 10.0.0.99", NO_BACKEND),
        ("connections --backend 10.0.0.2 --service nope", NO_SERVICE),
        (
            "who 198.51.100.11:4000",
            "198.51.100.11 is no SNAT address of this balancer: it has 10.0.0.1",
        ),
        (
            "who 198.51.100.0/24",
            "198.51.100.0/24 has no SNAT address of this balancer: it has 10.0.0.1",
        ),
        ("connections --backend 10.0.0.2", None),
        ("who 10.0.0.1:4000", None),
        ("who 10.0.0.0/24", None),
    ],
)
def test_what_is_not_there_is_refused(
    llb: Llb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, refusal: str | None
) -> None:
    config, control = tmp_path / "llb.toml", tmp_path / "llb.sock"
    config.write_text(RIGHT)
    monkeypatch.setattr(RunFolder, "socket", control)
    with served((control, Idle())):
        done = llb(*words.split(), "-c", config)
    if refusal is None:
        assert done.code == 0
    else:
        assert (done.code, done.out, done.err) == (2, "", f"llb: {refusal}\n")


def test_who_stood_behind_an_address_that_is_ours_no_longer_is_told(
    llb: Llb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, control = tmp_path / "llb.toml", tmp_path / "llb.sock"
    config.write_text(RIGHT)
    monkeypatch.setattr(RunFolder, "socket", control)
    with served((control, Answering())):
        done = llb("who", "10.0.0.77:4000", "-c", config)
    assert done.code == 0
    assert "192.0.2.9:4001" in done.out
