"""One process at a time changes what is installed under a name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from llb_core.errors import AlreadyRunning
from llb_core.run_folder import RunFolder


def test_a_second_one_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with (
        RunFolder("llb", tmp_path).locked(),
        pytest.raises(
            AlreadyRunning, match=re.escape(f'(pid {os.getpid()}) runs the balancer "llb"')
        ),
        RunFolder("llb", tmp_path).locked(),
    ):
        pass


def test_another_name_is_another_balancer(tmp_path: Path) -> None:
    with RunFolder("a", tmp_path).locked(), RunFolder("b", tmp_path).locked():
        pass


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder("llb", tmp_path).locked():
            pass


def test_removing_leaves_nothing_and_does_not_break_the_lock(tmp_path: Path) -> None:
    folder = RunFolder("llb", tmp_path / "llb")
    with folder.locked():
        folder.orders.touch()
        folder.remove()
        assert not folder.root.exists()
    with folder.locked(), pytest.raises(AlreadyRunning), folder.locked():
        pass


def test_other_balancers_files_are_left_alone(tmp_path: Path) -> None:
    with RunFolder("b", tmp_path).locked(), RunFolder("a", tmp_path).locked():
        RunFolder("a", tmp_path).remove()
        assert RunFolder("b", tmp_path).lock_file.exists()
