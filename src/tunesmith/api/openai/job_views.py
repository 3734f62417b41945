"""From a run to a job: its record, its labels and how far it has come, in OpenAI's words."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tunesmith.api.openai.job_objects import Hyperparameters, Job, JobCheckpoint, JobError, JobEventObject, Status
from tunesmith.api.services import Services
from tunesmith.contract.manifest import value_at
from tunesmith.errors import NotFound
from tunesmith.openai import (
    JobEvent,
    checkpoint_id,
    file_id,
    hyperparameters,
    is_job,
    job_id,
    labels,
    measured_in,
    name_of_model,
    result_upload_of,
)
from tunesmith.records import Checkpoint, Run, RunState

_ORGANIZATION = "org-tunesmith"
_STATUS: Mapping[RunState, Status] = {
    RunState.VALIDATING: "validating_files",
    RunState.QUEUED: "queued",
    RunState.STARTING: "running",
    RunState.RUNNING: "running",
    RunState.STOPPING: "running",
    RunState.PAUSED: "paused",
    RunState.SUCCEEDED: "succeeded",
    RunState.FAILED: "failed",
    RunState.LOST: "failed",
    RunState.CANCELLED: "cancelled",
}
_METHODS: Mapping[str, Literal["dpo", "reinforcement"]] = {
    "dpo": "dpo",
    "grpo": "reinforcement",
    "ppo": "reinforcement",
}
"""The method of a run that came through another door, by its recipe; supervised for all others."""


async def job_of(services: Services, run: Run) -> Job:
    """The job that a run is."""
    progress = services.runs.live.progress(run)
    status = _STATUS[run.state]
    if services.openai.results.pending(run):
        status = "running"
    method = await _method_of(services, run)
    used = method[method["type"]]["hyperparameters"]
    trained = progress.metrics.get("trained_tokens")
    return Job(
        id=job_id(run.id),
        created_at=int(run.created_at.timestamp()),
        error=_error_of(run),
        fine_tuned_model=name_of_model(run) if status == "succeeded" and progress.output_path is not None else None,
        finished_at=int(run.finished_at.timestamp()) if run.finished_at is not None and status != "running" else None,
        hyperparameters=Hyperparameters(**{name: used[name] for name in _SHARED}),
        model=run.labels.get(labels.MODEL) or run.model or "",
        organization_id=_ORGANIZATION,
        result_files=_result_files(services, run) if status == "succeeded" else [],
        seed=_seed_of(run),
        status=status,
        trained_tokens=int(trained) if trained is not None and math.isfinite(trained) else None,
        training_file=_training_file(services, run),
        validation_file=_validation_file(services, run),
        estimated_finish=_estimated_finish(run, progress.eta_seconds),
        integrations=labels.json_label(run, labels.INTEGRATIONS) or [],
        metadata=labels.json_label(run, labels.METADATA),
        method=method,
    )


_SHARED = ("n_epochs", "batch_size", "learning_rate_multiplier")


async def _method_of(services: Services, run: Run) -> dict[str, Any]:
    if is_job(run):
        kept = labels.json_label(run, labels.METHOD)
        asked = dict.fromkeys(_SHARED, "auto") | {
            name: value for name, value in kept["hyperparameters"].items() if value is not None
        }
        used = asked | (labels.json_label(run, labels.RESOLVED) or {})
        return {"type": kept["type"], kept["type"]: {**kept.get("others", {}), "hyperparameters": used}}
    kind = _METHODS.get(run.recipe, "supervised")
    return {"type": kind, kind: {"hyperparameters": await _of_config(services, run)}}


async def _of_config(services: Services, run: Run) -> dict[str, Any]:
    """Of a run that came through another door: what its config says."""
    found: dict[str, Any] = dict.fromkeys(_SHARED, "auto")
    try:
        config = await services.runs.configs.values_of(run.id)
    except NotFound:
        return found
    epochs = value_at(config, hyperparameters.EPOCHS)
    if isinstance(epochs, int | float) and math.isfinite(epochs):
        found["n_epochs"] = max(1, math.ceil(epochs))
    batch = value_at(config, hyperparameters.BATCH)
    if isinstance(batch, int):
        parts = value_at(config, hyperparameters.ACCUMULATION)
        found["batch_size"] = batch * (parts if isinstance(parts, int) else 1)
    return found


def _error_of(run: Run) -> JobError | None:
    if run.state not in (RunState.FAILED, RunState.LOST):
        return None
    fault = run.error
    if fault is None:
        return JobError(code="training_failed", message="its process is gone, and how it ended cannot be known")
    if fault.where in ("training_file", "validation_file"):
        told = msgspec.structs.replace(fault, where=None)
        return JobError(code=f"invalid_{fault.where}", message=str(told), param=fault.where)
    return JobError(code="training_failed", message=str(fault))


def _result_files(services: Services, run: Run) -> list[str]:
    upload = result_upload_of(run.id)
    return [file_id(upload)] if upload in services.uploads else []


def _seed_of(run: Run) -> int:
    given = run.labels.get(labels.SEED)
    return int(given) if given is not None else run.seed or 0


def _training_file(services: Services, run: Run) -> str:
    if labels.TRAINING_FILE in run.labels:
        return file_id(run.labels[labels.TRAINING_FILE])
    if run.dataset is None:
        return ""
    return _file_at(services, run.dataset.path) or run.dataset.name


def _validation_file(services: Services, run: Run) -> str | None:
    if labels.VALIDATION_FILE in run.labels:
        return file_id(run.labels[labels.VALIDATION_FILE])
    path = run.dataset.validation_path if run.dataset is not None else None
    return _file_at(services, path) or path


def _file_at(services: Services, path: str | None) -> str | None:
    """The file that an upload's path is."""
    name = Path(path).parent.name if path is not None else ""
    return file_id(name) if services.uploads.was_ever(name) else None


def _estimated_finish(run: Run, seconds: float | None) -> int | None:
    is_known = seconds is not None and math.isfinite(seconds) and run.state.has_process
    return int(time.time() + (seconds or 0)) if is_known else None


def event_of(event: JobEvent) -> JobEventObject:
    return JobEventObject(
        id=event.id,
        created_at=int(event.at),
        level=event.level,
        message=event.message,
        type=event.type,
        data=event.data,
    )


def checkpoint_of(run: Run, checkpoint: Checkpoint, at_its_step: Mapping[str, float]) -> JobCheckpoint:
    measured = measured_in({name: value for name, value in checkpoint.metrics.items() if math.isfinite(value)})
    return JobCheckpoint(
        id=checkpoint_id(checkpoint.id),
        created_at=int(checkpoint.created_at.timestamp()),
        fine_tuned_model_checkpoint=name_of_model(run, step=checkpoint.step),
        fine_tuning_job_id=job_id(run.id),
        metrics={"step": float(checkpoint.step), **measured, **at_its_step},
        step_number=checkpoint.step,
    )
