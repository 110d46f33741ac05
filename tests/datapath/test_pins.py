"""Pinned maps are compared with what they ought to be before they are used."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llb_core.datapath import Datapath, bpf_syscall, is_installed, pinning, pins
from llb_core.datapath.bpf_map import create
from llb_core.datapath.layout import MapSpec, MapType
from llb_core.errors import HostError, LayoutMismatch
from tests.datapath.conftest import NAME, Host, settings


def test_opens_the_same_maps_again(host: Host) -> None:
    first = pins.open_maps(NAME, 4, 1000)
    second = pins.open_maps(NAME, 4, 1000)

    ids = [{n: bpf_syscall.map_info(m.fd).id for n, m in maps.items()} for maps in (first, second)]

    assert ids[0] == ids[1]


def test_refuses_tables_of_another_size(host: Host) -> None:
    pins.open_maps(NAME, 4, 1000)

    with pytest.raises(LayoutMismatch, match=r"made for 1000 connections.*max_connections = 2000"):
        pins.open_maps(NAME, 4, 2000)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(MapType.HASH, 8, 72), (MapType.HASH, 16, 8), (MapType.ARRAY, 4, 72)],
    ids=["key", "value", "type"],
)
def test_refuses_a_map_that_is_another_programs(
    host: Host, kind: MapType, key: int, value: int
) -> None:
    folder = pins.pin_folder(NAME)
    folder.mkdir(parents=True)
    spec = MapSpec("foreign", kind, np.dtype(f"V{key}"), np.dtype(f"V{value}"), 1000)
    fd = create(spec)
    bpf_syscall.obj_pin(fd, folder / "dnat_table")
    os.close(fd)

    with pytest.raises(LayoutMismatch, match=r"dnat_table: is not the map.*llb detach"):
        pins.open_maps(NAME, 4, 1000)

    assert [path.name for path in folder.iterdir()] == ["dnat_table"]


def test_refuses_maps_of_another_layout(host: Host) -> None:
    (pins.pin_root(NAME) / "99").mkdir(parents=True)

    with pytest.raises(LayoutMismatch, match=r"maps of layout 99.*llb detach"):
        pins.open_maps(NAME, 4, 1000)


def test_leaves_nothing_behind_when_a_map_cannot_be_made(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = pins.map_specs(1000)
    broken = MapSpec("broken", MapType.ARRAY, np.dtype("V5"), np.dtype("u4"), 1)
    monkeypatch.setattr(pins, "map_specs", lambda *_: (*specs, broken))

    with pytest.raises(HostError, match="map broken"):
        pins.open_maps(NAME, 4, 1000)

    assert not pins.pin_root(NAME).exists()


def test_reading_makes_nothing(host: Host) -> None:
    with pytest.raises(HostError, match=re.escape(f'nothing is installed under the name "{NAME}"')):
        Datapath.open_reading(settings())

    assert not pins.pin_root(NAME).exists()
    assert not is_installed(NAME)


def test_detach_unpins(host: Host) -> None:
    pins.open_maps(NAME, 4, 1000)

    done = Datapath.detach(NAME)

    assert done == [f"removed the maps under {pins.pin_root(NAME)}"]
    assert Datapath.detach(NAME) == []


def test_what_is_pinned_is_found_while_others_take_their_folders_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours" / "4").mkdir(parents=True)
    (tmp_path / "ours" / "4" / "link_2").touch()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    scan = os.scandir

    def scan_late(path: os.PathLike[str]) -> Any:
        """As if it went between being seen and being looked into."""
        if Path(path) == theirs:
            theirs.rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_late)

    assert pinning.pinned(tmp_path, "**/link_*") == [tmp_path / "ours" / "4" / "link_2"]
    assert not theirs.exists()
