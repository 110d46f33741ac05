"""The package that `llb providers new` writes: a provider that works, to be made into another.

`examples/custom-provider` is what comes out for the name csv; a test holds the two together.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import sysconfig
from pathlib import Path

import llb_core
from llb_core.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_TEMPLATES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "llb-provider-@name@"
version = "0.1.0"
description = "Backends of LLB from a CSV file"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["llb>=0.1", "pydantic>=2.6"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.llb]
@name@ = "@module@"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
@module@ = ["py.typed"]

[tool.pytest.ini_options]
testpaths = ["tests"]
""",
    "src/@module@/__init__.py": '''\
"""Backends of LLB from a CSV file: the provider `@name@`."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field

from llb_core import Backend, Endpoint, Provider, ProviderError, ProviderOptions, hookimpl


class @Class@Options(ProviderOptions):
    path: Path = Field(description="the file, relative to llb.toml; a line is address,port,weight")


class @Class@Provider(Provider[@Class@Options]):
    name = "@name@"
    Options = @Class@Options
    refresh = 1.0  # seconds after which it is asked again

    def gather_backends(self) -> Sequence[Backend]:
        where = str(self.options.path)
        backends = []
        try:
            lines = (self.context.base / where).read_text().splitlines()
            for number, line in enumerate(lines, 1):
                where = f"{self.options.path}: line {number}"
                if line.count(",") != 2:
                    raise ValueError(f'"{line:.60}" is not address,port,weight: mend or remove it')
                address, port, weight = line.split(",")
                endpoint = Endpoint(ip_address(address), int(port))
                backends.append(Backend(endpoint, int(weight), entry=where))
        except (OSError, ValueError) as error:
            raise ProviderError(f"{where}: {error}") from error
        return backends


@hookimpl
def llb_provider() -> type[@Class@Provider]:
    return @Class@Provider
''',
    "src/@module@/py.typed": "",
    "tests/test_@word@_provider.py": '''\
"""The contract of a provider, and what is this one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from @module@ import @Class@Options, @Class@Provider

from llb_core import Backend, ProviderContext, ProviderError
from llb_core.testing import ProviderContract


class Test@Class@(ProviderContract):
    provider = @Class@Provider
    options: Mapping[str, Any] = {"path": "backends.csv"}

    def say(self, backends: Sequence[Backend]) -> None:
        rows = [f"{b.endpoint.address},{b.endpoint.port},{b.weight}\\n" for b in backends]
        new = self.folder / "new"
        new.write_text("".join(rows))
        new.rename(self.folder / "backends.csv")

    def fail(self) -> None:
        (self.folder / "backends.csv").unlink(missing_ok=True)


def gather(folder: Path, text: str) -> Sequence[Backend]:
    (folder / "backends.csv").write_text(text)
    options = @Class@Options(path=Path("backends.csv"))
    return @Class@Provider(options, ProviderContext("web", folder)).gather_backends()


def test_reads_address_port_and_weight(tmp_path: Path) -> None:
    (backend,) = gather(tmp_path, "10.0.0.2,8080,3\\n")
    assert (str(backend.endpoint), backend.weight) == ("10.0.0.2:8080", 3)


@pytest.mark.parametrize("row", ["web.example,80,1", "10.0.0.3,http,1"])
def test_names_the_line_that_is_wrong(tmp_path: Path, row: str) -> None:
    with pytest.raises(ProviderError, match=r"^backends\\.csv: line 2: "):
        gather(tmp_path, f"10.0.0.2,8080,1\\n{row}\\n")


@pytest.mark.parametrize("row", ["", "10.0.0.3,80", "10.0.0.3,80,1,2"])
def test_says_what_a_line_is_where_one_is_none(tmp_path: Path, row: str) -> None:
    message = f'^backends.csv: line 2: "{row}" is not address,port,weight: mend or remove it$'
    with pytest.raises(ProviderError, match=message):
        gather(tmp_path, f"10.0.0.2,8080,1\\n{row}\\n10.0.0.4,8080,1\\n")
''',
    "llb.toml": """\
# To try the provider:
#
#     llb check -c llb.toml
#     llb providers test @name@ -c llb.toml

[loadbalancer]
public_interface  = "eth0"
private_interface = "eth1"
backend_cidrs     = ["10.0.0.0/24"]
snat_addresses    = ["10.0.0.1"]

[services.web]
address = "203.0.113.10"
port    = 80

[services.web.provider]
name = "@name@"
path = "backends.csv"
""",
    "backends.csv": """\
10.0.0.11,8080,1
10.0.0.12,8080,2
""",
    "README.md": """\
# llb-provider-@name@

Backends from a CSV file, for LLB: a provider of one's own.

```toml
# llb.toml
[services.web.provider]
name = "@name@"
path = "backends.csv"       # a line is address,port,weight; no line is no backend
```

The file is read every second. Write another beside it and rename it, so that half of it is never
read: `mv backends.csv.new backends.csv`. While it is wrong or gone, the last good backends stay.

It needs LLB in the same environment: what `llb providers new` printed in the end installs it there.
In this folder, with that environment active:

```sh
pip install -e '.[test]'
pytest                                          # the contract of a provider, and its own tests
llb providers show @name@
llb providers test @name@ -c llb.toml
pip install build && python -m build            # the wheel, to publish or to install elsewhere
```
""",
}


def files(name: str) -> dict[str, str]:
    """Return the package's files by path; raise ConfigurationError where the name is none."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f'"{name}" is not the name of a provider: lower-case letters, digits and hyphens, '
            "a letter first"
        )
    word = name.replace("-", "_")
    values = {
        "@name@": name,
        "@word@": word,
        "@module@": f"llb_provider_{word}",
        "@Class@": "".join(part.capitalize() for part in name.split("-")),
    }
    return {_filled(path, values): _filled(text, values) for path, text in _TEMPLATES.items()}


def write(name: str, folder: Path) -> list[Path]:
    """Write the package into a folder that is not there yet, or empty; return what was written."""
    texts = {folder / path: text for path, text in files(name).items()}
    target = folder
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"{folder}: is there already: name another with --folder")
        for target, text in texts.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    except OSError as error:
        raise ConfigurationError(
            f"{target}: can't be written: {error.strerror}: name another place with --folder, "
            "or a shorter name"
        ) from error
    return list(texts)


def next_steps(name: str, folder: Path, *, is_managed: bool | None = None) -> list[str]:
    """Return the commands that build, test and try the package in a folder, for a fresh shell.

    They install it beside the LLB that runs here; or, where that lies among the packages of an
    operating system that has them managed (PEP 668), in an environment of its own that sees LLB.
    """
    python = shlex.quote(sys.executable)
    lines = [f"cd {shlex.quote(str(folder.absolute()))}"]
    if _is_managed() if is_managed is None else is_managed:
        lines += [
            f"export PYTHONPATH={shlex.quote(str(Path(llb_core.__file__).parents[1]))}",
            f"{python} -m venv .venv",
        ]
        python = ".venv/bin/python"
    elif importlib.util.find_spec("pip") is None:
        lines.append(f"{python} -m ensurepip")
    return [
        *lines,
        f"{python} -m pip install -e '.[test]'",
        f"{python} -m pytest",
        f"{python} -m llb_core providers test {name} -c llb.toml",
    ]


def _is_managed() -> bool:
    if sys.prefix != sys.base_prefix:
        return False
    return Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()


def _filled(text: str, values: dict[str, str]) -> str:
    for token, value in values.items():
        text = text.replace(token, value)
    return text
