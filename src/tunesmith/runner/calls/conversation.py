"""A conversation with a worker process: starting it, asking it, ending it with all it started. See ``contract.calls``.

The process has of the server's environment what a run has, and a session of its own, so that a signal for the server's
group does not reach it. It watches its standard input and ends when that closes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.abc

from tunesmith.contract.calls import Answer, Refusal, outcome_of, request_line
from tunesmith.contract.events import read_line
from tunesmith.errors import WorkerFailed
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors
from tunesmith.runner.local.environment import inherited

LONGEST_ANSWER = 64 * 1024 * 1024


class NoAnswer(Exception):
    """The process ended, or closed its output, before it answered."""


class Refused(Exception):
    """The worker says why there is no answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class Conversation:
    """Requests and answers, one at a time. Who gives up on an answer has to end the process: it would be the next one's."""

    def __init__(self, process: anyio.abc.Process, log: Callable[[bytes], object] = lambda _line: None) -> None:
        """``log`` gets every line that is no event."""
        assert process.stdout is not None
        self.process = process
        self._log = log
        self._lines = lines(process.stdout)

    async def ask(self, request: Mapping[str, Any], call: int | None = None) -> dict[str, Any]:
        """The fields of the answer.

        Raises:
            Refused, NoAnswer: there is none.
            WorkerFailed: it is too long.
        """
        assert self.process.stdin is not None
        line = request_line(request, call)
        with contextlib.suppress(
            anyio.BrokenResourceError, anyio.ClosedResourceError
        ):  # it ended; its last words say why
            await self.process.stdin.send(line)
        outcome = await self._next(call)
        if isinstance(outcome, Answer):
            return outcome.fields
        raise Refused(outcome) if outcome is not None else NoAnswer

    async def end(self) -> int:
        """Hear the process out; its exit code."""
        while await self._next(None) is not None:
            pass
        return await self.process.wait()

    async def _next(self, call: int | None) -> Answer | Refusal | None:
        async for line in self._lines:
            event = read_line(line)
            if event is None:
                self._log(line)
            elif (outcome := outcome_of(*event, call)) is not None:
                return outcome
        return None


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
