"""The command line: one module for each group of commands. It asks, and shows; it decides nothing.

Exit codes: 0 done, 1 it failed, 2 the call or the configuration is wrong.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from llb_core.errors import LLBError
from llb_core.undisturbed import undisturbed

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What standard output may meet: a full disk, for the most part."""
_LAST_WORDS = 3.0
"""Seconds for a process with several threads to write out what is left."""


def main() -> None:
    """Run the command that the process was called with."""
    with undisturbed():  # What is imported stays.
        import typer

        from llb_core.cli.app import called_by

        app = called_by(sys.argv[1:])
    # The library's own classes, whether it brings click or depends on it.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    if isinstance(sys.stdout, TextIOWrapper):  # What it can't encode is no reason to say nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="llb", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except usage_error as error:
        sys.exit(_refuse(error))
    except typer.Abort:
        sys.exit(130)
    except LLBError as error:
        for line in str(error).splitlines():
            print(f"llb: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # Whoever read our output has gone; so has the need for it.
        sys.exit(1)
    except OSError as error:
        # What fails on another file is told as an error of ours, with its name.
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        from llb_core.cli import show

        show.give_up_output(error)
        sys.exit(1)


def entry() -> None:
    """Run the command that the process was called with, and end the process.

    Python waits at its end for the threads of executors, and for others that are no daemon threads.
    A provider may hang in one of its own; the process ends all the same. So it does where nobody
    reads what it says last, though a thread that logs waits for that.
    """
    # pydantic's plugins are not for us; to look for them it reads all that is installed, and fails
    # where a single file of that is broken.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    code: object = 1

    def end_soon() -> None:
        timer = threading.Timer(_LAST_WORDS, os._exit, (_as_number(code),))
        timer.daemon = True
        timer.start()

    try:
        main()
    except SystemExit as end:
        code = end.code
        raise
    except BaseException:
        if threading.active_count() > 1:
            end_soon()
            sys.excepthook(*sys.exc_info())
        raise
    finally:
        if threading.active_count() > 1:
            end_soon()
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # Its reader has gone, or it is closed.
                    stream.flush()
            os._exit(_as_number(code))


def _as_number(code: object) -> int:
    """Return the exit code that Python would take this for."""
    return code if isinstance(code, int) else int(code is not None)


def _refuse(error: Any) -> int:
    """Say what is wrong with the call, in a sentence, and where to look; return the exit code."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        return 2  # It has shown the help.
    message = " ".join(error.format_message().split()).rstrip(".")
    where = context.command_path if context is not None else "llb"
    print(f"llb: {message[:1].lower()}{message[1:]}: see {where} --help", file=sys.stderr)
    return 2
