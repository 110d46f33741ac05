"""One eBPF map as numpy records: `MapReader` reads, `MapWriter` also writes.

`MapWriter` is for `llb_core.map_sync`, which is the only module that writes a map.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llb_core.datapath import bpf_syscall as sys
from llb_core.datapath.layout import INNER_TABLE, PLACES_A_WORD, U32, MapSpec, MapType
from llb_core.errors import MapError

Records = np.ndarray[Any, np.dtype[Any]]

_PER_CPU = (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)
_ENOTSUPP = 524
"""The kernel's own number: it writes no map of maps in batches before 5.19."""
CHUNK = 32_768
"""Entries that one batch call reads or writes."""


@dataclass(slots=True)
class Bookmark:
    """Where a reader of a hash map has stopped; at its beginning until then."""

    token: Any = None


class MapReader:
    """A map to read. It owns its file descriptor."""

    def __init__(self, spec: MapSpec, fd: int) -> None:
        self.spec = spec
        self.fd = fd
        self.inner_tables: dict[int, tuple[int, int]] = {}
        """Of a map of maps: the ids and file descriptors of the tables in its slots, as known."""
        self._cpus = _possible_cpus() if spec.type in _PER_CPU else 0

    def close(self) -> None:
        """Give the file descriptors back; the map lives on by its pin."""
        for slot in list(self.inner_tables):
            forget_inner(self, slot)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lookup(self, key: object) -> Any | None:
        """Return one entry's value, for a map a CPU one row of them, or None."""
        key_record = np.array([key], dtype=self.spec.key)
        value = self.value_room(1)
        with map_errors(self.spec.name, "read"):
            found = sys.map_lookup(self.fd, key_record.ctypes.data, value.ctypes.data)
        return value[0] if found else None

    def chunks(
        self, size: int = CHUNK, bookmark: Bookmark | None = None
    ) -> Iterator[tuple[Records, Records]]:
        """Yield keys and values of all entries, a chunk at a time.

        Entries that come or go meanwhile may be seen or not; none is seen twice by a hash map.
        With a bookmark it goes on from there, and whoever stops reading goes on the next time.
        """
        token = np.zeros(1, dtype=f"V{max(4, self.spec.key.itemsize)}")
        bookmark = bookmark or Bookmark()
        size = min(size, self.spec.entries)
        while True:
            keys = np.zeros(size, dtype=self.spec.key)
            values = self.value_room(size)
            started = bookmark.token is not None
            if started:
                token[0] = bookmark.token
            with map_errors(self.spec.name, "read"):
                done, error = sys.map_batch(
                    sys.MAP_LOOKUP_BATCH,
                    self.fd,
                    keys.ctypes.data,
                    values.ctypes.data,
                    size,
                    token.ctypes.data if started else 0,
                    token.ctypes.data,
                )
                if error == errno.ENOSPC:
                    size *= 2
                    continue
                if error not in (0, errno.ENOENT):
                    raise OSError(error, os.strerror(error))
            bookmark.token = None if error else token[0].copy()
            if done:
                yield keys[:done], values[:done]
            if error:
                return

    def read_all(self) -> tuple[Records, Records]:
        """Return keys and values of all entries; for a map a CPU, one row a CPU."""
        parts = list(self.chunks())
        if not parts:
            return np.zeros(0, dtype=self.spec.key), self.value_room(0)
        return np.concatenate([k for k, _ in parts]), np.concatenate([v for _, v in parts])

    def value_room(self, count: int) -> Records:
        """Return zeroed values of that many entries; for a map a CPU, one row each."""
        if self._cpus:
            return np.zeros((count, self._cpus), dtype=self.spec.value)
        return np.zeros(count, dtype=self.spec.value)


