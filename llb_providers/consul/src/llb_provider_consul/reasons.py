"""Say in one line why a query of Consul failed. Pure."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from functools import partial

import requests
from consul import (  # type: ignore[import-untyped]
    ACLDisabled,
    ACLPermissionDenied,
    ConsulException,
    NotFound,
)

_LONGEST = 200
_NO_JSON = "Failed to decode JSON"
"""How py-consul begins to say so."""
_PAGE = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TAGS = re.compile(r"<[^>]*>?")
_ELSEWHERE = "does url lead to the agent itself, or to a proxy or another server?"
_POLICY = (
    'it takes the rules service "{service}" {{ policy = "read" }} and '
    'node_prefix "" {{ policy = "read" }}'
)


def reason(error: BaseException, service: str, token: str | None) -> str:
    """Return the reason, in a form that an operator can act on, and without the token."""
    hide = partial(without_token, token=token)
    return hide(" ".join(_text(error, service, lambda text: _short(hide(text))).split()))


def without_token(text: str, token: str | None) -> str:
    """Return a text that shows no token, neither as it is nor as JSON writes it."""
    for secret in (token, json.dumps(token)[1:-1]) if token else ():
        text = text.replace(secret, "(the token)")
    return text


def _text(error: BaseException, service: str, short: Callable[[str], str]) -> str:
    if isinstance(error, ConsulException) and _PAGE.search(str(error)):
        return f"it is a web page that answers ({short(_said(error))}): {_ELSEWHERE}"
    if isinstance(error, ACLPermissionDenied) and "not found" in str(error).lower():
        return f"access denied: Consul does not know the ACL token ({short(str(error))})"
    if isinstance(error, ACLPermissionDenied | ACLDisabled):
        return f"access denied: {short(str(error))}: {_POLICY.format(service=service)}"
    if isinstance(error, ConsulException) and str(error).startswith(_NO_JSON):
        return f"the answer is no JSON, or not all of it ({short(_said(error))}): {_ELSEWHERE}"
    if isinstance(error, NotFound):
        return f"{short(str(error))}: {_ELSEWHERE}"
    if isinstance(error, ConsulException):
        return short(str(error))
    cause = _cause(error)
    if isinstance(error, requests.exceptions.SSLError) or isinstance(cause, ssl.SSLError):
        return f"TLS: {short(_tls_text(cause))}"
    if isinstance(error, requests.ConnectTimeout):
        return "no connection: it does not answer: may this host reach it? or raise timeout"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror[:1].lower() + cause.strerror[1:]
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "the connection ended before the answer did"
    is_plain = not isinstance(error, requests.RequestException)
    if isinstance(error, requests.exceptions.ContentDecodingError) or (
        is_plain and isinstance(error, ValueError | RecursionError)
    ):
        return f"the answer is not one of Consul's: {short(str(error))}: {_ELSEWHERE}"
    return short(str(error)) if str(error) else type(error).__name__


def _said(error: ConsulException) -> str:
    """Return what the other side said, without the tags of a web page."""
    text = str(error).removeprefix(_NO_JSON).removesuffix(str(error.__cause__ or "")).lstrip(": ")
    return " ".join(_TAGS.sub(" ", text[: 8 * _LONGEST]).split()) or "nothing"


def _tls_text(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, ssl.SSLEOFError):
        return "the agent ended the connection (does it ask for a certificate? set cert_file)"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.replace("_", " ").lower()
    return str(cause)


def _cause(error: BaseException) -> BaseException:
    """Return what the system said, beneath the wrappings of requests and urllib3."""
    seen: set[int] = set()
    deepest, here = error, error
    while id(here) not in seen:
        seen.add(id(here))
        deepest = here
        if isinstance(here, OSError) and here.errno is not None:
            break
        inner = getattr(here, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((each for each in here.args if isinstance(each, BaseException)), None)
        here = inner or here.__cause__ or here.__context__ or here
    return deepest


def _short(text: str) -> str:
    text = " ".join(text[: 4 * _LONGEST].split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
