"""Telling one process from another that happens to have its pid, and signalling only the right one."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tunesmith.files import raise_shortage
from tunesmith.records import ProcessIdentity

# Since Linux 6.9 a pidfd can address the whole group of its process.
_PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2
_EXEC_SECONDS = 1.0
"""Far longer than the moment in which a process that becomes another program shows neither environment nor arguments."""
_EXEC_LOOKS = 3
_START_TICKS_FIELD = 19  # counted after the parenthesised name, which may hold spaces


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a process that is alive now; None when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in (b"Z", b"X"):
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[_START_TICKS_FIELD]), boot_id=boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


@contextlib.contextmanager
def opened(identity: ProcessIdentity) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None when it is gone. Checked after opening: from then on it cannot change.

    Raises OSError when descriptors or memory are short: whether it is gone is then not known.
    """
    try:
        descriptor: int | None = os.pidfd_open(identity.pid)
    except OSError as error:
        raise_shortage(error)
        descriptor = None
    except (OverflowError, ValueError):
        descriptor = None
    if descriptor is None:
        yield None
        return
    try:
        yield descriptor if is_alive(identity) else None
    finally:
        os.close(descriptor)


def signal_group(identity: ProcessIdentity, sign: signal.Signals) -> bool:
    """Signal the process and its group; False when the process is gone, and then nobody is signalled."""
    with opened(identity) as descriptor:
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, sign, None, _PIDFD_SIGNAL_PROCESS_GROUP)
        except ProcessLookupError:
            return False
        except OSError:  # an older kernel: the leader is alive and checked, so its group number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(identity.pid, sign)
        return True


def marked(name: str, value: str) -> list[ProcessIdentity]:
    """Every living process, oldest first, that was started with this in its environment, but not this one.

    This finds descendants that left the group and lost their reaper. Only processes of the same user can be read.
    """
    mark = f"{name}={value}".encode()
    with os.scandir("/proc") as entries:
        pids = [entry.name for entry in entries if entry.name.isdigit() and int(entry.name) != os.getpid()]
    found = [identify(int(pid)) for pid in pids if _carries(pid, mark)]
    return sorted((one for one in found if one is not None), key=lambda one: one.start_ticks)


def signal_one(identity: ProcessIdentity, sign: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone, and then nobody is signalled."""
    with opened(identity) as descriptor:
        if descriptor is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(descriptor, sign)
            return True
        return False


def _carries(pid: str, mark: bytes) -> bool:
    until, seen_without = time.monotonic() + _EXEC_SECONDS, 0
    try:
        while not (environ := Path(f"/proc/{pid}/environ").read_bytes()):
            # An exec may end, and another begin, between the two looks.
            seen_without = 0 if _is_in_exec(pid) else seen_without + 1
            if seen_without >= _EXEC_LOOKS or time.monotonic() > until:
                return False
    except OSError as error:
        raise_shortage(error)
        return False
    return mark in environ.split(b"\0")


def _is_in_exec(pid: str) -> bool:
    """Whether it has no environment because it is just becoming another program; kernel threads and zombies never have one."""
    try:
        Path(f"/proc/{pid}/exe").readlink()
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError as error:
        raise_shortage(error)
        return False