class MapWriter(MapReader):
    """A map to read and to write."""

    @classmethod
    def of(cls, reader: MapReader) -> MapWriter:
        """Return a writer of the same map, which shares the reader's file descriptors."""
        writer = cls(reader.spec, reader.fd)
        writer.inner_tables = reader.inner_tables
        return writer

    def update(self, key: object, value: object) -> None:
        """Write one entry, whether it is there or not."""
        key_record = np.array([key], dtype=self.spec.key)
        value_record = self.value_room(1)
        value_record[...] = value
        with map_errors(self.spec.name, "write"):
            sys.map_update(self.fd, key_record.ctypes.data, value_record.ctypes.data)

    def update_batch(self, keys: Records, values: Records) -> None:
        """Write many entries; when it fails, those before the failing one are written."""
        keys = np.ascontiguousarray(keys, dtype=self.spec.key)
        values = np.ascontiguousarray(values, dtype=self.spec.value)
        for start in range(0, len(keys), CHUNK):
            part, what = keys[start : start + CHUNK], values[start : start + CHUNK]
            with map_errors(self.spec.name, "write"):
                _, error = sys.map_batch(
                    sys.MAP_UPDATE_BATCH, self.fd, part.ctypes.data, what.ctypes.data, len(part)
                )
                if error == _ENOTSUPP:
                    for key, value in zip(part, what, strict=True):
                        self.update(key, value)
                elif error:
                    raise OSError(error, os.strerror(error))

    def delete_batch(self, keys: Records) -> None:
        """Remove many entries, in this order; one that is not there is passed over."""
        keys = np.ascontiguousarray(keys, dtype=self.spec.key)
        done = 0
        while done < len(keys):
            part = keys[done : done + CHUNK]
            with map_errors(self.spec.name, "write"):
                count, error = sys.map_batch(
                    sys.MAP_DELETE_BATCH, self.fd, part.ctypes.data, 0, len(part)
                )
                if error not in (0, errno.ENOENT):
                    raise OSError(error, os.strerror(error))
            done += count + (error == errno.ENOENT)

    def delete(self, key: object) -> None:
        """Remove one entry, if it is there."""
        key_record = np.array([key], dtype=self.spec.key)
        with map_errors(self.spec.name, "write"):
            try:
                sys.map_delete(self.fd, key_record.ctypes.data)
            except FileNotFoundError:
                return


def open_inner(outer: MapReader, slot: int) -> MapReader | None:
    """Open the inner table in a slot of a map of maps, or None where there is none.

    To open one by its id takes CAP_SYS_ADMIN, which the daemon gives up: so each is held open from
    the first time on, until another takes its place.
    """
    map_id = int(outer.lookup(slot) or 0)
    if not map_id:
        forget_inner(outer, slot)
        return None
    known_id, known_fd = outer.inner_tables.get(slot, (0, -1))
    if known_id != map_id:
        forget_inner(outer, slot)
        with map_errors(outer.spec.name, f"open the table in slot {slot}"):
            known_fd = sys.map_get_fd_by_id(map_id)
        outer.inner_tables[slot] = (map_id, known_fd)
    info = sys.map_info(known_fd)
    spec = replace(INNER_TABLE, entries=info.max_entries, flags=info.flags)
    if info.value_size != spec.value.itemsize:
        spec = replace(spec, value=U32)  # of an earlier layout
    return MapReader(spec, os.dup(known_fd))


def keep_inner(outer: MapReader, slot: int, inner: MapReader) -> None:
    """Hold a table open that was put into a slot."""
    forget_inner(outer, slot)
    outer.inner_tables[slot] = (int(outer.lookup(slot) or 0), os.dup(inner.fd))


def forget_inner(outer: MapReader, slot: int) -> None:
    """Hold the table that was in a slot open no longer."""
    _, fd = outer.inner_tables.pop(slot, (0, -1))
    if fd >= 0:
        os.close(fd)


def create_inner(places: int) -> MapReader:
    """Make an inner table of so many places, not yet in any map of maps."""
    spec = replace(INNER_TABLE, entries=1 + -(-places // PLACES_A_WORD))
    with map_errors(spec.name, "make"):
        return MapReader(spec, create(spec))


def create(spec: MapSpec, inner: int = 0) -> int:
    """Make a map as specified and return its file descriptor."""
    return sys.map_create(
        spec.type,
        spec.key.itemsize,
        spec.value.itemsize,
        spec.entries,
        spec.flags,
        spec.name,
        inner,
    )


def _possible_cpus() -> int:
    """Return how many values a map a CPU holds for each key: the possible CPUs."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


@contextmanager
def map_errors(name: str, verb: str) -> Iterator[None]:
    """Turn an `OSError` inside into a `MapError` that names the map."""
    try:
        yield
    except OSError as error:
        raise MapError(f"map {name}: can't {verb}: {error.strerror}") from error
