"""``Prefer`` at calls that answer when a run is over: how long a client wants to wait (RFC 7240)."""

from __future__ import annotations

from typing import Annotated

from litestar.params import HeaderParameter

from tunesmith.api.leaving import while_connected
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.errors import Conflict, InvalidInput, WorkerFailed
from tunesmith.records import Run, RunState
from tunesmith.tasks import Ended

LONGEST_WAIT_SECONDS = 1800.0
"""After this the answer is 202, and the run goes on."""

APPLIED = {"Preference-Applied": "respond-async"}

Prefer = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        max_length=200,
        description="`respond-async` answers 202 at once, `wait=SECONDS` after so many seconds at the latest; without it, the "
        "answer comes when the run is over, or after half an hour as 202. Other preferences are ignored.",
    ),
]


def seconds_to_wait(prefer: str | None) -> float:
    """How long to wait for the end."""
    named = dict(part.strip().lower().partition("=")[::2] for part in (prefer or "").split(","))
    wait = named.get("wait", "").strip('" ')
    if wait.isascii() and wait.isdecimal():
        return min(float(wait), LONGEST_WAIT_SECONDS)
    return 0.0 if "respond-async" in named else LONGEST_WAIT_SECONDS


async def ended(request: HttpRequest, run: Run, prefer: str | None) -> Run | None:
    """The run once it has succeeded, and its output is where it was promised; None if it takes longer than is waited.

    A client that leaves ends the waiting and not the run.

    Raises:
        InvalidInput: the run failed; with its own error.
        Conflict: it was cancelled, or its output could not be put where it was promised.
        WorkerFailed: how it ended cannot be known.
        ClientException: the client left.
    """
    waiter = services_of(request).end_waiter
    how = await while_connected(request, waiter.wait(run.id, seconds_to_wait(prefer)))
    if how is None:
        return None
    _refuse_failed(how)
    return how.run


def _refuse_failed(how: Ended) -> None:
    run, error = how.run, how.error
    if error is None:
        return
    if run.state is RunState.CANCELLED:
        raise Conflict(f"run {run.id} was cancelled", where="run_id", mend="ask again for a new one")
    message = f"run {run.id} {run.state}: {error.message}"
    if run.state is RunState.LOST:
        raise WorkerFailed(message, where=error.where, mend=error.mend)
    if run.state is RunState.SUCCEEDED:
        raise Conflict(error.message, where=error.where, mend=error.mend)
    raise InvalidInput(message, where=error.where, mend=error.mend)
