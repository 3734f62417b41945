"""Calls a worker program for an answer: one process, a JSON request on its standard input, the line format back.

For work that is too heavy for the event loop and too short for a run: validating a file, rendering a preview. What
takes long or must survive the server is a run instead. The process ends with the server: it watches its input.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import anyio
import anyio.abc
import msgspec

from tunesmith.contract.events import read_line
from tunesmith.errors import InvalidInput, OutOfSpace, WorkerFailed
from tunesmith.runner.calls.conversation import end_worker, lines, open_worker
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors

_LINES_KEPT = 30


class WorkerCalls:
    """Starts worker programs, a few at a time; the others wait for their turn."""

    def __init__(
        self,
        *,
        at_once: int = 2,
        python: str = sys.executable,
        variables: Sequence[str] = (),
        descriptors: ChildDescriptors = AS_INHERITED,
    ) -> None:
        """``variables`` of the server that workers are given beside the ordinary ones; see ``environment``."""
        self._python = python
        self._variables = tuple(variables)
        self._descriptors = descriptors
        self._turns = anyio.CapacityLimiter(at_once)

    async def call(self, module: str, request: Mapping[str, Any], *, seconds: float = 3600.0) -> dict[str, Any]:
        """The fields of the ``result`` that the program prints.

        Args:
            module: what is started with ``python -m``.
            request: what it reads, as JSON on one line.
            seconds: how long it may take before it is killed.

        Raises:
            InvalidInput: the program refused what it was given; said in its own words.
            OutOfSpace: it could not write for want of room.
            WorkerFailed: it ended without an answer, or needs a package that is not installed.
        """
        async with self._turns:
            return await self._call(module, msgspec.json.encode(request) + b"\n", seconds)

    async def _call(self, module: str, request: bytes, seconds: float) -> dict[str, Any]:
        process = await open_worker(self._python, module, variables=self._variables, descriptors=self._descriptors)
        try:
            with anyio.fail_after(seconds):
                return await _converse(process, module, request)
        except TimeoutError:
            raise WorkerFailed(f"{module} gave no answer within {seconds:g} s", mend="give it less at a time") from None
        finally:
            await end_worker(process)


async def _converse(process: anyio.abc.Process, module: str, request: bytes) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(anyio.BrokenResourceError):  # it ended already; its last words say why
        await process.stdin.send(request)
    answer: dict[str, Any] | None = None
    complaint: dict[str, Any] | None = None
    words: deque[str] = deque(maxlen=_LINES_KEPT)
    async for line in lines(process.stdout):
        event = read_line(line)
        if event is None:
            words.append(line.decode(errors="replace"))
        elif event[0] == "result":
            answer = event[1]
        elif event[0] == "message" and event[1].get("level") == "error":
            complaint = event[1]
    code = await process.wait()
    if complaint is not None and complaint.get("cause") != "unexpected":
        raise _refusal(complaint)
    if answer is None or code:
        raise WorkerFailed(
            f"{module} ended with {code} and without an answer; its last words:\n" + "\n".join(words)[-4000:],
            mend="where a package is missing, install the extra that docs/operations.md names for this call",
        )
    answer.pop("at", None)
    return answer


_CAUSES: Mapping[object, type[InvalidInput | OutOfSpace | WorkerFailed]] = MappingProxyType(
    {"out_of_space": OutOfSpace, "package_missing": WorkerFailed}
)


def _refusal(complaint: Mapping[str, Any]) -> InvalidInput | OutOfSpace | WorkerFailed:
    kind = _CAUSES.get(complaint.get("cause"), InvalidInput)
    return kind(str(complaint.get("text", "")), where=complaint.get("where"), mend=complaint.get("mend"))
