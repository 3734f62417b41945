"""Whose socket listens on a port of this machine: told from /proc, without asking the port anything.

An answer on a port does not say who gave it. Only processes of the same user can be looked into; the others are strangers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from tunesmith.contract import environment
from tunesmith.files import raise_shortage
from tunesmith.records import ProcessIdentity
from tunesmith.runner.local import identity

_LISTEN = "0A"
# As the kernel writes them: the bytes of each 32 bit word from the last to the first.
_LOOPBACK = frozenset({"0100007F", "0000000000000000FFFF00000100007F"})
_EVERYWHERE = frozenset({"00000000", "0" * 32, "0000000000000000FFFF000000000000"})


class PortHolder(Enum):
    NOBODY = "nobody"
    OURS = "ours"  # a process of that run or deployment
    OTHERS = "others"


def port_holder(port: int, run_id: str, process: ProcessIdentity | None) -> PortHolder:
    """Who accepts what is sent to 127.0.0.1 on this port: processes of the run or deployment, or anybody else. Blocks.

    Args:
        port: the port.
        run_id: what its processes have as their mark.
        process: the one to look at first.
    """
    sockets = _listening(port)
    if not sockets:
        return PortHolder.NOBODY
    unseen = set(sockets)
    for one in _processes(run_id, process):
        unseen -= _sockets_of(one.pid)
        if not unseen:
            return PortHolder.OURS
    # It may just have been closed by one of ours.
    return PortHolder.OTHERS if unseen & _listening(port) else PortHolder.NOBODY


def _processes(run_id: str, process: ProcessIdentity | None) -> Iterator[ProcessIdentity]:
    if process is not None and identity.is_alive(process):
        yield process
    yield from identity.marked(environment.RUN_ID, run_id)


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that take connections to 127.0.0.1; those bound to it go before those bound to every address."""
    found = [(address, inode) for address, at, inode in _listeners() if at == port]
    exact = {inode for address, inode in found if address in _LOOPBACK}
    return exact or {inode for address, inode in found if address in _EVERYWHERE}


def _listeners() -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of every listening TCP socket."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _lines_of(table):
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                yield address, int(port, 16), fields[9]


def _lines_of(table: str) -> Iterable[str]:
    try:
        return Path(table).read_text(encoding="ascii").splitlines()[1:]
    except OSError as error:
        raise_shortage(error)
        return ()  # a machine without IPv6


def _sockets_of(pid: int) -> set[str]:
    """The inodes of all sockets that a process has open."""
    found: set[str] = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                target = _target_of(entry.path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    except OSError as error:
        raise_shortage(error)
    return found


def _target_of(descriptor: str) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115  # a hundred of them, every few seconds
    except OSError as error:
        raise_shortage(error)
        return ""
