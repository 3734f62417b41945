"""How jobs, their events and checkpoints look to OpenAI's clients."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    """`invalid_training_file`, `invalid_validation_file` or `training_failed`."""
    message: str
    """With the lines that are wrong, for a file."""
    param: str | None = None
    """`training_file` or `validation_file`, where it is about one of them."""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """Those of a job: what it was asked for, and once its files were validated, what it is trained with."""

    n_epochs: int | Literal["auto"] = "auto"
    """How often every row is seen."""
    batch_size: int | Literal["auto"] = "auto"
    """Rows of one optimizer step."""
    learning_rate_multiplier: float | Literal["auto"] = "auto"
    """Of the learning rate that the recipe and the model's size give."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuning job: a run, in OpenAI's words."""

    id: str
    """`ftjob-...`: the run's id under another prefix."""
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    """Unix seconds."""
    error: JobError | None = None
    """Of a failed job: why."""
    fine_tuned_model: str | None = None
    """What it made: a model's name, to be asked at once."""
    finished_at: int | None = None
    """Unix seconds."""
    hyperparameters: Hyperparameters
    """As in `method`."""
    model: str
    """The base model, as the request called it."""
    organization_id: str
    """Always `org-tunesmith`."""
    result_files: list[str]
    """Of a succeeded job: a file with its measurements, step by step, as CSV."""
    seed: int
    """As given, or chosen by the service."""
    status: Status
    """`paused` jobs go on when they are resumed."""
    trained_tokens: int | None = None
    """How many tokens it has learned from."""
    training_file: str
    """The id of the file; what else the run was given, for one of another door."""
    validation_file: str | None = None
    """The same."""
    estimated_finish: int | None = None
    """Unix seconds, while it runs."""
    integrations: list[dict[str, Any]] = []
    """As given."""
    metadata: dict[str, str] | None = None
    """As given."""
    method: dict[str, Any]
    """The method with its hyperparameters."""


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first; ask with the last one's id as `after` for the next page, while `has_more`."""

    object: Literal["list"] = "list"
    data: list[Job]
    """In that order."""
    has_more: bool
    """Whether there are more."""


class JobEventObject(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    id: str
    """The same for the same event, for ever."""
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    """Unix seconds."""
    level: Literal["info", "warn", "error"]
    """How bad it is."""
    message: str
    """For people."""
    type: Literal["message", "metrics"]
    """`metrics` for measurements at a step."""
    data: dict[str, Any]
    """Of `metrics`: `step`, `total_steps`, `train_loss`, `train_mean_token_accuracy`, `valid_loss`, ..."""


class JobEventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events, newest first; ask with the last one's id as `after` for the next page, while `has_more`."""

    object: Literal["list"] = "list"
    data: list[JobEventObject]
    """In that order."""
    has_more: bool
    """Whether there are more."""


class JobCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of a job, which is a model like any other."""

    id: str
    """`ftckpt_...`: the checkpoint's id under another prefix."""
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    """Unix seconds."""
    fine_tuned_model_checkpoint: str
    """What requests call the model."""
    fine_tuning_job_id: str
    """Whose it is."""
    metrics: dict[str, float]
    """`step`, `train_loss`, `train_mean_token_accuracy`, and where there are validation rows `valid_loss`, ..."""
    step_number: int
    """At which optimizer step it was written."""


class JobCheckpointPage(msgspec.Struct, frozen=True, kw_only=True):
    """Checkpoints, newest first; ask with `last_id` as `after` for the next page, while `has_more`."""

    object: Literal["list"] = "list"
    data: list[JobCheckpoint]
    """In that order."""
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool
    """Whether there are more."""
