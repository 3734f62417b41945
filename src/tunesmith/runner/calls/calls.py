"""Calls a worker program for an answer: one process, a JSON request on its standard input, the line format back.

For work that is too heavy for the event loop and too short for a run: validating a file, rendering a preview. What
takes long or must survive the server is a run instead. The process ends with the server: it watches its input.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import anyio
import anyio.abc

from tunesmith.contract.calls import OUT_OF_SPACE, PACKAGE_MISSING, UNEXPECTED, Refusal
from tunesmith.errors import Fault, InvalidInput, OutOfSpace, WorkerFailed
from tunesmith.runner.calls.conversation import Conversation, NoAnswer, Refused, end_worker, open_worker
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
            return await self._call(module, request, seconds)

    async def _call(self, module: str, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        process = await open_worker(self._python, module, variables=self._variables, descriptors=self._descriptors)
        try:
            with anyio.fail_after(seconds):
                return await _converse(process, module, request)
        except TimeoutError:
            raise WorkerFailed(f"{module} gave no answer within {seconds:g} s", mend="give it less at a time") from None
        finally:
            await end_worker(process)


async def _converse(process: anyio.abc.Process, module: str, request: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] | None = None
    words: deque[str] = deque(maxlen=_LINES_KEPT)
    talk = Conversation(process, lambda line: words.append(line.decode(errors="replace")))
    try:
        answer = await talk.ask(request)
    except Refused as refused:
        if refused.refusal.cause != UNEXPECTED:
            raise _error_of(refused.refusal) from None
    except NoAnswer:
        pass  # its exit code and last words say more, below
    code = await talk.end()
    if answer is None or code:
        raise WorkerFailed(
            f"{module} ended with {code} and without an answer; its last words:\n" + "\n".join(words)[-4000:],
            mend="where a package is missing, install the extra that docs/operations.md names for this call",
        )
    return answer


_CAUSES: Mapping[str | None, type[InvalidInput | OutOfSpace | WorkerFailed]] = MappingProxyType(
    {OUT_OF_SPACE: OutOfSpace, PACKAGE_MISSING: WorkerFailed}
)


def _error_of(refusal: Refusal) -> InvalidInput | OutOfSpace | WorkerFailed:
    kind = _CAUSES.get(refusal.cause, InvalidInput)
    faults = tuple(map(_fault, refusal.faults)) if len(refusal.faults) > 1 else ()
    return kind(refusal.text, where=refusal.where, mend=refusal.mend, faults=faults)


def _fault(told: Mapping[str, Any]) -> Fault:
    where, mend = (str(said) if (said := told.get(name)) is not None else None for name in ("where", "mend"))
    return Fault(message=str(told.get("message", "")), where=where, mend=mend)
