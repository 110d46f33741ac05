"""Get the ACL token afresh, so that one that is replaced is used from the next query on.

It is sent as a header and shown nowhere: no error here names more than where it was sought.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llb_core import ProviderError, open_regular
from llb_provider_consul.options import TOKEN_VARIABLE, ConsulOptions

_LONGEST = 16 * 1024
"""Bytes of a file with a token."""
_TOKEN = re.compile(r"[!-~]+")


def read_token(options: ConsulOptions, base: Path, environment: Mapping[str, str]) -> str | None:
    """Return the token, or None where there is none to send.

    Raises ProviderError where one is asked for and can't be had.
    """
    if options.token_file is not None:
        place = f"token_file {options.token_file}"
        try:
            with open_regular(base / options.token_file) as file:
                text = file.read(_LONGEST + 1).decode()
        except UnicodeDecodeError:
            raise ProviderError(f"{place}: is not text") from None
        except OSError as error:
            raise ProviderError(f"{place}: {error.strerror or error}") from None
        if len(text) > _LONGEST:
            raise ProviderError(f"{place}: is far longer than an ACL token: name another file")
        return _checked(text.strip(), place)
    if options.token is not None:
        return _checked(options.token.get_secret_value(), "token")
    name = options.token_env or TOKEN_VARIABLE
    found = environment.get(name, "")
    if not found and options.token_env is None:
        return None
    return _checked(found, f"token_env {name}")


def _checked(token: str, place: str) -> str:
    """Return the token if it can stand in a header; HTTP libraries quote one that can't."""
    if not token:
        raise ProviderError(f"{place}: holds no ACL token")
    if not _TOKEN.fullmatch(token):
        raise ProviderError(f"{place}: holds what can't be an ACL token (not shown)")
    return token
