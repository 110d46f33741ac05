"""The kernel's ring buffer (BPF_MAP_TYPE_RINGBUF), read in place through its shared memory.

One reader at a time: the place up to which it was read is shared as well. Source: the kernel's
Documentation/bpf/ringbuf.rst and kernel/bpf/ringbuf.c.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_POSITION = struct.Struct("=Q")


class RingReader:
    """Reads records of one kind out of a ring of `size` bytes, a power of two."""

    def __init__(self, fd: int, size: int, record: np.dtype[Any]) -> None:
        self.fd = fd
        self._size = size
        padding = -record.itemsize % 8
        self._framed = np.dtype(
            [("length", "u4"), ("page", "u4"), ("record", record), ("padding", "V1", padding)]
        )
        self._consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED)
        # The data lies in memory twice in a row, so that no record is ever in two pieces.
        self._producer = mmap.mmap(
            fd, mmap.PAGESIZE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE
        )

    def read(self, limit: int = 4096) -> npt.NDArray[Any]:
        """Return the next records, at most `limit` of them, in the order in which they came."""
        (consumed,) = _POSITION.unpack_from(self._consumer)
        (produced,) = _POSITION.unpack_from(self._producer)
        count = min((produced - consumed) // self._framed.itemsize, limit)
        framed = np.frombuffer(
            self._producer,
            self._framed,
            count,
            offset=mmap.PAGESIZE + consumed % self._size,
        )
        is_busy = np.flatnonzero(framed["length"] & _BUSY)
        if len(is_busy):  # another CPU is still writing it, and what follows waits its turn
            framed = framed[: is_busy[0]]
        records: npt.NDArray[Any] = framed["record"][framed["length"] & _DISCARDED == 0].copy()
        _POSITION.pack_into(self._consumer, 0, consumed + framed.nbytes)
        del framed
        return records

    def skip(self) -> None:
        """Forget what nobody has read."""
        _POSITION.pack_into(self._consumer, 0, _POSITION.unpack_from(self._producer)[0])

    def close(self) -> None:
        """Let go of the shared memory; the file descriptor is the caller's."""
        self._consumer.close()
        self._producer.close()
