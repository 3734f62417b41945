"""The checkpoints on record: what runs wrote, and what people marked."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import structlog

from tunesmith.checkpoints.fit import differences
from tunesmith.checkpoints.manifest import KEEP, NAME, Manifest, read_manifest
from tunesmith.errors import Fault, InvalidInput, MissingReference, NotFound
from tunesmith.files import place_of
from tunesmith.journal import Entry, Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, Clock, Mark, new_id

_log = structlog.get_logger()


class CheckpointSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every checkpoint."""

    run_id: str
    step: int
    path: str
    bytes: int
    experiment_id: str | None = None
    marks: tuple[Mark, ...] = ()
    removed_at: datetime | None = None


class CheckpointPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    checkpoints: list[Checkpoint]
    cursor: str | None


class MarkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mark as a client asks for it."""

    run_id: str
    ckpt_path: str
    tag_type: str
    """Such as ``candidate_base`` or ``release``."""
    release_tag: str
    """A name; it is a model reference from then on."""
    metrics: dict[str, Any] = {}


class CheckpointBook:
    """All checkpoints that were ever complete. Incomplete ones are never on record."""

    def __init__(self, journal: Journal[Checkpoint, CheckpointSummary], paths: StatePaths, clock: Clock) -> None:
        self._journal = journal
        self._paths = paths
        self._clock = clock
        self._order: list[str] = []
        self._by_run: defaultdict[str, list[str]] = defaultdict(list)
        self._by_tag: dict[str, str] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for checkpoint_id, summary in journal.summaries.items():
            self._index(checkpoint_id, summary)
        journal.on_commit(self._committed)

    def _index(self, checkpoint_id: str, summary: CheckpointSummary) -> None:
        if checkpoint_id not in self._by_run[summary.run_id]:
            self._order.append(checkpoint_id)
            self._by_run[summary.run_id].append(checkpoint_id)
        for mark in summary.marks:
            self._by_tag[mark.release_tag] = checkpoint_id

    def _committed(self, _entry: Entry, checkpoint: Checkpoint, _previous: CheckpointSummary | None) -> None:
        self._index(checkpoint.id, self._journal.summaries[checkpoint.id])

    def get(self, checkpoint_id: str) -> Checkpoint:
        """Raises NotFound."""
        checkpoint = self._journal.get(checkpoint_id)
        if checkpoint is None:
            raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
        return checkpoint

    def present_of(self, run_id: str) -> list[Checkpoint]:
        """The run's checkpoints that are still there, oldest step first."""
        found = [self.get(checkpoint_id) for checkpoint_id in self._by_run.get(run_id, ())]
        return sorted((one for one in found if one.removed_at is None), key=lambda one: (one.step, one.created_at))

    def newest_of(self, run_id: str) -> Checkpoint | None:
        """The newest complete one."""
        return next(reversed(self.present_of(run_id)), None)

    def misfits(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Fault, ...]:
        """Why a run with this resolved config cannot go on from it. Reads files: call it in a thread."""
        manifest = read_manifest(Path(checkpoint.path))
        if manifest is None:
            return (Fault(message=f"{checkpoint.path} is not complete any more", where="ckpt_path"),)
        return differences(manifest.origin, config)

    def referenced(self, name: str) -> Checkpoint | None:
        """What a checkpoint id or a release tag stands for."""
        checkpoint_id = name if name in self._journal else self._by_tag.get(name)
        return self.get(checkpoint_id) if checkpoint_id is not None else None

    def page(
        self, *, limit: int, cursor: str | None = None, keep: Callable[[CheckpointSummary], bool]
    ) -> CheckpointPage:
        """Up to ``limit`` checkpoints for which ``keep`` holds, newest first; removed ones too, so that marks are seen."""
        before = int(cursor) if cursor is not None and cursor.isdecimal() else len(self._order)
        found: list[str] = []
        for position in range(min(before, len(self._order)) - 1, -1, -1):
            if keep(self._journal.summaries[self._order[position]]):
                if len(found) == limit:
                    return CheckpointPage([self.get(one) for one in found], str(position + 1))
                found.append(self._order[position])
        return CheckpointPage([self.get(one) for one in found], None)

    def bytes_in_use(self) -> int:
        return sum(one.bytes for one in self._journal.summaries.values() if one.removed_at is None)

    def present(self) -> list[Checkpoint]:
        """Every checkpoint that is still there, oldest first."""
        return [
            self.get(checkpoint_id)
            for checkpoint_id in self._order
            if self._journal.summaries[checkpoint_id].removed_at is None
        ]

    async def reconcile(self, run_id: str, experiment_id: str | None) -> None:
        """Record what is complete in the run's folder and not on record, and what is on record and gone."""
        async with self._locks[run_id]:
            found = await anyio.to_thread.run_sync(_complete_in, self._paths.run(run_id).checkpoints)
            known = {checkpoint.path: checkpoint for checkpoint in self.present_of(run_id)}
            for path, checkpoint in known.items():
                if path not in found:
                    await self._removed(checkpoint)
            for path, manifest in found.items():
                if path not in known or known[path].created_at != manifest.created_at:
                    await self._record(run_id, experiment_id, path, manifest)

    async def _record(self, run_id: str, experiment_id: str | None, path: str, manifest: Manifest) -> None:
        checkpoint = Checkpoint(
            id=new_id("ckpt"),
            run_id=run_id,
            experiment_id=experiment_id,
            step=manifest.step,
            epoch=manifest.epoch,
            path=path,
            bytes=manifest.bytes,
            metrics={name: value for name, value in manifest.metrics.items() if value is not None},
            created_at=manifest.created_at,
            base_model=manifest.origin.base_model,
            data_sha256=manifest.origin.data_sha256,
            template_sha256=manifest.origin.template_sha256,
        )
        await self._journal.append("written", checkpoint)

    async def _removed(self, checkpoint: Checkpoint) -> None:
        await self._journal.append("removed", msgspec.structs.replace(checkpoint, removed_at=self._clock()))

    async def mark(self, request: MarkRequest, experiment_id: str) -> tuple[Checkpoint, Mark]:
        """Mark one; it is then kept, and its release tag is a model reference.

        Raises:
            InvalidInput: an empty tag, or one that already names another checkpoint.
            MissingReference: there is no complete checkpoint at that path in that run of that experiment.
        """
        for field in ("tag_type", "release_tag"):
            if not getattr(request, field).strip():
                raise InvalidInput("must not be empty", where=field)
        checkpoint = self._at(request, experiment_id)
        holder = self._by_tag.get(request.release_tag)
        if holder is not None and holder != checkpoint.id:
            raise InvalidInput(
                f"{request.release_tag!r} already names checkpoint {holder}",
                where="release_tag",
                mend="choose another tag; tags never move",
            )
        mark = Mark(
            tag_type=request.tag_type, release_tag=request.release_tag, metrics=request.metrics, at=self._clock()
        )
        others = tuple(one for one in checkpoint.marks if one.release_tag != mark.release_tag)
        marked = msgspec.structs.replace(checkpoint, marks=(*others, mark))
        await anyio.to_thread.run_sync((Path(checkpoint.path) / KEEP).touch)
        await self._journal.append("marked", marked)
        return marked, mark

    def _at(self, request: MarkRequest, experiment_id: str) -> Checkpoint:
        wanted = place_of(request.ckpt_path)
        present = self.present_of(request.run_id)
        for checkpoint in present:
            if Path(checkpoint.path) == wanted and checkpoint.experiment_id == experiment_id:
                return checkpoint
        have = ", ".join(one.path for one in present if one.experiment_id == experiment_id) or "none"
        raise MissingReference(
            f"run {request.run_id!r} of this experiment has no complete checkpoint at {request.ckpt_path!r}",
            where="ckpt_path",
            mend=f"it has: {have}",
        )

    async def remove(self, checkpoint: Checkpoint) -> None:
        """Delete one from the disk. The record says so first: a removal that is cut short is finished by the next."""
        await self._removed(checkpoint)
        await anyio.to_thread.run_sync(_delete, Path(checkpoint.path))
        _log.info("checkpoint_removed", checkpoint_id=checkpoint.id, run_id=checkpoint.run_id, path=checkpoint.path)


def _complete_in(folder: Path) -> dict[str, Manifest]:
    if not folder.is_dir():
        return {}
    found = {str(path.resolve()): read_manifest(path) for path in folder.iterdir() if path.is_dir()}
    complete = [(path, manifest) for path, manifest in found.items() if manifest is not None]
    return dict(sorted(complete, key=lambda item: (item[1].step, item[1].created_at)))


def _delete(folder: Path) -> None:
    # Its manifest first, so that what is left of a removal that was cut short never looks complete.
    (folder / NAME).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
