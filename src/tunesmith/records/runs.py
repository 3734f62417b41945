"""Runs and the states they pass through, how far they have come, and whom they tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from tunesmith.errors import Fault
from tunesmith.records.base import IdempotentCall, Record

PUBLISH_TO = "publish_to"
"""The label of a run whose output is promised somewhere: a folder, or with ``PUBLISH_FILE`` a file."""
PUBLISH_FILE = "publish_file"
"""The label that names the one file of the output that is promised; without it, all of the output is."""


class RunKind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"


class RunState(StrEnum):
    VALIDATING = "validating"  # the files it names are looked at before it may wait for a slot
    QUEUED = "queued"  # waits for a slot
    STARTING = "starting"  # intent is on disk; the process may or may not exist yet
    RUNNING = "running"  # the process is known by pid, start time and boot id
    STOPPING = "stopping"  # was asked to stop and is writing its checkpoint
    PAUSED = "paused"  # stopped with a checkpoint, to be queued again
    SUCCEEDED = "succeeded"  # exited with 0
    FAILED = "failed"  # exited otherwise, or could not be started
    CANCELLED = "cancelled"  # stopped because somebody asked
    LOST = "lost"  # the process is gone and its exit cannot be known

    @property
    def final(self) -> bool:
        return not LEGAL_MOVES[self]

    @property
    def has_process(self) -> bool:
        return self in (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)


_ENDS = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.LOST})
LEGAL_MOVES: Mapping[RunState, frozenset[RunState]] = MappingProxyType(
    {
        RunState.VALIDATING: frozenset({RunState.QUEUED, RunState.FAILED, RunState.CANCELLED}),
        RunState.QUEUED: frozenset({RunState.STARTING, RunState.CANCELLED, RunState.FAILED}),
        # back to queued only by recovery, when the process turns out never to have started
        RunState.STARTING: frozenset({RunState.RUNNING, RunState.STOPPING, RunState.QUEUED}) | _ENDS,
        RunState.RUNNING: frozenset({RunState.STOPPING, RunState.QUEUED}) | _ENDS,
        RunState.STOPPING: frozenset({RunState.PAUSED}) | _ENDS,
        RunState.PAUSED: frozenset({RunState.QUEUED, RunState.CANCELLED}),
        RunState.SUCCEEDED: frozenset(),
        RunState.FAILED: frozenset(),
        RunState.CANCELLED: frozenset(),
        RunState.LOST: frozenset(),
    }
)


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="process"):
    """A process that cannot be mistaken for another: the pid alone is reused, the three together are not."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/<pid>/stat."""
    boot_id: str


Handle: TypeAlias = ProcessIdentity
"""By what an executor knows an attempt again: one struct for each kind of executor, told apart by ``kind``. Another kind
joins as ``ProcessIdentity | SlurmJob``; lines from before handles had a kind are upgraded (``Run.upgraded``)."""


class Exit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a process ended: exactly one of the two is set."""

    code: int | None = None
    signal: int | None = None
    at: datetime | None = None


class DatasetReference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The data of a run, as requested; ``path`` is what it was resolved to."""

    name: str
    split: str = "train"
    path: str | None = None
    validation_path: str | None = None
    """The validation file that goes with it, where the recipe takes one."""


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a run wants to run on. Without a count the recipe decides."""

    gpu_type: str | None = None
    count: int | None = None


class ToldWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A message at level warning that a process printed."""

    at: float
    """Unix seconds."""
    text: str
    log_offset: int
    """The byte of run.log that it ends at, by which it is known again."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a run has come, folded from what its process printed."""

    phase: str | None = None
    part: str | None = None
    """What of the phase it is at, such as what a preflight tries."""
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    metrics: dict[str, float] = {}
    """The latest value of each metric."""
    measured_step: int | None = None
    """Where metrics were last taken: a process may say that it has come to a step before it has measured there."""
    measured_epoch: float | None = None
    eta_seconds: float | None = None
    ckpt_path: str | None = None
    ckpt_step: int | None = None
    output_path: str | None = None
    """The model folder that a ``result`` line named."""
    error: Fault | None = None
    """The last message at level error."""
    warnings: tuple[str, ...] = ()
    """What its lines held that could not be used."""
    told_warnings: tuple[ToldWarning, ...] = ()
    """The first different ones that it told itself, in their order."""
    log_offset: int = 0
    """Everything in run.log before this byte is folded in."""

    @property
    def fraction(self) -> float:
        if not self.step or not self.total_steps:
            return 0.0
        return min(1.0, self.step / self.total_steps)


