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

from llb_core.cli.new_package import files, write

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


@pytest.fixture(scope="module", params=["csv", "my-registry"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The example, and a package that was just written: built, and installed from its wheel.

    The environment has nothing else but what LLB runs with here.
    """
    name: str = request.param
    folder = tmp_path_factory.mktemp("package") / name
    if name == "csv":
        shutil.copytree(EXAMPLE, folder, ignore=UNWANTED)
    else:
        write(name, folder)
    wheels = tmp_path_factory.mktemp("wheels")
    run(sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", wheels, cwd=folder)
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    libraries = Path(run(python, "-c", query, cwd=folder).strip())
    ours = sysconfig.get_path("purelib")
    (libraries / "llb.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    run(*pip, "--no-deps", "--no-index", *wheels.glob("*.whl"), cwd=folder)
    return Installed(name, folder, environment / "bin")


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
