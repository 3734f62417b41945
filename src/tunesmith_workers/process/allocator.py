"""Keeps freed memory with the process, on a CPU.

A training step frees what it took and the next one takes the same again. By default glibc returns such memory to the
system in between, and the system hands it out again page by page, cleared, which costs the short operations of a small
model a few percent of a step. Nothing here changes what is computed. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST = 1 << 30
_LARGEST_OF_OLD = 1 << 25
"""Bytes. What older versions of glibc accept at most as the size from which memory is mapped on its own."""


def keep_freed_memory() -> None:
    """Have malloc keep what is freed. Processes forked later do the same."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    # The order matters: setting any of the others fixes the mapping threshold, which is small by default.
    if not mallopt(_MMAP_THRESHOLD, _LARGEST) and not mallopt(_MMAP_THRESHOLD, _LARGEST_OF_OLD):
        return
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_TOP_PAD, 1 << 26)
