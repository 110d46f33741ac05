"""Say which of the files for TLS is at fault: OpenSSL's own words name none, and a pipe holds it
up for ever."""

from __future__ import annotations

import ssl
from pathlib import Path

from llb_core import ProviderError, open_regular
from llb_provider_consul.options import ConsulOptions


def refuse_pipes(options: ConsulOptions, base: Path) -> None:
    """Raise ProviderError where a file of the options is a pipe or a device.

    One that isn't there, or holds something else, is `file_fault`'s, should the query fail.
    """
    for name in ("ca_file", "cert_file", "key_file"):
        path: Path | None = getattr(options, name)
        if path is None or not (base / path).exists() or (base / path).is_dir():
            continue
        try:
            with open_regular(base / path):
                pass
        except PermissionError:
            continue
        except OSError as error:
            raise ProviderError(f"{name} {path}: {error.strerror or error}") from None


def file_fault(options: ConsulOptions, base: Path) -> str | None:
    """Return what is wrong with the files of the options; None where they can be used."""
    if options.ca_file is not None:
        try:
            ssl.create_default_context(cafile=base / options.ca_file)
        except OSError as error:
            return f"ca_file {options.ca_file}: {_why(error, 'holds no certificate')}"
    if options.cert_file is None:
        return None
    certificate = base / options.cert_file
    try:
        _load(certificate, base / (options.key_file or options.cert_file))
    except OSError as error:
        for name, path in (("cert_file", options.cert_file), ("key_file", options.key_file)):
            if path is not None and not (base / path).is_file():
                return f"{name} {path}: {_why(error, 'is no file')}"
        names = f"cert_file {options.cert_file}"
        if options.key_file is not None:
            names += f" and key_file {options.key_file}"
        return f"{names}: {_why(error, 'are not a certificate and its key, without a password')}"
    return None


def _load(certificate: Path, key: Path) -> None:
    # An empty password, lest OpenSSL ask the terminal for one.
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")


def _why(error: OSError, otherwise: str) -> str:
    if isinstance(error, ssl.SSLError) or not error.strerror:
        return otherwise
    return error.strerror[:1].lower() + error.strerror[1:]
