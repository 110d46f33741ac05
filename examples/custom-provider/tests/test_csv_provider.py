"""The contract of a provider, and what is this one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from llb_provider_csv import CsvOptions, CsvProvider

from llb_core import Backend, ProviderContext, ProviderError
from llb_core.testing import ProviderContract


class TestCsv(ProviderContract):
    provider = CsvProvider
    options: Mapping[str, Any] = {"path": "backends.csv"}

    def say(self, backends: Sequence[Backend]) -> None:
        rows = [f"{b.endpoint.address},{b.endpoint.port},{b.weight}\n" for b in backends]
        new = self.folder / "new"
        new.write_text("".join(rows))
        new.rename(self.folder / "backends.csv")

    def fail(self) -> None:
        (self.folder / "backends.csv").unlink(missing_ok=True)


def gather(folder: Path, text: str) -> Sequence[Backend]:
    (folder / "backends.csv").write_text(text)
    options = CsvOptions(path=Path("backends.csv"))
    return CsvProvider(options, ProviderContext("web", folder)).gather_backends()


def test_reads_address_port_and_weight(tmp_path: Path) -> None:
    (backend,) = gather(tmp_path, "10.0.0.2,8080,3\n")
    assert (str(backend.endpoint), backend.weight) == ("10.0.0.2:8080", 3)


@pytest.mark.parametrize("row", ["web.example,80,1", "10.0.0.3,http,1"])
def test_names_the_line_that_is_wrong(tmp_path: Path, row: str) -> None:
    with pytest.raises(ProviderError, match=r"^backends\.csv: line 2: "):
        gather(tmp_path, f"10.0.0.2,8080,1\n{row}\n")


@pytest.mark.parametrize("row", ["", "10.0.0.3,80", "10.0.0.3,80,1,2"])
def test_says_what_a_line_is_where_one_is_none(tmp_path: Path, row: str) -> None:
    message = f'^backends.csv: line 2: "{row}" is not address,port,weight: mend or remove it$'
    with pytest.raises(ProviderError, match=message):
        gather(tmp_path, f"10.0.0.2,8080,1\n{row}\n10.0.0.4,8080,1\n")
