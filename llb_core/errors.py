"""Every error that LLB raises on purpose.

LLBError
├── ConfigurationError     the file is wrong: names file, key, value and remedy  (exit code 2)
│   └── NotThere           ... since it names what there is none of
├── ProviderError          a provider could not answer: names provider and service
│   └── NotReady           ... and has never answered yet
├── HostError              the host lacks something: names it and the remedy     (exit code 1)
│   ├── LayoutMismatch     pinned maps are of another layout
│   └── AlreadyRunning     another daemon holds these pins
├── MapError               a map could not be read or written
├── NotCarriedOut          what was ordered stands, but is not carried out yet
├── DaemonUnreachable      no daemon answers on the control socket
└── MayNotAsk              the control socket is not for this user
"""


class LLBError(Exception):
    """The root: its text is one line that names the thing, the place and the remedy."""

    exit_code = 1


class ConfigurationError(LLBError):
    """The configuration is wrong, or the call is."""

    exit_code = 2


class NotThere(ConfigurationError):
    """A call names a backend, a service or an order that is not there."""


class ProviderError(LLBError):
    """A provider could not say which backends exist."""


class NotReady(ProviderError):
    """A provider has never answered yet: what is installed stays as it is."""


class HostError(LLBError):
    """The host lacks what LLB needs."""


class LayoutMismatch(HostError):
    """Pinned maps do not have the layout that this version of LLB uses."""


class AlreadyRunning(HostError):
    """Another daemon already serves under this name."""


class MapError(LLBError):
    """An eBPF map could not be read or written."""


class NotCarriedOut(LLBError):
    """What was ordered stands, and is tried again: the maps could not be written for now."""


class DaemonUnreachable(LLBError):
    """No daemon answers on the control socket."""


class MayNotAsk(LLBError):
    """The control socket is not for this user, and neither are the maps."""


_LONGEST = 1000
"""Characters of an error that are told."""


def told(error: BaseException) -> str:
    """Return what a provider raised in one line, with its kind where that was not meant for us.

    Somebody else wrote it: it may be too long, be unfit for a terminal, or raise when it is asked.
    """
    try:
        whole = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - somebody else's code, whatever it raises
        whole = ""
    text = "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in whole[:_LONGEST]
    )
    if len(whole) > _LONGEST:
        text += "…"
    if isinstance(error, ProviderError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
