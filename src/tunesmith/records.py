"""The journaled records and the states they pass through. Frozen: a change is a new record under the same id."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import msgspec

from tunesmith.errors import Fault


class Clock(Protocol):
    """Where the time comes from; tests pass their own."""

    def __call__(self) -> datetime: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)


def new_id(prefix: str) -> str:
    """``run_01k9...``: sorts by creation time (48 bits of milliseconds), then 80 random bits, as a ULID does."""
    number = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])}"


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every journaled record has."""

    id: str

    @classmethod
    def upgraded(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a journal line that a version before wrote, as this one would have written it."""
        return data


class IdempotentCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The creating call that a record came from, so that a repeat of it finds the record instead of making another."""

    scope: str
    """What was to be made and below which record, such as ``runs of exp_01...``: keys of different scopes differ."""
    key: str
    """The ``Idempotency-Key``, chosen by the client."""
    request_sha256: str
    """Hash of the request, to tell a repeat from another request under the same key."""
    caller: str = ""
    """The id of the API key that called; empty where none was needed."""


class Scope(StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        order = tuple(Scope)
        return order.index(self) >= order.index(needed)


class Key(Record, frozen=True, kw_only=True):
    """An API key. The secret itself is never stored."""

    name: str
    scope: Scope
    secret_sha256: str
    created_at: datetime
    revoked_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class ProjectStatus(StrEnum):
    ACTIVE = "active"
    ARCHIVED = "archived"  # takes no new runs, and its name is free again


class Project(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What makes a project of an experiment: the files that its runs start from."""

    dataset_name: str
    """An upload, a dataset, or a file below ``datasets/`` of the training folder."""
    training_yaml_name: str
    """A dataset's train config, or a file below ``configs/`` of the training folder."""
    description: str = ""
    status: ProjectStatus = ProjectStatus.ACTIVE


class Experiment(Record, frozen=True, kw_only=True):
    """What groups runs for comparison."""

    name: str
    task_type: str
    created_at: datetime
    goal: str = ""
    version: str = ""
    base_model: str = ""
    owner: str = ""
    param_config: dict[str, Any] = {}
    """Free notes about parameters for people to compare by; runs do not read it."""
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    request_sha256: str | None = None
    """This and ``idempotency_key`` are of records from before there was ``idempotency``."""
    idempotency: IdempotentCall | None = None
    project: Project | None = None
    """Set for an experiment that is a project."""


class RunKind(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"


class RunState(StrEnum):
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
    FINAL = "final"  # the run is over


class Callback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Whom a run tells of what happens to it."""

    url: str
    events: tuple[CallbackEvent, ...] = tuple(CallbackEvent)
    every_steps: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How often metrics are sent. With neither this nor ``every_epochs``, once an epoch."""
    every_epochs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    shape: Literal["tunesmith", "finetune"] = "tunesmith"
    """What a body looks like: type, timestamp and data, or a result as the finetune door defines it."""
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
    """The run that this one goes on from."""
    resume_from: str | None = None
    """The checkpoint that the next attempt starts from."""
    checkpoints_used: tuple[str, ...] = ()
    """The folders of all checkpoints that its config names: they stay until it has ended."""
    labels: dict[str, str] = {}
    """What the door that created it keeps with it, by ``<door>.<name>``. ``task_id``, without a door, is what its caller
    calls it: a run can be found by that."""
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


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person calls a checkpoint; it is kept as long as it has one."""

    tag_type: str
    release_tag: str | None = None
    """A model reference."""
    metrics: dict[str, Any]
    at: datetime
    idempotency: tuple[IdempotentCall, ...] = ()
    """The call that made it, after those of the marks whose place it took: repeating one of these changes nothing."""


class Dataset(Record, frozen=True, kw_only=True):
    """A named collection of uploaded files. What its files add up to is counted from the uploads."""

    name: str
    created_at: datetime
    type: str = ""
    source: str = ""
    task_type: str = ""
    description: str = ""
    metadata: dict[str, Any] = {}
    """What its owner says of it: version, records, license, tags, language, and whatever else."""
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class Upload(Record, frozen=True, kw_only=True):
    """One file that was put into a dataset, whole. Its bytes lie in a folder named by its id."""

    dataset_id: str
    name: str
    """As the client called it; never used as a path."""
    stored_name: str
    """Made by the server: the file's name below the upload's folder."""
    bytes: int
    sha256: str
    uploaded_at: datetime
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class TrainConfigFile(Record, frozen=True, kw_only=True):
    """The train config of a dataset, or the one of the whole service; each PUT makes a new one."""

    dataset_id: str | None
    """None: of the whole service."""
    filename: str
    stored_name: str
    size: int
    """In bytes."""
    uploaded_at: datetime
    recipe: str
    """The recipe it was checked against."""
    deleted_at: datetime | None = None


class Checkpoint(Record, frozen=True, kw_only=True):
    """A complete folder that a run wrote."""

    run_id: str
    step: int
    path: str
    bytes: int
    created_at: datetime
    """When its manifest was written."""
    experiment_id: str | None = None
    epoch: float | None = None
    metrics: dict[str, float] = {}
    base_model: str | None = None
    data_sha256: str | None = None
    template_sha256: str | None = None
    marks: tuple[Mark, ...] = ()
    removed_at: datetime | None = None
    """When it went from the disk; its record stays."""


class DeliveryState(StrEnum):
    PENDING = "pending"  # to be sent at next_at, or once those before it in the run are out of the way
    DELIVERED = "delivered"  # the receiver answered 2xx
    FAILED = "failed"  # every try of the schedule failed; given up
    GONE = "gone"  # the receiver answered 410: it wants nothing more of this run
    DROPPED = "dropped"  # not sent, because an earlier one of the run got the 410


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try to send a delivery: it has a status, or an error when no whole answer came."""

    number: int
    at: datetime
    seconds: float
    status: int | None = None
    answer: str = ""
    """The beginning of what the receiver said."""
    error: str | None = None
    next_at: datetime | None = None
    """When the next try was due from then on."""


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """A moment by the machine's own clock, which nobody sets: seconds since it was booted, sleep included."""

    boot_id: str
    seconds: float


class BodySource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a body is made of each time it is sent: it may be long, and then a copy for each delivery is too much."""

    fields: dict[str, Any]
    """Those of the body that are on record as they are."""
    result_file: str | None = None
    """The others are in this file below the run's folder."""
    log_upto: int | None = None
    """The others are drawn from what was measured up to this byte of run.log."""


class Delivery(Record, frozen=True, kw_only=True):
    """One event on its way to one URL."""

    run_id: str
    key: str
    """Names the occurrence within the run, such as ``metrics@4096``; the id is made from both."""
    kind: CallbackEvent
    url: str
    body: str = ""
    """Exactly what is sent, every time; empty for one that has a ``source``."""
    source: BodySource | None = None
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    next_at: datetime | None = None
    due_uptime: Uptime | None = None
    """The same moment as ``next_at``: what counts, until the machine is booted again."""
    failures: int = 0
    """Tries that failed since it was last taken up: its place in the schedule."""
    attempts: tuple[DeliveryAttempt, ...] = ()
    """The latest, oldest first."""
