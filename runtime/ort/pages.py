"""Where weights lie in memory (Linux): in huge pages, and not a second time as pages of their file.

A decode step reads all weights, and with small pages waits for address translation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE = 2 << 20
COLLAPSE = 25  # MADV_COLLAPSE of madvise(2), since Linux 6.1; elsewhere it fails, and nothing changes
DROP = 4  # MADV_DONTNEED of madvise(2)
MAPS, SMAPS = Path("/proc/self/maps"), Path("/proc/self/smaps")
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


def let_go(files: Collection[Path]) -> None:
    """Take mapped files out of this process's memory where it only read them; whoever touches a page reads it again."""
    if not SMAPS.exists():
        return
    names, advise, mapping = {str(path.resolve()) for path in files}, ctypes.CDLL(None).madvise, None
    for line in SMAPS.read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if not first.endswith(":"):
            mapping = first if line[line.find("/") :] in names else None
        elif mapping and line.split() == ["Anonymous:", "0", "kB"]:
            start, stop = (int(address, 16) for address in mapping.split("-"))
            advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), DROP)


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
