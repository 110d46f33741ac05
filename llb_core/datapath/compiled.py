"""Programs as clang has made them: their instructions, and the maps that these speak of.

They are loaded against the maps of one balancer; which balancer that is, they do not know.
"""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from llb_core.datapath import bpf_syscall

SCHED_CLS = 3
"""The kind of program that traffic control runs."""
_BYTES = 8
"""Of an instruction."""


class Refused(Exception):
    """The kernel refuses a program: `errno` says why, and the text what the verifier has to say."""

    def __init__(self, errno: int, said: str) -> None:
        super().__init__(said)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is like that programs have to themselves."""

    kind: int
    key: int
    value: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Code:
    """A program, and by the number of an instruction the name of the map that it loads."""

    instructions: bytes
    maps: Mapping[int, str]

    def with_maps(self, fds: Mapping[str, int]) -> bytes:
        """Return the instructions with the maps' file descriptors in their places."""
        text = bytearray(self.instructions)
        for number, name in self.maps.items():
            struct.pack_into("=i", text, number * _BYTES + 4, fds[name])
        return bytes(text)


@dataclass(frozen=True, slots=True)
class Compiled:
    """Programs by their names, and what each of the maps is like that they speak of."""

    programs: Mapping[str, Code]
    maps: Mapping[str, MapShape]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; ValueError, KeyError or TypeError for all else."""
        read = json.loads(text)
        return cls(
            {
                name: Code(
                    base64.b64decode(code["instructions"], validate=True),
                    {int(number): str(of) for number, of in code["maps"].items()},
                )
                for name, code in read["programs"].items()
            },
            {name: MapShape(**shape) for name, shape in read["maps"].items()},
        )

    def to_json(self) -> str:
        """Write it down."""
        programs = {
            name: {
                "instructions": base64.b64encode(code.instructions).decode(),
                "maps": {str(number): of for number, of in code.maps.items()},
            }
            for name, code in self.programs.items()
        }
        maps = {name: asdict(shape) for name, shape in self.maps.items()}
        return json.dumps({"programs": programs, "maps": maps})

    def load(
        self, pinned: Mapping[str, Path], programs: Sequence[str], jumps: Sequence[str]
    ) -> dict[str, int]:
        """Load programs against pinned maps; return file descriptors by name, that of the array of
        jumps as "jumps". A map that is not pinned is made anew.

        Raises Refused, or OSError where a map is not to be had.
        """
        with self._maps(pinned, [*programs, *jumps]) as maps, ExitStack() as failing:
            loaded: dict[str, int] = {}
            for name in programs:
                loaded[name] = self._load(name, maps)
                failing.callback(os.close, loaded[name])
            for place, name in enumerate(jumps):
                fd = self._load(name, maps)
                try:
                    bpf_syscall.put_program(maps["jumps"], place, fd)
                finally:
                    os.close(fd)
            if jumps:
                loaded["jumps"] = os.dup(maps["jumps"])
            failing.pop_all()
        return loaded

    def _load(self, name: str, maps: Mapping[str, int]) -> int:
        instructions = self.programs[name].with_maps(maps)
        try:
            return bpf_syscall.prog_load(SCHED_CLS, instructions, name)
        except OSError as error:
            said = bpf_syscall.why_refused(SCHED_CLS, instructions)
            raise Refused(error.errno or 0, said or f"{name}: {error.strerror}") from None

    @contextmanager
    def _maps(
        self, pinned: Mapping[str, Path], programs: Sequence[str]
    ) -> Iterator[dict[str, int]]:
        """Yield the maps of programs, open."""
        names = {of for program in programs for of in self.programs[program].maps.values()}
        fds: dict[str, int] = {}
        try:
            for name in names:
                shape = self.maps[name]
                if name in pinned:
                    fds[name] = bpf_syscall.obj_get(pinned[name])
                else:
                    fds[name] = bpf_syscall.map_create(
                        shape.kind, shape.key, shape.value, shape.entries, shape.flags, name
                    )
            yield fds
        finally:
            for fd in fds.values():
                os.close(fd)
