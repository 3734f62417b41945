"""Starts one program, outlives the server, and writes down how the program ended.

Run as a script of its own (``python -I -S shim.py <attempt folder>``) with the standard library only, so that it starts in
milliseconds and keeps a few megabytes. It does not read the program's output: that goes straight into the log file.

1. ``process.json`` is created exclusively; whoever creates it owns the attempt. A server that recovers from a crash and
   finds none creates it first, and then this process leaves without starting anything: no attempt ever runs twice.
2. The program is started in a process group of its own, below this process as the reaper of all its descendants.
3. When the program has ended, what it left behind is stopped, and ``exit.json`` says how it ended. On a full disk this
   waits until there is room: the end of a run is never lost for want of a few bytes.
"""

import ctypes
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_LEFTOVER_GRACE_SECONDS = 2.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_RETRY_SECONDS = 0.5
_OWN_MARK = "TUNESMITH_SHIM_OF"
"""How a server finds this process when the program has deleted its records; the program does not get it."""


def main(path: str) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, lambda *_: None)  # a handler, not SIG_IGN: the program must not inherit it
    os.chdir("/")
    # Held open: what the program puts in the place of this folder, such as a link, is not written to.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with open(os.open("command.json", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), encoding="utf-8") as file:
        command = json.load(file)
    process: dict[str, Any] = {"shim": identity(os.getpid()), "at": now()}
    if not claim(folder, process):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = start(command)  # kept to the end: a Popen that is dropped reaps its child behind our back
    except OSError as error:
        write_patiently(folder, "exit.json", {"code": 127, "at": now(), "reason": str(error)})
        return
    process["program"] = identity(program.pid)
    write_patiently(folder, "process.json", process)
    status = wait_for(program.pid)
    clear_leftovers()
    ended: dict[str, Any] = (
        {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"code": os.WEXITSTATUS(status)}
    )
    write_patiently(folder, "exit.json", {**ended, "at": now()})


def claim(folder: int, content: dict[str, Any]) -> bool:
    """Create ``process.json`` with ``content`` unless it exists; says whether it was created."""
    beside = f"process.json.{os.getpid()}"
    write(folder, beside, content)
    try:
        os.link(beside, "process.json", src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        return False
    finally:
        os.unlink(beside, dir_fd=folder)
    return True


def start(command: dict[str, Any]) -> "subprocess.Popen[bytes]":
    log = open_log(command["log"])
    inherited = {name: value for name, value in os.environ.items() if name != _OWN_MARK}
    try:
        return subprocess.Popen(
            command["argv"],
            cwd=command["cwd"],
            env={**inherited, **command["env"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    finally:
        os.close(log)


def open_log(path: str) -> int:
    """The log to append to. An earlier attempt may have left a link, a FIFO or a device in its place: those are refused."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    log = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(log).st_mode):
        os.close(log)
        raise OSError(errno.EINVAL, "the log is not a regular file", path)
    return log


def wait_for(child: int) -> int:
    """Reap everything that ends below this process until ``child`` does; answers its wait status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def clear_leftovers() -> None:
    """Stop what the program left running: first asked, then killed."""
    ask_until = time.monotonic() + _LEFTOVER_GRACE_SECONDS
    sign = signal.SIGTERM
    while True:
        if time.monotonic() > ask_until:
            sign = signal.SIGKILL
        left = descendants(os.getpid())
        if not left and not reap():
            return
        for pid in left:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        until = time.monotonic() + 0.1
        while reap() and time.monotonic() < until:
            time.sleep(0.005)


def reap() -> bool:
    """Collect ended children; says whether any child is still there."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found


def identity(pid: int) -> dict[str, Any]:
    """pid, start ticks and boot id: together they name one process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    return {"pid": pid, "start_ticks": int(fields[19]), "boot_id": boot_id}


def write_patiently(folder: int, name: str, content: dict[str, Any]) -> None:
    """Write what nobody else can know: a full disk delays it, for as long as it takes.

    A program that has deleted its folder has nowhere to keep it: then how it ends stays unknown, but it is still waited for.
    """
    while True:
        try:
            write(folder, name, content)
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                return
        time.sleep(_DISK_RETRY_SECONDS)


def write(folder: int, name: str, content: dict[str, Any]) -> None:
    """Write beside, fsync, rename: a reader sees all of it or nothing."""
    beside = f"{name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    main(sys.argv[1])
