"""The comparison through namespaces, in its shortest form: every way and every load works."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.network import KINDS, LOADS, measure, proxies, tables
from llb_core.demo.network import NAMESPACES

pytestmark = pytest.mark.netns

NAMES = ("connections, the backend closes", "small UDP packets", "latency on a kept connection")
SHORT = [load for load in LOADS if load.name in NAMES]
"""Enough to see that a way works, and nothing that takes a second at least."""


def test_measures_every_way_and_leaves_nothing_behind() -> None:
    said: list[str] = []
    results = measure(list(KINDS.values()), SHORT, 1, 0.2, said.append)
    has_ipvs = Path("/proc/net/ip_vs").exists()
    for name in KINDS.keys() - (set() if has_ipvs else {"ipvs"}):
        for load in SHORT:
            for row in load.all_rows:
                figure = results.median(row, name)
                if (name, load.transport) == ("haproxy", "udp"):
                    assert figure is None
                else:
                    assert figure is not None, (name, row, said)
                    # CPU time is what all CPUs have not been idle, by a clock of 10 ms.
                    assert figure > 0 or row.kind == "cpu", (name, row)
    assert any("no IPVS" in remark for remark in results.remarks) is not has_ipvs
    assert "| LLB | LLB on clsact |" in tables(results, SHORT)
    assert not list(NAMESPACES.glob(f"llb-{os.getpid()}-*"))
    assert not [line for line in command_lines() if f"llb-bench-{os.getpid()}-" in line]


def test_goes_on_without_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    which = shutil.which
    monkeypatch.setattr(proxies, "FETCHED", tmp_path)
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name in ("haproxy", "nginx") else which(name)
    )
    chosen = [KINDS[name] for name in ("haproxy", "nginx", "plain")]
    results = measure(chosen, LOADS, 1, 0.2, print)
    assert [kind.name for kind in results.kinds] == ["plain"]
    missing = [remark for remark in results.remarks if "is left out" in remark]
    assert [remark.split()[0] for remark in missing] == ["HAProxy", "nginx"]
    assert all("scripts/setup dev fetches it" in remark for remark in missing)
    figures = {row: results.median(row, "plain") for load in LOADS for row in load.all_rows}
    assert None not in figures.values(), (figures, results.remarks)


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_text()
