"""How runs look from outside; shared by the doors that show them."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import Any

import msgspec

from tunesmith.callbacks import shown_url
from tunesmith.errors import Fault
from tunesmith.records import Callback, DatasetReference, Exit, Progress, Resources, Run, RunKind, RunState


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run with how far it has come."""

    run_id: str
    experiment_id: str | None
    kind: RunKind
    recipe: str
    status: RunState
    model: str | None
    dataset: DatasetReference | None
    hyperparams: dict[str, Any]
    train_config: str | None
    resources: Resources
    notes: str
    priority: int
    seed: int | None
    start_command: str
    warnings: tuple[str, ...]
    callback: Callback | None
    """Its address without user, password and the values of its query."""
    parent_run_id: str | None
    resume_from: str | None
    """The checkpoint it started from."""
    restarts: int
    attempt: int
    progress: float
    current_step: int | None
    total_steps: int | None
    metrics: dict[str, float]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    exit: Exit | None
    error: Fault | None
    ckpt_path: str | None
    output_path: str | None
    """The finished model."""
    run_dir: str
    """Where config.yaml, run.log, metrics.jsonl, checkpoints/ and output/ are."""


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run has come."""

    run_id: str
    status: RunState
    progress: float
    """0 to 1."""
    phase: str | None
    part: str | None
    current_step: int | None
    total_steps: int | None
    epoch: float | None
    eta_seconds: float | None
    metrics: dict[str, float]
    """The latest value of each."""
    started_at: datetime | None
    finished_at: datetime | None
    error: Fault | None
    ckpt_path: str | None
    warnings: tuple[str, ...]
    """Among them why a queued run cannot start on this machine."""


class CancelledRun(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a cancel."""

    run_id: str
    status: RunState
    ckpt_path: str | None
    """The newest complete checkpoint; null when the run had none."""


def view_of(run: Run, progress: Progress, run_dir: str, warnings: tuple[str, ...]) -> RunView:
    return RunView(
        run_id=run.id,
        experiment_id=run.experiment_id,
        kind=run.kind,
        recipe=run.recipe,
        status=run.state,
        model=run.model,
        dataset=run.dataset,
        hyperparams=run.hyperparams,
        train_config=run.train_config,
        resources=run.resources,
        notes=run.notes,
        priority=run.priority,
        seed=run.seed,
        start_command=shlex.join(run.command),
        warnings=warnings,
        callback=_shown(run.callback),
        parent_run_id=run.parent_run_id,
        resume_from=run.resume_from,
        restarts=run.restarts,
        attempt=run.attempt,
        progress=fraction_of(run, progress),
        current_step=progress.step,
        total_steps=progress.total_steps,
        metrics=progress.metrics,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        exit=run.exit,
        error=run.error,
        ckpt_path=progress.ckpt_path,
        output_path=progress.output_path,
        run_dir=run_dir,
    )


def status_of(run: Run, progress: Progress, warnings: tuple[str, ...]) -> RunStatus:
    return RunStatus(
        run_id=run.id,
        status=run.state,
        progress=fraction_of(run, progress),
        phase=progress.phase if run.state.has_process else None,
        part=progress.part if run.state.has_process else None,
        current_step=progress.step,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        eta_seconds=progress.eta_seconds if run.state.has_process else 0.0 if run.state.final else None,
        metrics=progress.metrics,
        started_at=run.started_at,
        finished_at=run.finished_at,
        error=run.error,
        ckpt_path=progress.ckpt_path,
        warnings=warnings,
    )


def _shown(callback: Callback | None) -> Callback | None:
    return msgspec.structs.replace(callback, url=shown_url(callback.url)) if callback is not None else None


def fraction_of(run: Run, progress: Progress) -> float:
    return 1.0 if run.state is RunState.SUCCEEDED else round(progress.fraction, 4)
