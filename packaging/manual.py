"""Write the manual's pages and the shells' completions, from the text that --help shows.

    python packaging/manual.py DIRECTORY

makes DIRECTORY/man1/llb.1, a page for each command, and DIRECTORY/completions/{bash,zsh,fish}.
"""

from __future__ import annotations

import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from typer.completion import get_completion_script
from typer.main import get_command

from llb_core.cli.app import application

EXIT_CODES = """\
.SH EXIT STATUS
.TP
.B 0
It is done.
.TP
.B 1
It failed; standard error says why.
.TP
.B 2
The call or the configuration is wrong.
"""


def pages() -> dict[str, str]:
    """Return each page by the name of its file."""
    top = get_command(application())
    found = {"llb.1": _page("llb", top, top.commands)}  # type: ignore[attr-defined]
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        found[f"llb-{name}.1"] = _page(f"llb {name}", command, inner)
    return found


def completions() -> dict[str, str]:
    """Return each shell's script."""
    return {
        shell: get_completion_script(prog_name="llb", complete_var="_LLB_COMPLETE", shell=shell)
        for shell in ("bash", "zsh", "fish")
    }


def _page(name: str, command: Any, inner: dict[str, Any]) -> str:
    """Return a page of man(7)."""
    text = _paragraphs(command.help)
    parts = [
        f'.TH "{name.replace(" ", "-").upper()}" 1 "{_date()}" "LLB {version("llb")}" "LLB"',
        ".SH NAME",
        f"{name.replace(' ', '-')} \\- {_escape(text[0]).rstrip('.')}",
        ".SH SYNOPSIS",
        f".B {name}",
        _escape(_synopsis(command, inner)),
        ".SH DESCRIPTION",
        "\n.PP\n".join(map(_escape, text)),
    ]
    if inner:
        parts.append(".SH COMMANDS")
        for word, each in inner.items():
            parts += [".TP", f".B {_escape(word)}", _escape(_paragraphs(each.help)[0])]
            for parameter in each.params if " " in name else ():
                parts += _parameter(parameter)
    own = [line for each in command.params for line in _parameter(each)]
    if own:
        parts += [".SH OPTIONS", *own]
    parts.append(EXIT_CODES.rstrip())
    if name != "llb":
        parts += [".SH SEE ALSO", ".BR llb (1)"]
    else:
        others = ", ".join(f".BR llb-{word} (1)" for word in inner)
        parts += [".SH SEE ALSO", *others.split(", ")]
    return "\n".join(parts) + "\n"


def _date() -> str:
    """Return when the sources are of, where the build says so, and today otherwise."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _synopsis(command: Any, inner: dict[str, Any]) -> str:
    words = ["[OPTIONS]"]
    words += [
        each.metavar or each.name.upper()
        for each in command.params
        if each.param_type_name == "argument"
    ]
    return " ".join([*words, "COMMAND ..."] if inner else words)


def _parameter(parameter: Any) -> list[str]:
    if getattr(parameter, "hidden", False):
        return []
    if parameter.param_type_name == "argument":
        head = parameter.metavar or parameter.name.upper()
    else:
        head = ", ".join(parameter.opts)
        if not parameter.is_flag:
            head += f" {parameter.metavar or parameter.name.upper()}"
    return [".TP", f".B {_escape(head)}", _escape(" ".join(_paragraphs(parameter.help)))]


def _paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a help text, each on one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", (text or "").strip())]


def _escape(text: str) -> str:
    """Write text so that roff shows it as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return re.sub(r"^([.'])", r"\\&\1", escaped)


def main() -> None:
    """Write them all."""
    target = Path(sys.argv[1])
    for folder, files in (("man1", pages()), ("completions", completions())):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (target / folder / name).write_text(text)


if __name__ == "__main__":
    main()
