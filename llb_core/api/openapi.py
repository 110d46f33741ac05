"""The OpenAPI 3.1 description of the control socket, made from the table of its resources.

`python -m llb_core.api.openapi` prints it: docs/openapi.json is that, and a test holds it true.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from llb_core.api import requests, schema
from llb_core.api.routes import READS, TEXTS, WRITES
from llb_core.api.streams import STREAMS, Stream

DESCRIPTION = """\
HTTP over the Unix socket /run/llb/NAME.sock, as `llb status` and the other commands use it. Whoever
may open the socket may do all of this; who it was is noted with an order. Nothing here takes the
name of a file, a host or an option of a provider.
"""
_TEMPLATE = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The request is wrong",
    "404": "What it names is not there",
    "408": "The request's body did not arrive in time",
    "413": "The request's body is too large",
    "500": "It failed",
    "503": "What was ordered stands, and is not carried out yet: it is tried again",
}


def describe() -> dict[str, Any]:
    """Return the description, as GET /openapi.json answers it."""
    models: set[type[schema.Answer | requests.Request]] = {schema.Error}
    models |= {route.answer for route in (*READS, *STREAMS, *WRITES)}
    models |= {each.request for each in WRITES}
    _, schemas = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template=_TEMPLATE,
    )
    paths: dict[str, Any] = {
        route.path: {"get": _operation(route.summary, route.answer.__name__, ("500",))}
        for route in READS
    }
    paths["/openapi.json"] = {"get": _told("This description", "application/json", "object")}
    for text in TEXTS:
        paths[text.path] = {"get": _told(text.summary, text.media, "string", ("500",))}
    for stream in STREAMS:
        paths[stream.path] = {"get": _streamed(stream)}
    for route in WRITES:
        # What ends connections is done at once, and orders nothing that could stand.
        errors = [each for each in _ERRORS if each != "503" or route.answer is not schema.Killed]
        operation = _operation(route.summary, route.answer.__name__, errors)
        operation["requestBody"] = {"required": True, "content": _json(route.request.__name__)}
        paths[route.path] = {"post": operation}
    for path, item in paths.items():
        for operation in item.values():
            operation["operationId"] = path.strip("/").removesuffix(".json").replace("/", "_")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LLB's control socket",
            "version": "1",
            "description": DESCRIPTION.strip(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(summary: str, answer: str, errors: Sequence[str]) -> dict[str, Any]:
    return _answered(summary, _json(answer), errors)


def _streamed(stream: Stream) -> dict[str, Any]:
    """Describe a stream; its query's parameters are the fields of its model."""
    operation = _operation(stream.summary, stream.answer.__name__, stream.errors)
    content = operation["responses"]["200"]["content"]
    operation["responses"]["200"]["content"] = {stream.media: content["application/json"]}
    query = stream.query.model_json_schema()
    properties, required = query["properties"], query.get("required", ())
    if "form" in properties:
        operation["responses"]["200"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    operation["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": described.pop("description", name),
            "schema": {key: value for key, value in described.items() if key != "title"},
        }
        for name, described in properties.items()
    ]
    return operation


def _told(summary: str, media: str, kind: str, errors: Sequence[str] = ()) -> dict[str, Any]:
    return _answered(summary, {media: {"schema": {"type": kind}}}, errors)


def _answered(summary: str, content: dict[str, Any], errors: Sequence[str]) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "Done", "content": content}}
    for status in errors:
        responses[status] = {"description": _ERRORS[status], "content": _json("Error")}
    return {"summary": summary, "responses": responses}


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _TEMPLATE.format(model=model)}}}


if __name__ == "__main__":
    json.dump(describe(), sys.stdout, indent=2)
    sys.stdout.write("\n")
