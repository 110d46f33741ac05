"""What may be asked on the control socket, as models: bodies of requests, and what stands behind a
resource's question mark. Requests are validated by them, and the OpenAPI description is made of
them. What is answered is in `schema`.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from llb_core.api.schema import EventKindName
from llb_core.model import MAX_DEADLINE_DAYS, MAX_WEIGHT

_USER = r"^[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}\$?$"


class Request(BaseModel):
    """What a request's body may say, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Query(BaseModel):
    """What may stand behind a resource's question mark."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_line(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("it is not one line of text")
    return value


Text = Annotated[StrictStr, BeforeValidator(_one_line), Field(max_length=500)]
BackendName = Annotated[
    StrictStr,
    Field(
        max_length=60,
        description="10.0.0.2:8080, or 10.0.0.2 for every port",
        examples=["10.0.0.2:8080"],
    ),
]
EndpointText = Annotated[StrictStr, Field(max_length=60)]
ServiceName = Annotated[
    StrictStr | None, Field(max_length=31, description="by default every service that has it")
]
SudoUser = Annotated[
    StrictStr | None,
    Field(pattern=_USER, description="whom root acts for, noted beside root; from root alone"),
]


class Signed(Request):
    """Who orders something besides the socket's peer, whom the kernel names, and why."""

    why: Text = ""
    sudo_user: SudoUser = None


class BackendRequest(Signed):
    """Which backends something is ordered for."""

    backend: BackendName
    service: ServiceName = None


class DrainRequest(BackendRequest):
    """... to drain them."""

    deadline: Annotated[
        Annotated[StrictFloat, Field(gt=0, le=MAX_DEADLINE_DAYS * 86400)] | None,
        Field(description="seconds after which the connections that are left are ended"),
    ] = None


class WeightRequest(BackendRequest):
    """... to give them a weight."""

    weight: Annotated[
        Annotated[StrictInt, Field(ge=0, le=MAX_WEIGHT)] | None,
        Field(description="null: the provider's again"),
    ]


class KillRequest(Signed):
    """End connections: those of a client, perhaps to one VIP, or those of a backend."""

    client: Annotated[EndpointText | None, Field(description="198.51.100.7:40000")] = None
    vip: Annotated[EndpointText | None, Field(description="with a client: 203.0.113.10:80")] = None
    backend: BackendName | None = None
    service: ServiceName = None


class ReloadRequest(Request):
    """Take over the configuration's file as it is now."""

    dry_run: Annotated[StrictBool, Field(description="only say what would be changed")] = False


class ConnectionsQuery(Query):
    """Which connections, in what order and form."""

    service: ServiceName = None
    backend: BackendName | None = None
    client: Annotated[
        str | None,
        Field(max_length=60, description="an address, with :PORT or not, or a network"),
    ] = None
    snat: Annotated[
        str | None, Field(max_length=60, description="the address of ours that a backend sees")
    ] = None
    state: Annotated[
        list[Literal["opening", "established", "closing", "closed", "udp"]],
        Field(default_factory=list, description="any of these; by default all"),
    ]
    sort: Literal["age", "idle", "bytes", "packets", "client", "backend"] = "age"
    limit: Annotated[int | None, Field(ge=1, description="by default all")] = None
    form: Literal["json", "text"] = "json"


class WhoQuery(Query):
    """What a backend saw."""

    address: Annotated[
        str, Field(max_length=60, description="an address of ours, with :PORT or not")
    ]
    backend: Annotated[
        str | None, Field(max_length=60, description="the backend that saw it, with :PORT or not")
    ] = None


class TopQuery(Query):
    """Which groups of connections, in what order."""

    by: Literal["client", "backend", "service"] = "client"
    sort: Literal["opened", "bytes", "packets", "connections"] = "opened"
    seconds: Annotated[float, Field(ge=0.1, le=60, description="between two looks")] = 1.0
    limit: Annotated[int, Field(ge=1)] = 20


class EventsQuery(Query):
    """Which events."""

    kind: Annotated[
        list[EventKindName],
        Field(
            default_factory=lambda: list(get_args(EventKindName)),
            description="any of these; by default all",
        ),
    ]
    service: ServiceName = None
