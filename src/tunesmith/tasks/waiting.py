"""Waiting for the end of a run, until its output is where it was promised: with a deadline, and let go when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from tunesmith.errors import Fault
from tunesmith.records import Run, RunState


class Receipt(Protocol):
    """What came of an output that was promised somewhere."""

    @property
    def error(self) -> Fault | None: ...


class Receipts(Protocol):
    """What came of all of them."""

    async def wait(self, run: Run, /) -> Receipt | None: ...


class Ended(msgspec.Struct, frozen=True):
    """A run that is over."""

    run: Run
    error: Fault | None
    """What went wrong, in the run or in putting its output where it was promised."""


class EndWaiter:
    """Waits for runs."""

    def __init__(self, run_over: Callable[[str], Awaitable[Run]], receipts: Receipts) -> None:
        """``run_over`` answers a run when it is over."""
        self._run_over = run_over
        self._receipts = receipts
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let everybody go who waits."""
        self._closing.set()

    async def wait(self, run_id: str, seconds: float) -> Ended | None:
        """How the run ended; None if it goes on after so many seconds, or the server stops first. The run is left alone."""
        ending = asyncio.ensure_future(self._ended(run_id))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((ending, closing), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return ending.result() if ending.done() else None
        finally:
            ending.cancel()
            closing.cancel()

    async def _ended(self, run_id: str) -> Ended:
        run = await self._run_over(run_id)
        if run.state is not RunState.SUCCEEDED:
            return Ended(run, run.error or Fault(message=f"run {run.id} was {run.state}"))
        receipt = await self._receipts.wait(run)
        return Ended(run, receipt.error if receipt is not None else None)
