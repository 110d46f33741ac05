"""A provider's options, documented from their model in the words of llb.toml."""

from __future__ import annotations

import enum
import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, StrictInt

from llb_core import Duration, ProviderOptions
from llb_core.option_docs import OptionDoc, describe


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Tls(BaseModel):
    ca_file: Path | None = None
    verify: bool = Field(True, description="whether to")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, "string"),
        (bool, "true or false"),
        (StrictInt, "whole number"),
        (Annotated[StrictInt, Field(ge=1, le=9)] | None, "whole number, 1 to 9"),
        (Annotated[float, Field(gt=0)], "number, more than 0"),
        (Annotated[int, Field(ge=2, lt=8)], "whole number, at least 2, less than 8"),
        (Duration, "duration (seconds, or as 500ms, 5s, 2h)"),
        (
            Annotated[Duration, Field(ge=1, le=60)],
            "duration (seconds, or as 500ms, 5s, 2h), 1 to 60",
        ),
        (Path, "path"),
        (SecretStr, "string"),
        (Literal["a", "b", "c"], '"a", "b" or "c"'),
        (Mood, '"good" or "bad"'),
        (list[str], "list (string)"),
        (tuple[int, ...], "list (whole number)"),
        (list, "list"),
        (dict[str, str], "table"),
        (str | list[str], "string or list (string)"),
        (ipaddress.IPv4Address | ipaddress.IPv6Address, "IP address"),
        (Any, "value"),
    ],
    # An annotation's own text has addresses in it, which differ from one process to the next.
    ids=lambda value: value if isinstance(value, str) else "type",
)
def test_writes_types_as_the_files_reader_knows_them(annotation: Any, expected: str) -> None:
    model = type("Model", (ProviderOptions,), {"__annotations__": {"key": annotation}})
    (option,) = describe(model)
    assert option.type == expected


def test_says_what_stands_for_an_option_that_is_left_out() -> None:
    class Options(ProviderOptions):
        a: str | None = None
        b: str
        c: Path = Path("x.toml")
        d: tuple[str, ...] = ()
        e: Mood = Mood.BAD
        f: list[int] = Field(default_factory=lambda: [1, 2])
        g: SecretStr = SecretStr("sesame")
        password: str = "sesame"
        password_file: str = "p.txt"

    assert {option.name: option.default for option in describe(Options)} == {
        "b": None,
        "a": "",
        "c": '"x.toml"',
        "d": "",
        "e": '"bad"',
        "f": "[1, 2]",
        "g": "",
        "password": "",
        "password_file": '"p.txt"',
    }


def test_what_must_be_given_comes_first() -> None:
    class Options(ProviderOptions):
        a: str = ""
        b: str

    assert [option.name for option in describe(Options)] == ["b", "a"]


def test_an_inner_table_is_shown_key_by_key_after_what_it_is_for() -> None:
    class Options(ProviderOptions):
        tls: Tls = Field(Tls(), description="how the server is trusted")

    assert describe(Options) == (
        OptionDoc("tls", "table", "", False, "how the server is trusted"),
        OptionDoc("tls.ca_file", "path", "", False, ""),
        OptionDoc("tls.verify", "true or false", "true", False, "whether to"),
    )


def test_a_model_may_name_the_type_itself() -> None:
    class Options(ProviderOptions):
        url: Any = Field("", json_schema_extra={"type": "URL"})

    (option,) = describe(Options)
    assert option.type == "URL"
