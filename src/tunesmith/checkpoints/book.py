"""The checkpoints on record: what runs wrote, and which may not go. Changed one after the other: a mark and a removal that
come at once must not both find what they need.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import structlog

from tunesmith.checkpoints import folders
from tunesmith.checkpoints.fit import differences
from tunesmith.checkpoints.manifest import read_manifest
from tunesmith.checkpoints.marks import MarkRequest, check, made_by, with_mark
from tunesmith.contract.manifest import Manifest
from tunesmith.errors import Fault, InvalidInput, MissingReference, NotFound
from tunesmith.files import place_of
from tunesmith.journal import Entry, Journal, newest_first, page_of
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, Clock, IdempotentCall, Mark, new_id

_log = structlog.get_logger()


class Measured(msgspec.Struct, frozen=True):
    """What of its metrics decides which checkpoint is a run's best."""

    eval_loss: float | None = None


class CheckpointSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every checkpoint."""

    run_id: str
    step: int
    path: str
    bytes: int
    created_at: datetime
    experiment_id: str | None = None
    metrics: Measured = Measured()
    marks: tuple[Mark, ...] = ()
    removed_at: datetime | None = None

    @property
    def calls(self) -> tuple[IdempotentCall, ...]:
        """The calls that made its marks."""
        return tuple(call for mark in self.marks for call in mark.idempotency)


class CheckpointPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    checkpoints: list[Checkpoint]
    cursor: str | None


class CheckpointBook:
    """All checkpoints that were ever complete. Incomplete ones are never on record."""

    def __init__(
        self,
        journal: Journal[Checkpoint, CheckpointSummary],
        paths: StatePaths,
        clock: Clock,
        other_meaning: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """``other_meaning`` says what else a name means where a model is named, or None; asked from threads."""
        self._journal = journal
        self._paths = paths
        self._clock = clock
        self._other_meaning = other_meaning
        self._order: list[str] = []
        self._by_run: defaultdict[str, list[str]] = defaultdict(list)
        self._by_tag: dict[str, str] = {}
        self._at_path: dict[str, str] = {}
        self._going: set[str] = set()
        """Paths of those that are being removed."""
        self._count_present = 0
        self._bytes_present = 0
        self._marked: defaultdict[str | None, dict[str, None]] = defaultdict(dict)
        """By experiment, those with marks."""
        self._scanning: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lock = asyncio.Lock()
        """Held while records are read, changed and written."""
        for checkpoint_id, summary in journal.summaries.items():
            self._index(checkpoint_id, summary)
        journal.on_commit(self._committed)

    def _index(self, checkpoint_id: str, summary: CheckpointSummary, previous: CheckpointSummary | None = None) -> None:
        if checkpoint_id not in self._by_run[summary.run_id]:
            self._order.append(checkpoint_id)
            self._by_run[summary.run_id].append(checkpoint_id)
        if summary.removed_at is None or summary.path not in self._at_path:
            self._at_path[summary.path] = checkpoint_id
        if summary.marks:
            self._marked[summary.experiment_id][checkpoint_id] = None
        self._by_tag |= {mark.release_tag: checkpoint_id for mark in summary.marks if mark.release_tag is not None}
        self._count(previous, -1)
        self._count(summary, 1)

    def _count(self, summary: CheckpointSummary | None, times: int) -> None:
        if summary is not None and summary.removed_at is None:
            self._count_present += times
            self._bytes_present += times * summary.bytes

    def _committed(self, _entry: Entry, checkpoint: Checkpoint, previous: CheckpointSummary | None) -> None:
        self._index(checkpoint.id, self._journal.summaries[checkpoint.id], previous)

    def get(self, checkpoint_id: str) -> Checkpoint:
        """Raises NotFound."""
        checkpoint = self._journal.get(checkpoint_id)
        if checkpoint is None:
            raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
        return checkpoint

    def known(self, checkpoint_id: str) -> Checkpoint | None:
        """Also one that was removed; None: there never was one."""
        return self._journal.get(checkpoint_id)

    def present_of(self, run_id: str) -> list[Checkpoint]:
        """The run's checkpoints that are still there, oldest step first."""
        found = [self.get(checkpoint_id) for checkpoint_id in self._by_run.get(run_id, ())]
        return sorted((one for one in found if one.removed_at is None), key=lambda one: (one.step, one.created_at))

    def newest_of(self, run_id: str) -> Checkpoint | None:
        """The newest complete one."""
        return next(reversed(self.present_of(run_id)), None)

    def at_step(self, run_id: str, step: int) -> Checkpoint | None:
        """The run's newest checkpoint of this step that is still there. Also to be asked from threads."""
        return next((one for one in reversed(self.present_of(run_id)) if one.step == step), None)

    def holding(self, path: str) -> str | None:
        """The folder of the checkpoint that lies at this path, or that it leads into. Also to be asked from threads."""
        places = (path, *map(str, Path(path).parents)) if path.startswith("/") else ()
        return next((place for place in places if place in self._at_path), None)

    def stays(self, path: str) -> bool:
        """Whether a checkpoint lies in this folder that nobody is removing. The answer holds until the next await."""
        checkpoint_id = self._at_path.get(path)
        here = checkpoint_id is not None and self._journal.summaries[checkpoint_id].removed_at is None
        return here and path not in self._going

    def misfits(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Fault, ...]:
        """Why a run with this resolved config cannot resume from it. Reads files: call it in a thread."""
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
        positions = newest_first(self._order, cursor)
        page = page_of(self._journal, self._order, positions, limit=limit, keep=keep)
        return CheckpointPage([self.get(one) for one in page.ids], page.cursor)

    def bytes_in_use(self) -> int:
        """By every checkpoint that is still there."""
        return self._bytes_present

    def count_present(self) -> int:
        """How many checkpoints are still there."""
        return self._count_present

    def present(self) -> dict[str, CheckpointSummary]:
        """Every checkpoint that is still there, by id, oldest first. Reads no records: there may be very many."""
        return {one: summary for one, summary in self._journal.summaries.items() if summary.removed_at is None}

    def marks_in(self, experiment_id: str) -> list[tuple[str, str, Mark]]:
        """Checkpoint, run and mark, for every mark in an experiment."""
        marked = {one: self._journal.summaries[one] for one in self._marked.get(experiment_id, ())}
        return [(one, summary.run_id, mark) for one, summary in marked.items() for mark in summary.marks]

    async def reconcile(self, run_id: str, experiment_id: str | None) -> None:
        """Record what is complete in the run's folder and not on record, and what is on record and gone.

        Raises:
            OSError: the folder cannot be looked at just now; nothing was recorded.
        """
        async with self._scanning[run_id]:
            runs = self._paths.runs_folder
            found = await anyio.to_thread.run_sync(folders.complete_in, runs, run_id)
            for checkpoint in self.present_of(run_id):
                if checkpoint.path not in found:
                    await asyncio.shield(self._note_gone(checkpoint.id))
            for path, manifest in found.items():
                if self._recorded_at(run_id, path, manifest.created_at) is None:
                    await asyncio.shield(self._note_there(run_id, experiment_id, path))

    def _recorded_at(self, run_id: str, path: str, created_at: datetime) -> Checkpoint | None:
        present = self.present_of(run_id)
        return next((one for one in present if (one.path, one.created_at) == (path, created_at)), None)

    async def _note_gone(self, checkpoint_id: str) -> None:
        async with self._lock:
            latest = self.get(checkpoint_id)
            if latest.removed_at is None and not await self._is_whole(latest):
                await self._removed(latest)

    async def _note_there(self, run_id: str, experiment_id: str | None, path: str) -> None:
        """Looks again: since the folder was listed it may have been recorded, or removed."""
        async with self._lock:
            manifest = await anyio.to_thread.run_sync(read_manifest, Path(path))
            if manifest is None or self._recorded_at(run_id, path, manifest.created_at) is not None:
                return
            earlier = [one for one in map(self.get, self._by_run[run_id]) if one.path == path]
            for one in earlier:
                if one.removed_at is None:  # written over
                    await self._removed(one)
            back = next((one for one in earlier if one.created_at == manifest.created_at), None)
            if back is not None:  # its removal did not come to its end, or was taken back
                await self._journal.append("found", msgspec.structs.replace(back, removed_at=None))
            else:
                await self._journal.append("written", _checkpoint(run_id, experiment_id, path, manifest))

    async def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether it is this very one that lies there, with everything that belongs to it."""
        manifest = await anyio.to_thread.run_sync(read_manifest, Path(checkpoint.path))
        return manifest is not None and manifest.created_at == checkpoint.created_at

    async def _removed(self, checkpoint: Checkpoint) -> None:
        await self._journal.append("removed", msgspec.structs.replace(checkpoint, removed_at=self._clock()))

    def marked_by(self, call: IdempotentCall, checkpoint_id: str) -> tuple[Checkpoint, Mark]:
        """The mark that this call made on this checkpoint before, as it is now."""
        checkpoint = self.get(checkpoint_id)
        return checkpoint, made_by(call, checkpoint.marks)

    async def mark(
        self, request: MarkRequest, experiment_id: str, idempotency: IdempotentCall | None = None
    ) -> tuple[Checkpoint, Mark]:
        """Mark one; it is then kept, and its release tag, if it is given one, is a model reference.

        Raises:
            InvalidInput: a tag that is empty, means something else already, or names another checkpoint; or too many marks.
            TooLarge: the metrics are.
            MissingReference: there is no complete checkpoint at that path in that run of that experiment.
        """
        check(request)
        if request.release_tag is not None:
            await self._refuse_other_meaning(request.release_tag)
        # Shielded, so that the next one sees what was written, also when whoever asked for it has gone.
        return await asyncio.shield(self._mark(request, experiment_id, idempotency))

    async def _refuse_other_meaning(self, tag: str) -> None:
        meaning = await anyio.to_thread.run_sync(self._other_meaning, tag)
        if tag in self._journal:
            meaning = "a checkpoint's id"
        if meaning is not None:
            raise InvalidInput(
                f"{tag!r} is {meaning}, and would mean two things", where="release_tag", mend="choose another tag"
            )

    async def _mark(
        self, request: MarkRequest, experiment_id: str, idempotency: IdempotentCall | None
    ) -> tuple[Checkpoint, Mark]:
        async with self._lock:
            checkpoint = self._at(request, experiment_id)
            holder = self._by_tag.get(request.release_tag) if request.release_tag is not None else None
            if holder not in (None, checkpoint.id):
                raise InvalidInput(
                    f"{request.release_tag!r} already names checkpoint {holder}",
                    where="release_tag",
                    mend="choose another tag; tags never move",
                )
            mark = Mark(
                tag_type=request.tag_type,
                release_tag=request.release_tag,
                metrics=request.metrics,
                at=self._clock(),
                idempotency=() if idempotency is None else (idempotency,),
            )
            marked = msgspec.structs.replace(checkpoint, marks=with_mark(checkpoint.marks, mark))
            # The trainer prunes, too. It looks for this file; whoever came too late finds the folder gone.
            kept = await anyio.to_thread.run_sync(folders.keep, self._paths.runs_folder, checkpoint)
            if not kept or not await self._is_whole(checkpoint):
                raise MissingReference(
                    f"{checkpoint.path} was just removed", where="ckpt_path", mend="mark one that is listed"
                )
            await self._journal.append("marked", marked)
            return marked, mark

    def _at(self, request: MarkRequest, experiment_id: str) -> Checkpoint:
        wanted = place_of(request.ckpt_path)
        present = self.present_of(request.run_id)
        for checkpoint in reversed(present):
            if Path(checkpoint.path) == wanted and checkpoint.experiment_id == experiment_id:
                return checkpoint
        have = ", ".join(one.path for one in present if one.experiment_id == experiment_id) or "none"
        raise MissingReference(
            f"run {request.run_id!r} of this experiment has no complete checkpoint at {request.ckpt_path!r}",
            where="ckpt_path",
            mend=f"it has: {have}",
        )

    async def remove(self, checkpoint_id: str, *, needed: Callable[[Checkpoint], bool] = lambda _: False) -> bool:
        """Delete one from the disk, unless it has been marked or is ``needed`` by now; answers whether it was.

        The record says so first: a removal that is cut short is finished by the next.
        """
        return await asyncio.shield(self._remove(checkpoint_id, needed))

    async def _remove(self, checkpoint_id: str, needed: Callable[[Checkpoint], bool]) -> bool:
        async with self._lock:
            checkpoint = self.get(checkpoint_id)
            if checkpoint.removed_at is not None or checkpoint.marks or needed(checkpoint):
                return False
            self._going.add(checkpoint.path)
            try:
                ours = await self._is_whole(checkpoint)
                await self._removed(checkpoint)
                if ours:
                    await self._delete(checkpoint, folders.make_incomplete)
            finally:
                self._going.discard(checkpoint.path)
        if ours:
            await self._delete(checkpoint, folders.remove)
            _log.info("checkpoint_removed", checkpoint_id=checkpoint.id, run_id=checkpoint.run_id, path=checkpoint.path)
        return True

    async def _delete(self, checkpoint: Checkpoint, how: Callable[[Path, Checkpoint], None]) -> None:
        try:
            await anyio.to_thread.run_sync(how, self._paths.runs_folder, checkpoint)
        except OSError as error:
            # It was on record as complete, and whatever lies there now is not what we may remove.
            _log.warning("checkpoint_not_removed", checkpoint_id=checkpoint.id, path=checkpoint.path, reason=str(error))


def _checkpoint(run_id: str, experiment_id: str | None, path: str, manifest: Manifest) -> Checkpoint:
    return Checkpoint(
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
        template_sha256=manifest.origin.template_sha256 or None,
    )
