"""Freed memory stays with the process that asked for it to, so that a training step does not take it anew each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FREED = 200 * 1024 * 1024
_PROGRAM = """
import sys
from tunesmith_workers.process.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
block = bytearray(b"x") * {size}
del block
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left as it is")
def test_freed_memory_is_kept_where_it_is_asked_for():
    """200 MB that were used and freed are still there, and are given back without the call."""
    assert resident_after_freeing("keep") > _FREED
    assert resident_after_freeing("leave") < _FREED / 2


def resident_after_freeing(how: str) -> int:
    """Bytes that a new process holds after it has freed ``_FREED``."""
    program = _PROGRAM.format(size=_FREED)
    finished = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True)
    return int(finished.stdout) * 1024
