"""Events in the form of OpenAI's webhooks: that a job or a batch is over. What came of it is asked for by its id.

They go to the endpoint in the settings, and to callbacks of this shape. Who notices that something ended is not decided
here, nor how deliveries are signed and sent: with the headers that OpenAI's webhooks have.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tunesmith.callbacks import CallbackService, id_of
from tunesmith.records import Callback, CallbackEvent, Endpoint, Run, RunKind, RunState

EventType: TypeAlias = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]

_OF_TRAININGS: Mapping[RunState, EventType] = MappingProxyType(
    {
        RunState.SUCCEEDED: "fine_tuning.job.succeeded",
        RunState.FAILED: "fine_tuning.job.failed",
        RunState.CANCELLED: "fine_tuning.job.cancelled",
        RunState.LOST: "fine_tuning.job.failed",
    }
)


class OpenAIEvents:
    """What the endpoint in the settings is told, whoever began what has ended."""

    def __init__(self, callbacks: CallbackService, url: str) -> None:
        self._callbacks = callbacks
        self._callback = Callback(url=url, events=(CallbackEvent.FINAL,), shape="openai") if url else None

    @property
    def wanted(self) -> bool:
        """Whether there is an endpoint. Who records an end writes this down with it: the next server then knows what this
        one may have left untold, and tells nothing that had ended before there was an endpoint.
        """
        return self._callback is not None

    def settled(self, subject_id: str, event_type: EventType) -> bool:
        """Whether nothing is left to offer. Reads nothing."""
        return self._callback is None or self._callbacks.offered(subject_id, _key(event_type))

    async def offer(self, subject_id: str, event_type: EventType, data_id: str, at: datetime) -> None:
        """Put it on record that a run or a batch is over, to be sent; offering it again, or without an endpoint, does nothing.

        ``data_id`` is what OpenAI's API calls it, ``at`` when it ended: both are the same each time.

        Raises:
            OutOfSpace, Unavailable: it could not be written down.
        """
        if self._callback is None or self.settled(subject_id, event_type):
            return
        key = _key(event_type)
        body = event_of(subject_id, key, event_type, data_id, at)
        await self._callbacks.offer(
            subject_id, self._callback, CallbackEvent.FINAL, key, body, at=at, endpoint=Endpoint.WEBHOOK
        )


def event_of(subject_id: str, key: str, event_type: EventType, data_id: str, at: datetime) -> dict[str, Any]:
    """The body of the delivery that has this key. Its id is made from the delivery's: every try says the same."""
    return {
        "id": f"evt_{id_of(subject_id, key).removeprefix('dlv_')}",
        "object": "event",
        "created_at": int(at.timestamp()),
        "type": event_type,
        "data": {"id": data_id},
    }


def type_of_end(kind: RunKind, state: RunState) -> EventType | None:
    """What is told of a run; None while it goes on, and for evaluations and exports: OpenAI's API has no event for those."""
    return _OF_TRAININGS.get(state) if kind is RunKind.TRAIN else None


def job_id_of(run_id: str) -> str:
    """What a run is called in OpenAI's API."""
    return f"ftjob-{run_id.removeprefix('run_')}"


def ended_at(run: Run) -> datetime:
    """When it ended; every end says so."""
    return run.finished_at or run.created_at


def _key(event_type: EventType) -> str:
    return f"webhook:{event_type}"
