"""A provider of one's own: the example and what `llb providers new` writes are built, installed
into an environment of their own, and used; and what the documentation shows is what runs here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from llb_core.cli.new_package import files, next_steps, write

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "custom-provider"
GUIDE = ROOT / "docs" / "writing-a-provider.md"
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*_cache")
BLOCK = re.compile(
    r"(?:<!-- from (?P<path>\S+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL
)


@dataclass(frozen=True)
class Installed:
    """A provider's package, and the `bin` of the environment where its wheel is installed."""

    name: str
    folder: Path
    bin: Path

    def llb(self, *arguments: object) -> str:
        return run(self.bin / "python", "-m", "llb_core", *arguments, cwd=self.folder)


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def environment(folder: Path) -> Path:
    """Make an environment that has nothing but what LLB runs with here; return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    libraries = Path(run(python, "-c", query, cwd=folder).strip())
    ours = sysconfig.get_path("purelib")
    (libraries / "llb.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


@pytest.fixture(scope="module", params=["csv", "my-registry"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The example, and a package that was just written: built, and installed from its wheel."""
    name: str = request.param
    folder = tmp_path_factory.mktemp("package") / name
    if name == "csv":
        shutil.copytree(EXAMPLE, folder, ignore=UNWANTED)
    else:
        write(name, folder)
    wheels = tmp_path_factory.mktemp("wheels")
    run(sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", wheels, cwd=folder)
    python = environment(tmp_path_factory.mktemp("environment"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    run(*pip, "--no-deps", "--no-index", *wheels.glob("*.whl"), cwd=folder)
    return Installed(name, folder, python.parent)


def test_is_listed_with_its_version_and_options(package: Installed) -> None:
    listed = json.loads(package.llb("providers", "--json"))["providers"]
    (found,) = [each for each in listed if each["name"] == package.name]
    assert found == {
        "name": package.name,
        "distribution": f"llb-provider-{package.name}",
        "version": "0.1.0",
        "options": [{"name": "path", "is_required": True}],
        "error": "",
    }
    assert "relative to llb.toml" in package.llb("providers", "show", package.name)


def test_serves_a_configuration_and_is_tried(package: Installed) -> None:
    assert "is right" in package.llb("check", "-c", "llb.toml")
    tried = json.loads(package.llb("providers", "test", package.name, "-c", "llb.toml", "--json"))
    (web,) = tried["services"]
    assert [(each["backend"], each["weight"]) for each in web["backends"]] == [
        ("10.0.0.11:8080", 1),
        ("10.0.0.12:8080", 2),
    ]


def test_passes_the_contract_and_its_own_tests(package: Installed) -> None:
    said = run(package.bin / "python", "-m", "pytest", "-p", "no:cacheprovider", cwd=package.folder)
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) >= 20
    assert "skipped" not in said


def test_what_is_printed_in_the_end_works_line_by_line_in_a_fresh_shell(tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "my work").mkdir()
    python = environment(tmp_path / "environment")
    command = [python, "-m", "llb_core", "providers", "new", "fresh"]
    written = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path / "my work"
    )
    steps = [line for line in written.stderr.splitlines() if line.startswith("  ")]
    # Without an index: what the steps install is here already, but for the package itself.
    no_index = ["PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0"]
    shell = ["env", "-i", f"HOME={tmp_path}", "PATH=/usr/bin:/bin", *no_index, "bash", "-ec"]
    said = run(*shell, "\n".join(steps), cwd=Path("/"))
    assert re.search(r"\d+ passed", said)
    assert "web: provider fresh says 2 backends" in said
    found = run(python, "-m", "llb_core", "providers", "--json", cwd=Path("/"))
    assert "fresh" in {each["name"] for each in json.loads(found)["providers"]}


def test_has_an_environment_of_its_own_where_the_system_manages_packages(tmp_path: Path) -> None:
    assert next_steps("csv", tmp_path / "a b", is_managed=True) == [
        f"cd '{tmp_path}/a b'",
        f"export PYTHONPATH={ROOT}",
        f"{sys.executable} -m venv .venv",
        ".venv/bin/python -m pip install -e '.[test]'",
        ".venv/bin/python -m pytest",
        ".venv/bin/python -m llb_core providers test csv -c llb.toml",
    ]


def test_the_example_is_what_is_written_for_its_name() -> None:
    written = files("csv")
    assert {path: (EXAMPLE / path).read_text() for path in written} == written


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer(GUIDE.read_text()))


def test_the_guide_shows_the_whole_example() -> None:
    shown = {block["path"]: block["text"] for block in blocks() if block["path"]}
    for path in ("src/llb_provider_csv/__init__.py", "pyproject.toml"):
        assert shown[f"examples/custom-provider/{path}"] == (EXAMPLE / path).read_text()


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block["path"] or block["kind"])
def test_code_in_the_guide_is_code_that_runs(block: re.Match[str]) -> None:
    if block["path"]:
        assert block["text"] in (ROOT / block["path"]).read_text()
    else:
        assert block["kind"] in ("sh", "text"), "say by <!-- from PATH --> where it is from"
