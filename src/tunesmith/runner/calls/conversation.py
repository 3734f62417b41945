"""What every conversation with a worker process needs: starting it, reading its lines, ending it with all it started.

The process has of the server's environment what a run has, and a session of its own, so that a signal for the server's
group does not reach it. It watches its standard input and ends when that closes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence

import anyio
import anyio.abc

from tunesmith.errors import WorkerFailed
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors
from tunesmith.runner.local.environment import inherited

LONGEST_ANSWER = 64 * 1024 * 1024


async def open_worker(
    python: str,
    module: str,
    *,
    stderr: int = subprocess.STDOUT,
    variables: Sequence[str] = (),
    descriptors: ChildDescriptors = AS_INHERITED,
) -> anyio.abc.Process:
    """``python -m module`` with pipes at its standard input and output.

    ``variables`` of the server are passed on beside the ordinary ones.
    """
    # A caller that leaves in this very moment must still get hold of the process, or nobody would end it and its pipes.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            descriptors.limited([python, "-m", module]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env=inherited(variables),
        )
    return process  # noqa: RET504  # the type checker takes a scope for one that may swallow what is raised in it


async def end_worker(process: anyio.abc.Process) -> None:
    """Kill it and what it started; cancellation does not stop this."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True):
        await process.aclose()


async def lines(stream: anyio.abc.ByteReceiveStream) -> AsyncIterator[bytes]:
    """Whole lines without their ends, and a last one without an end.

    Raises:
        WorkerFailed: a line is longer than any answer may be.
    """
    rest = bytearray()
    async for chunk in stream:
        rest += chunk
        if b"\n" in chunk:
            *whole, last = bytes(rest).split(b"\n")
            for line in whole:
                yield line
            rest = bytearray(last)
        elif len(rest) > LONGEST_ANSWER:
            raise WorkerFailed(f"an answer is longer than {LONGEST_ANSWER} bytes", mend="ask for less at a time")
    if rest:
        yield bytes(rest)
