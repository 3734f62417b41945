"""Artifacts: the files that a run wrote, each with an id, in pages, and with the tags that people gave them.

Only tags are on record. What there is, is looked up in the run's folder whenever somebody asks; see ``written``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from tunesmith.errors import InvalidInput, NotFound
from tunesmith.journal import Journal, fill, name_before, name_cursor
from tunesmith.paths import StatePaths
from tunesmith.records import ArtifactTags
from tunesmith.runs.run_files import Place, WrittenFile, written_files

_MOST_TAGS = 100
_LONGEST_TAG = 200
_MOST_LOOKED_AT = 100_000


class ArtifactSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every file that has tags."""

    run_id: str
    tags: tuple[str, ...] = ()


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a run wrote."""

    artifact_id: str
    """Made from the run's id and the path: it stays the same whatever is written to the file."""
    path: str
    """Below the run's folder."""
    kind: str
    """What the run said it is; else checkpoint, adapter, model, tokenizer, report, ... by its name, or just file."""
    bytes: int
    modified_at: datetime
    tags: tuple[str, ...]


class ArtifactPage(msgspec.Struct, frozen=True):
    """In order of path; ``cursor`` is None on the last page."""

    artifacts: list[Artifact]
    cursor: str | None


class FoundArtifact(msgspec.Struct, frozen=True):
    """An artifact, where it lies, and what changes when its bytes do."""

    artifact: Artifact
    location: Path
    version: str


class ArtifactBook:
    """The artifacts of all runs."""

    def __init__(self, journal: Journal[ArtifactTags, ArtifactSummary], paths: StatePaths) -> None:
        self._journal = journal
        self._paths = paths
        self._lock = asyncio.Lock()

    def page(self, run_id: str, *, limit: int, cursor: str | None = None) -> ArtifactPage:
        """Up to ``limit`` of them. Blocks on the disk. A file that is there all along is on exactly one of the pages.

        Raises:
            InvalidInput: the cursor is none of ours.
        """
        after = tuple(name_before(cursor).split("/")) if cursor is not None else ()
        found = ((file.place, self._artifact(run_id, file)) for file in written_files(self._paths.run(run_id), after))
        page = fill(found, limit=limit, size_of=lambda one: len(msgspec.json.encode(one[1])))
        following = name_cursor("/".join(page.items[-1][0])) if page.following is not None else None
        return ArtifactPage([artifact for _, artifact in page.items], following)

    async def find(self, run_id: str, artifact_id: str) -> FoundArtifact:
        """Raises NotFound when the run has no such file, or not any more."""
        file = await anyio.to_thread.run_sync(self._find, run_id, artifact_id)
        if file is None:
            raise NotFound(
                f"run {run_id} has no artifact {artifact_id[:100]!r}",
                where="artifact_id",
                mend=f"GET /v1/runs/{run_id}/artifacts lists what is there",
            )
        return FoundArtifact(
            self._artifact(run_id, file),
            self._paths.run(run_id).folder.joinpath(*file.place),
            f"{file.modified_ns:x}-{file.bytes:x}",
        )

    def _find(self, run_id: str, artifact_id: str) -> WrittenFile | None:
        every = islice(written_files(self._paths.run(run_id)), _MOST_LOOKED_AT)
        return next((file for file in every if _id_of(run_id, file.place) == artifact_id), None)

    async def tag(self, run_id: str, artifact_id: str, tags: tuple[str, ...]) -> Artifact:
        """Add tags to those it has.

        Raises:
            NotFound: the run has no such file.
            InvalidInput: a tag is empty or too long, or there would be too many.
        """
        _check(tags)
        return await self._change(run_id, artifact_id, lambda now: tuple(dict.fromkeys((*now, *tags))))

    async def untag(self, run_id: str, artifact_id: str, tag: str) -> Artifact:
        """Take a tag away, if it has it. Raises NotFound when the run has no such file."""
        return await self._change(run_id, artifact_id, lambda now: tuple(one for one in now if one != tag))

    async def _change(
        self, run_id: str, artifact_id: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> Artifact:
        artifact = (await self.find(run_id, artifact_id)).artifact
        # Two who tag the same file at once must both be heard. Shielded, so that the next one sees what was written.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                now = self._tags_of(artifact_id)
                tags = change(now)
                if len(tags) > _MOST_TAGS:
                    raise InvalidInput(f"an artifact may have {_MOST_TAGS} tags", where="tags", mend="take some away")
                if tags != now:
                    record = ArtifactTags(id=artifact_id, run_id=run_id, path=artifact.path, tags=tags)
                    await self._journal.append("tagged", record)
        return msgspec.structs.replace(artifact, tags=tags)

    def _artifact(self, run_id: str, file: WrittenFile) -> Artifact:
        artifact_id = _id_of(run_id, file.place)
        return Artifact(
            artifact_id=artifact_id,
            path="/".join(file.place).encode(errors="replace").decode(),
            kind=file.kind,
            bytes=file.bytes,
            modified_at=datetime.fromtimestamp(file.modified_ns / 1e9, UTC),
            tags=self._tags_of(artifact_id),
        )

    def _tags_of(self, artifact_id: str) -> tuple[str, ...]:
        summary = self._journal.summary(artifact_id)
        return summary.tags if summary is not None else ()


def _check(tags: tuple[str, ...]) -> None:
    for tag in tags:
        if not tag.strip() or len(tag) > _LONGEST_TAG:
            raise InvalidInput(f"a tag has 1 to {_LONGEST_TAG} characters", where="tags", mend="choose another")


def _id_of(run_id: str, place: Place) -> str:
    return "art_" + hashlib.sha256(os.fsencode("/".join((run_id, *place)))).hexdigest()[:26]
