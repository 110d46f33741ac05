"""The contract of a provider, held against the provider `static`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llb_provider_static import StaticProvider

from llb_core import Backend
from llb_core.testing import ProviderContract


class TestStatic(ProviderContract):
    provider = StaticProvider
    options: Mapping[str, Any] = {"path": "backends.toml"}

    def say(self, backends: Sequence[Backend]) -> None:
        entries = (
            f'{{address = "{b.endpoint.address}", port = {b.endpoint.port}, weight = {b.weight}}}'
            for b in backends
        )
        new = self.folder / "backends.toml.new"
        new.write_text(f"backends = [{', '.join(entries)}]\n")
        new.replace(self.folder / "backends.toml")

    def fail(self) -> None:
        (self.folder / "backends.toml").unlink(missing_ok=True)


class TestStaticJson(TestStatic):
    options: Mapping[str, Any] = {"path": "backends.json"}

    def say(self, backends: Sequence[Backend]) -> None:
        new = self.folder / "backends.json.new"
        new.write_text(json.dumps([{"targets": [str(each.endpoint) for each in backends]}]))
        new.replace(self.folder / "backends.json")

    def fail(self) -> None:
        (self.folder / "backends.json").unlink(missing_ok=True)
