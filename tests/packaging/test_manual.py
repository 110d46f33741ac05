"""The manual's pages and the completions say what --help says."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from llb_core.cli.app import application

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manual() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manual", ROOT / "packaging" / "manual.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rendered(page: str) -> str:
    done = subprocess.run(
        ["mandoc", "-T", "utf8", "-W", "warning"],
        input=page, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    plain = subprocess.run(
        ["col", "-bx"], input=done.stdout, capture_output=True, text=True, check=True
    )
    return " ".join(plain.stdout.split())


def test_there_is_a_page_for_each_command(manual: ModuleType) -> None:
    commands = get_command(application()).commands  # type: ignore[attr-defined]
    assert set(manual.pages()) == {"llb.1", *(f"llb-{name}.1" for name in commands)}


def test_each_page_is_well_formed_and_has_the_texts_of_help(manual: ModuleType) -> None:
    pages = manual.pages()
    for name, command in get_command(application()).commands.items():  # type: ignore[attr-defined]
        text = rendered(pages[f"llb-{name}.1"])
        assert " ".join(command.help.split()).replace("`", "")[:60] in text.replace("`", "")
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.opts[0] in text, (name, parameter.opts)


def test_the_first_page_names_every_command(manual: ModuleType) -> None:
    text = rendered(manual.pages()["llb.1"])
    for name in get_command(application()).commands:  # type: ignore[attr-defined]
        assert f"llb-{name}(1)" in text


def test_there_is_a_completion_for_each_shell(manual: ModuleType) -> None:
    scripts = manual.completions()
    assert set(scripts) == {"bash", "zsh", "fish"}
    assert all("_LLB_COMPLETE" in script for script in scripts.values())
    subprocess.run(["bash", "-n"], input=scripts["bash"], text=True, check=True)
