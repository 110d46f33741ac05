"""What operators have ordered: which backends to drain. Kept in a file, so that it outlives the
daemon; not in the configuration, which is somebody else's.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llb_core.errors import ConfigurationError, HostError
from llb_core.model import Address, Endpoint

ServiceBackend = tuple[str, Endpoint]
"""The name of a service, and one of its backends."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The backends that an order is about: by address, perhaps by port, perhaps of one service."""

    address: Address
    port: int | None = None
    service: str | None = None

    @classmethod
    def parse(cls, backend: str, service: str | None = None) -> Selection:
        """Read `10.0.0.2:8080`, or `10.0.0.2` for every port; ConfigurationError if it is not."""
        host, _, port = backend.partition(":") if backend.count(":") == 1 else (backend, "", "")
        if backend.startswith("["):
            host, _, port = backend[1:].partition("]")
            port = port.removeprefix(":")
        try:
            address = ipaddress.ip_address(host)
            number = int(port) if port else None
        except ValueError:
            address, number = None, None
        if address is None or (number is not None and not 1 <= number <= 65535):
            raise ConfigurationError(f'"{backend}" is not a backend: write it like 10.0.0.2:8080')
        return cls(address, number, service)

    def of(self, known: Iterable[ServiceBackend]) -> frozenset[ServiceBackend]:
        """Return those that are meant; ConfigurationError where none is."""
        known = frozenset(known)
        if self.service is not None and self.service not in {name for name, _ in known}:
            raise ConfigurationError(
                f'no service "{self.service}" has backends: see llb backends for those there are'
            )
        chosen = frozenset(
            (name, endpoint)
            for name, endpoint in known
            if endpoint.address == self.address
            and self.port in (None, endpoint.port)
            and self.service in (None, name)
        )
        if not chosen:
            owner = "no service has a" if self.service is None else f"{self.service} has no"
            raise ConfigurationError(
                f"{owner} backend {self}: see llb backends for those there are"
            )
        return chosen

    def __str__(self) -> str:
        return str(self.address) if self.port is None else str(Endpoint(self.address, self.port))


class Orders:
    """The orders that stand, and the file that they are kept in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drained = _read(path)

    @property
    def drained(self) -> frozenset[ServiceBackend]:
        """The backends that operators drain."""
        return self._drained

    def drain(self, backends: frozenset[ServiceBackend]) -> None:
        """Order these to be drained."""
        self._keep(self._drained | backends)

    def undrain(self, backends: frozenset[ServiceBackend]) -> None:
        """Take the order back."""
        self._keep(self._drained - backends)

    def _keep(self, drained: frozenset[ServiceBackend]) -> None:
        entries = [{"service": name, "backend": str(backend)} for name, backend in sorted(drained)]
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps({"drained": entries}, indent=1) + "\n")
            draft.rename(self._path)
        except OSError as error:
            raise HostError(
                f"{self._path}: the order can't be kept, and is not carried out: {error.strerror}"
            ) from None
        self._drained = drained


def _read(path: Path) -> frozenset[ServiceBackend]:
    try:
        entries = json.loads(path.read_text())["drained"]
        return frozenset((str(each["service"]), _endpoint(each["backend"])) for each in entries)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, ConfigurationError) as error:
        raise HostError(
            f"{path}: the operators' orders can't be read ({error}): remove the file, and drain "
            "again what must be drained"
        ) from None


def _endpoint(text: str) -> Endpoint:
    selection = Selection.parse(text)
    if selection.port is None:
        raise ConfigurationError(f'"{text}" has no port')
    return Endpoint(selection.address, selection.port)
