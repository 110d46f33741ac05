"""scripts/setup on a machine where part of it is there, and a second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[1]
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".venv")


SETUP = ROOT / "scripts/setup"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what set-up needs, with a virtual environment whose Python has gone."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("llb_core", "bpf", "llb_providers", "scripts"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=UNWANTED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    (copy / ".venv/bin").mkdir(parents=True)
    (copy / ".venv/bin/python").symlink_to("/nowhere/python3.9")
    set_up(copy)
    return copy


def test_makes_a_broken_environment_anew(checkout: Path) -> None:
    done = subprocess.run(
        [checkout / ".venv/bin/llb", "providers", "list"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert "static" in done.stdout


def test_a_second_time_does_nothing_and_is_quick(checkout: Path) -> None:
    begun = time.monotonic()
    said = set_up(checkout)
    assert said == ""
    assert time.monotonic() - begun < 10  # 0.2 s on an idle machine


def test_installs_anew_when_the_requirements_change(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    project.write_text(project.read_text() + "\n# changed\n")
    assert "installing llb" in set_up(checkout)


def test_says_what_it_can_set_up_where_it_is_not_told() -> None:
    ran = subprocess.run([SETUP], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "`scripts/setup run` to run LLB" in ran.stderr
    assert "`scripts/setup dev` to test" in ran.stderr


def test_names_the_profiles_for_one_that_is_not_there() -> None:
    done = subprocess.run([SETUP, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run or dev" in done.stderr


def set_up(checkout: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    environment["PIP_COMPILE"] = "0"
    done = subprocess.run(
        [checkout / "scripts/setup", "run"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
