"""The description of the control socket is true: of its routes, of what they take and answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llb_core.api.openapi import describe
from llb_core.api.routes import READS, TEXTS, WRITES
from llb_core.api.server import application
from llb_core.api.streams import STREAMS
from tests.api.test_control_socket import Daemon

PAGE = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_page_is_what_the_socket_answers() -> None:
    assert json.loads(PAGE.read_text()) == json.loads(json.dumps(describe())), (
        "run: .venv/bin/python -m llb_core.api.openapi > docs/openapi.json"
    )


def test_describes_every_route_and_no_other() -> None:
    served = {
        (route.method.lower(), route.resource.canonical if route.resource else "")
        for route in application(Daemon(), may_write=True).router.routes()
        if route.method != "HEAD"
    }
    described = {(method, path) for path, item in describe()["paths"].items() for method in item}
    assert served == described
    assert len(served) == len(READS) + len(TEXTS) + len(STREAMS) + len(WRITES) + 1


def test_it_is_openapi() -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator

    assert [error.message for error in OpenAPIV31SpecValidator(describe()).iter_errors()] == []


def test_what_a_query_must_have_is_required() -> None:
    required = {
        (path, each["name"])
        for path, item in describe()["paths"].items()
        for each in item.get("get", {}).get("parameters", ())
        if each["required"]
    }
    assert required == {("/who", "address")}


def test_only_what_stands_is_said_to_stand() -> None:
    told = {path for path, item in describe()["paths"].items() if "503" in str(item)}
    assert told == {route.path for route in WRITES} - {"/kill"}


def strings(schema: Any) -> set[str]:
    """Return every name of a property, wherever it stands."""
    if isinstance(schema, dict):
        own = set(schema.get("properties", {}))
        return own.union(*(strings(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*map(strings, schema))
    return set()


def test_no_request_names_a_file_a_host_or_a_providers_option() -> None:
    """The socket can't be used to read files or to reach other hosts: this is all that it takes."""
    named = set().union(*(strings(route.request.model_json_schema()) for route in WRITES))
    assert named == {
        "backend", "service", "why", "sudo_user", "deadline", "weight", "dry_run",
        "client", "vip",
    }  # fmt: skip


@pytest.mark.parametrize("route", WRITES, ids=lambda route: route.path)
def test_a_request_takes_no_key_besides(route: Any) -> None:
    assert route.request.model_json_schema()["additionalProperties"] is False
