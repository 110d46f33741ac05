"""The wheels: what they carry, and that they serve in an environment where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of llb and of its static provider, by distribution, built from a copy."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("llb_core", "bpf", "llb_providers/static"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=UNWANTED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for project in (source, source / "llb_providers/static"):
        run(sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", output, project)
    return {wheel.name.split("-")[0]: wheel for wheel in output.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a clean environment into which only these wheels were installed."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python")
    run(*pip, "install", "-q", "--no-compile", *wheels.values())
    return environment / "bin"


def test_the_wheel_of_llb_carries_every_c_source(wheels: dict[str, Path]) -> None:
    sources = {
        f"llb_core/_bpf/{path.relative_to(ROOT / 'bpf')}" for path in (ROOT / "bpf").rglob("*.[ch]")
    }
    assert "llb_core/_bpf/llb.c" in sources
    assert sources <= contents(wheels["llb"])


def test_the_wheel_of_llb_carries_every_module_and_nothing_else(wheels: dict[str, Path]) -> None:
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "llb_core").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    others = {name for name in contents(wheels["llb"]) if "/_bpf/" not in name}
    assert modules <= others
    assert all(name.startswith(("llb_core/", "llb-")) for name in others)
    assert "llb_core/py.typed" in others


def test_the_provider_is_a_distribution_of_its_own(wheels: dict[str, Path]) -> None:
    names = contents(wheels["llb_provider_static"])
    assert not any(name.startswith("llb_core") for name in names)
    assert any(name.startswith("llb_provider_static/") for name in names)


def test_the_command_works_where_only_the_wheels_are(installed: Path, tmp_path: Path) -> None:
    assert "drain" in run(installed / "llb", "--help", cwd=tmp_path)
    assert run(installed / "llb", "--version", cwd=tmp_path).startswith("llb ")


def test_the_static_provider_is_found_and_checks_its_part(installed: Path, tmp_path: Path) -> None:
    assert "static" in run(installed / "llb", "providers", "list", cwd=tmp_path)
    run(installed / "llb", "check", "-c", ROOT / "examples/static/llb.toml", cwd=tmp_path)


def test_the_classifier_is_found_in_the_installed_package(installed: Path, tmp_path: Path) -> None:
    program = (
        "from llb_core.datapath import sources; print(sources.SOURCES); print(sources.amalgamate())"
    )
    folder, _, text = run(installed / "python", "-c", program, cwd=tmp_path).partition("\n")
    assert Path(folder).is_relative_to(installed.parent)
    assert "ingress" in text.lower() or "dnat" in text.lower()


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def run(*command: str | Path, cwd: Path | None = None) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=clean)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
