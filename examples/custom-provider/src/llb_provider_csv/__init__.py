"""Backends of LLB from a CSV file: the provider `csv`."""

import csv
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pydantic import Field

from llb_core import Backend, Endpoint, Provider, ProviderError, ProviderOptions, hookimpl


class CsvOptions(ProviderOptions):
    path: Path = Field(description="the file, relative to llb.toml; a line is address,port,weight")


class CsvProvider(Provider[CsvOptions]):
    name = "csv"
    Options = CsvOptions
    refresh = 1.0  # seconds after which it is asked again

    def gather_backends(self) -> Sequence[Backend]:
        path = self.options.path
        try:
            lines = (self.context.base / path).read_text().splitlines()
        except (OSError, UnicodeError) as error:
            raise ProviderError(f"{path}: can't be read: {error}") from error
        rows = csv.reader(lines, strict=True)
        try:
            return [
                Backend(
                    Endpoint(ip_address(address), int(port)),
                    int(weight),
                    entry=f"{path}: line {rows.line_num}",  # what errors call it
                )
                for address, port, weight in rows
            ]
        except (ValueError, csv.Error) as error:
            raise ProviderError(f"{path}: line {rows.line_num}: {error}") from error


@hookimpl
def llb_provider() -> type[CsvProvider]:
    return CsvProvider
