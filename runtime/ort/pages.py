"""Weights in huge pages: a decode step reads them all, and with small pages waits for address translation (Linux)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE = 2 << 20
COLLAPSE = 25  # MADV_COLLAPSE of madvise(2), since Linux 6.1; elsewhere it fails, and nothing changes
MAPS = Path("/proc/self/maps")
Range = tuple[int, int]


@contextmanager
def huge_pages() -> Iterator[None]:
    """Whatever memory this process takes inside the block is moved into huge pages, as far as there are any."""
    if not MAPS.exists():
        yield
        return
    before = anonymous()
    yield
    advise = ctypes.CDLL(None).madvise
    for start, stop in beyond(anonymous(), before):
        start, stop = -(-start // HUGE) * HUGE, stop // HUGE * HUGE
        if start < stop:
            advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), COLLAPSE)


def anonymous() -> list[Range]:
    """The process's writable memory that no file is behind, in order."""
    found = []
    for line in MAPS.read_text().splitlines():
        addresses, rights, _, _, inode, *_ = line.split()
        if inode == "0" and rights.startswith("rw-p") and "[stack" not in line:
            start, _, stop = addresses.partition("-")
            found.append((int(start, 16), int(stop, 16)))
    return found


def beyond(ranges: list[Range], known: list[Range]) -> Iterator[Range]:
    """What of some ranges lies outside the known ones; both are in order."""
    for start, stop in ranges:
        for low, high in known:
            if low < stop and high > start:
                if start < low:
                    yield start, low
                start = max(start, high)
        if start < stop:
            yield start, stop
