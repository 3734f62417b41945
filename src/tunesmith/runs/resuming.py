"""Resuming: a further attempt of a run that was paused, or a new run that starts from a checkpoint of another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec

from tunesmith.errors import Conflict, MissingReference
from tunesmith.files import place_of
from tunesmith.records import Checkpoint, IdempotentCall, Run, RunState
from tunesmith.runs.book import RunBook
from tunesmith.runs.checkpoints import Checkpoints, refuse_misfit
from tunesmith.runs.configs import RunConfigs
from tunesmith.runs.creation import RunCreator
from tunesmith.runs.request import Inherited, RunRequest


class ResumeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where, and with what changed. Without either of the first two, from the newest complete checkpoint."""

    ckpt_path: str | None = None
    checkpoint_id: str | None = None
    override_hyperparams: Mapping[str, Any] = {}
    notes: str = ""


class RunResumer:
    """Resumes runs."""

    def __init__(self, *, book: RunBook, creator: RunCreator, checkpoints: Checkpoints, configs: RunConfigs) -> None:
        self._book = book
        self._creator = creator
        self._checkpoints = checkpoints
        self._configs = configs

    async def requeue(self, run_id: str) -> Run:
        """Queue a paused run again: a further attempt of the same run, from its newest checkpoint.

        Raises:
            NotFound: no such run.
            Conflict: it is not paused, or what it was trained on has changed since.
        """
        run = self._book.get(run_id)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {run.state}, not paused", where="run_id")
        newest = self._checkpoints.newest_of(run_id)
        if newest is not None:
            config = await self._configs.values_of(run_id)
            await anyio.to_thread.run_sync(refuse_misfit, self._checkpoints, Conflict, newest, config)
        resume_from = newest.path if newest else run.resume_from
        return await self._book.move(
            run_id, RunState.QUEUED, only_from=RunState.PAUSED, resume_from=resume_from, process=None
        )

    async def resume(self, run_id: str, request: ResumeRequest, idempotency: IdempotentCall | None = None) -> Run:
        """A new run that resumes from a checkpoint of this one, with its config and some overrides.

        Raises:
            NotFound: no such run or checkpoint.
            Conflict: the run is not over, or has no complete checkpoint.
            MissingReference: the checkpoint is not one of this run.
            InvalidInput: the overrides do not fit the recipe, or the checkpoint.
        """
        parent = self._book.get(run_id)
        if not parent.state.final and parent.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {parent.state}: cancel or pause it first", where="run_id")
        checkpoint = self._checkpoint_of(parent, request)
        resolved = await self._configs.of(run_id)
        return await self._creator.create(
            RunRequest(
                experiment_id=parent.experiment_id,
                recipe=parent.recipe,
                model=parent.model,
                dataset=parent.dataset,
                hyperparams=request.override_hyperparams,
                train_config=resolved.config,
                resources=parent.resources,
                notes=request.notes,
                priority=parent.priority,
                callback=parent.callback,
                parent_run_id=parent.id,
                resume_from=checkpoint,
                inherited=Inherited(
                    hyperparams=parent.hyperparams, origins=resolved.origins, train_config=parent.train_config
                ),
                idempotency=idempotency,
            )
        )

    def _checkpoint_of(self, run: Run, request: ResumeRequest) -> Checkpoint:
        present = self._checkpoints.present_of(run.id)
        if not present:
            raise Conflict(f"run {run.id} has no complete checkpoint to resume from", where="run_id")
        if request.checkpoint_id is None and request.ckpt_path is None:
            return present[-1]
        for checkpoint in present:
            if request.checkpoint_id in (None, checkpoint.id) and (
                request.ckpt_path is None or place_of(request.ckpt_path) == Path(checkpoint.path)
            ):
                return checkpoint
        raise MissingReference(
            f"run {run.id} has no complete checkpoint {request.checkpoint_id or request.ckpt_path!r}",
            where="checkpoint_id" if request.checkpoint_id else "ckpt_path",
            mend=f"it has: {', '.join(one.path for one in present)}",
        )
