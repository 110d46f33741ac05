"""The C sources as one text: bcc rewrites map methods only in the main file, not in headers.

Errors still name header and line, by `#line` marks. Where the sources are: in the wheel beside
this package, in a checkout at its top.
"""

from __future__ import annotations

import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "_bpf"
"""The folder of the C sources; `stub` in it stands in for kernel headers."""

_OWN_INCLUDE = re.compile(r'\s*#\s*include\s+"(?P<name>[^"]+)"')


def amalgamate(name: str = "llb.c", folder: Path = SOURCES) -> str:
    """Join a source and the headers of our own that it includes, each where it stands."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((folder / name).read_text().splitlines(), start=1):
        if include := _OWN_INCLUDE.match(line):
            lines.append(amalgamate(include["name"], folder))
            lines.append(f'#line {number + 1} "{name}"')
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
