"""How the daemon of a configuration is found, whatever is wrong with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.cli import observe
from llb_core.cli.observe import balancer_name
from llb_core.errors import ConfigurationError
from tests.api.test_control_socket import Daemon
from tests.cli.conftest import served
from tests.cli.test_commands import RIGHT

NAMED = 'name = "no-such-balancer"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "llb.toml"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (RIGHT, "no-such-balancer"),
        (RIGHT.replace("[loadbalancer]", "[ loadbalancer ]"), "no-such-balancer"),
        (RIGHT.replace("port = 80", "prt = "), "no-such-balancer"),
        (RIGHT.replace(NAMED, "").replace("port = 80", "prt = "), "llb"),
        ('[loadbalancer]\nname = "edge"\n[services.web]\nname = "x"', "edge"),
        ('[loadbalancer]  # ours\n  name="a-b_1"', "a-b_1"),
        ("[loadbalancer]\nmax_connections = 1\n[api]\n", "llb"),
        ('[api]\nlisten = "1"\n\n[loadbalancer]\nname = "late"\n', "late"),
        (RIGHT.replace(NAMED, 'nme = "other"\n'), None),
        (RIGHT.replace(NAMED, 'name = "other\n'), None),
        ('[loadbalancer]\nname = "../../etc"\n', None),
        ("[loadbalancer]\nname = 7\n", None),
        ("[loadbalancer]\nname = \n", None),
        ("[loadbalancer\n", None),
        ("[services.web]\n", None),
        ("\x00", None),
        (None, None),
    ],
)
def test_the_name_is_told_where_it_is_plain(
    config: Path, text: str | None, name: str | None
) -> None:
    if text is not None:
        config.write_text(text)
    if name is not None:
        assert balancer_name(config) == name
        return
    with pytest.raises(ConfigurationError) as refused:
        balancer_name(config)
    assert all(line.startswith(f"{config}: ") for line in str(refused.value).splitlines())


@pytest.fixture
def running(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Daemons on real sockets, of which one runs with the configuration."""
    monkeypatch.setattr(observe, "RUN", tmp_path)

    class Named(Daemon):
        def __init__(self, name: str, path: Path) -> None:
            super().__init__()
            self._status = {"name": name, "config": str(path)}

        async def status(self) -> dict[str, object]:
            return dict(self._status)

    others = Named("a", tmp_path / "another.toml")
    with served((tmp_path / "a.sock", others), (tmp_path / "b.sock", Named("b", config))):
        yield


@pytest.mark.parametrize(
    "text",
    [RIGHT.replace("[loadbalancer]", "[loadbalancer"), RIGHT.replace("name =", "nme ="), None],
    ids=["no table", "misspelt", "no file"],
)
def test_where_the_file_does_not_tell_the_name_the_daemon_does_that_runs_with_it(
    running: None, config: Path, text: str | None
) -> None:
    if text is not None:
        config.write_text(text)
    assert balancer_name(config) == "b"
