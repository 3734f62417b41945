"""How much memory the limits of a container or a service leave, which /proc/meminfo knows nothing of.

The kernel ends a process that goes beyond them. What cannot be read is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED = ("memory.current", "memory.usage_in_bytes")
"""Of cgroup v2, and of v1."""
_CACHED = ("active_file", "inactive_file")
"""Files in memory, such as weights that were read, are given up when there is need."""


def free_in_cgroups(proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that can be taken before a limit around this process is reached; None where there is none."""
    found = [_free(folder) for folder in _folders(proc, mount)]
    return min((free for free in found if free is not None), default=None)


def _folders(proc: Path, mount: Path) -> Iterator[Path]:
    """That of this process and those around it, all of which count."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mount / "memory" if controllers else mount
        own = root / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _free(folder: Path) -> int | None:
    limits = [limit for name in _LIMITS if (limit := _number(folder / name)) is not None]
    used = next((used for name in _USED if (used := _number(folder / name)) is not None), None)
    if not limits or used is None:
        return None
    return max(0, min(limits) - max(0, used - _cached(folder)))


def _cached(folder: Path) -> int:
    counts = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines())
    # In v1 the plain names leave out the cgroups below.
    return sum(int(counts.get(f"total_{name}", counts.get(name, "0"))) for name in _CACHED)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None  # v2 says max where there is no limit


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