class CallbackEvent(StrEnum):
    """What a callback may ask to be told of."""

    STATE = "state"  # the run has entered another state
    METRICS = "metrics"  # measurements, every so many steps or epochs and the last
    CHECKPOINT = "checkpoint"  # a complete checkpoint was written
    FINAL = "final"  # it is over


class Callback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Whom a run tells of what happens to it."""

    url: str
    events: tuple[CallbackEvent, ...] = tuple(CallbackEvent)
    every_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How often metrics are sent. With neither this nor ``every_epochs``, once an epoch."""
    every_epochs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    shape: Literal["tunesmith", "finetune", "openai"] = "tunesmith"
    """What a body looks like: type, timestamp and data; a result as the finetune door defines it; or an event as OpenAI's
    webhooks send it, which there is of the end of a training only."""
    task_id: str = ""
    """What a result is sent back with; without it the run's id. For the shape finetune only."""


class Run(Record, frozen=True, kw_only=True):
    """One request to execute a recipe."""

    kind: RunKind
    recipe: str
    state: RunState
    created_at: datetime
    experiment_id: str | None = None
    model: str | None = None
    dataset: DatasetReference | None = None
    hyperparams: dict[str, Any] = {}
    train_config: str | None = None
    resources: Resources = Resources()
    """As the request has them."""
    gpus_needed: int | None = None
    """How many GPUs it leases, with 0 a CPU slot; None in records of before, where it is ``resources.count``."""
    notes: str = ""
    priority: int = 0
    """Larger starts first; equal ones in the order they were created."""
    seed: int | None = None
    command: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    callback: Callback | None = None
    idempotency: IdempotentCall | None = None
    parent_run_id: str | None = None
    """The run that this one resumes from."""
    resume_from: str | None = None
    """The checkpoint that the next attempt starts from."""
    checkpoints_used: tuple[str, ...] = ()
    """The folders of all checkpoints that its config names: they stay until it has ended."""
    labels: dict[str, str] = {}
    """What the door that created it keeps with it, by ``<door>.<name>``. Those without a door are known to others as well:
    ``task_id`` is what its caller calls it, and it can be found by that; ``publish_to`` is where its output is promised."""
    restarts: int = 0
    """How often it was queued again because its process died with the machine."""
    attempt: int = 0
    """The number of the current attempt; 0 before the first."""
    gpus: tuple[str, ...] = ()
    """What the current attempt leases; empty on a CPU slot."""
    process: Handle | None = None
    """Of the current attempt."""
    stop_reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit: Exit | None = None
    error: Fault | None = None
    progress: Progress = Progress()
    """As of the last journaled change; while a process runs, the live one is ahead of it."""
    webhook: bool = False
    """Whether ``webhook_url`` was set when it ended: then its end is told there, if need be by the next server."""
    log_bytes: int = 0
    """Length of run.log at this change: where the change belongs between the log lines."""

    @classmethod
    def upgraded(cls, data: dict[str, Any]) -> dict[str, Any]:
        """0.1.0 before ``labels``: ``finetuned_place`` and ``finetune_task`` were fields of their own; ``process`` had no kind."""
        upgraded = dict(data)
        if upgraded.get("process"):
            upgraded["process"] = {"kind": "process", **upgraded["process"]}
        labels = dict(upgraded.get("labels", {}))
        if place := upgraded.pop("finetuned_place", None):
            labels["finetune.publish_to"] = place
        task = upgraded.pop("finetune_task", None) or {}
        labels |= {name if name == "task_id" else f"finetune.{name}": value for name, value in task.items()}
        return {**upgraded, "labels": labels} if labels else upgraded


class ArtifactTags(Record, frozen=True, kw_only=True):
    """What people call a file that a run wrote. The id is the artifact's, made from the run's id and the path."""

    run_id: str
    path: str
    """Below the run's folder."""
    tags: tuple[str, ...] = ()
