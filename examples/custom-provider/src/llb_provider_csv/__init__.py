"""Backends of LLB from a CSV file: the provider `csv`."""

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
def llb_provider() -> type[CsvProvider]:
    return CsvProvider
