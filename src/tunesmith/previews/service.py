"""Previews: asked of a worker process, and kept in the state folder while nothing they depend on changes.

What is kept holds text of rows, so it goes when a file that it was made from does. It is a cache: all of it may be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import InvalidInput
from tunesmith.files import write_atomically
from tunesmith.previews.identity import Identity, identity_of
from tunesmith.recipes import Recipe, ResolvedConfig
from tunesmith.records import RunKind

_log = structlog.get_logger()
_WORKER = "tunesmith_workers.programs.preview"
_LONGEST_SECONDS = 3600.0
_MOST_KEPT = 200
_NAME = "[0-9a-f]" * 64 + ".json"
"""What the files of kept answers are called; any other file in their folder is somebody else's."""
_LARGEST_KEPT_BYTES = 4 * 1024 * 1024
_NEEDED_OPTIONS = ("data.train_file", "data.max_length", "data.overlong", "data.train_on", "data.chat_template")


class Calls(Protocol):
    """Asks a worker program for an answer."""

    async def call(self, module: str, request: Mapping[str, Any], *, seconds: float) -> dict[str, Any]: ...


class _Kept(msgspec.Struct, frozen=True):
    """A file below state/previews."""

    files: tuple[str, ...]
    answer: dict[str, Any]


class _Sources(msgspec.Struct, frozen=True):
    """As much of it as tells whether it may stay."""

    files: tuple[str, ...]


_decode_kept, _decode_sources = msgspec.json.Decoder(_Kept).decode, msgspec.json.Decoder(_Sources).decode


class PreviewService:
    """What trainings would see."""

    def __init__(self, calls: Calls, folder: Path) -> None:
        self._calls = calls
        self._folder = folder
        self._writing = anyio.Lock()

    async def look(
        self, recipe: Recipe, config: ResolvedConfig, *, limit: int, most_rows: int
    ) -> tuple[dict[str, Any], bool]:
        """The worker's answer, and whether it was kept from an earlier time.

        Raises:
            InvalidInput: the recipe trains on no rows of text; or what a training would refuse, in the same words.
            WorkerFailed: the worker ended without an answer, or a package that it needs is not installed.
        """
        _refuse_other_recipes(recipe)
        before = await self._identity(config, limit, most_rows)
        kept = await anyio.to_thread.run_sync(self._kept, before) if before is not None else None
        if kept is not None:
            return kept, True
        request = {"config": config, "limit": limit, "most_rows": most_rows}
        answer = await self._calls.call(_WORKER, request, seconds=_LONGEST_SECONDS)
        # A file that was written to in the meantime may have been read half before and half after.
        if before is not None and before == await self._identity(config, limit, most_rows):
            await self._keep(before, answer)
        return answer, False

    async def forget_deleted(self) -> None:
        """Delete what was made from files that are not there any more."""
        async with self._writing:
            try:
                await anyio.to_thread.run_sync(self._sweep)
            except OSError as error:
                _log.warning("previews_not_swept", reason=str(error))

    async def _identity(self, config: ResolvedConfig, limit: int, most_rows: int) -> Identity | None:
        try:
            return await anyio.to_thread.run_sync(lambda: identity_of(config, limit=limit, most_rows=most_rows))
        except OSError:
            return None  # the worker will say what is the matter with the file

    def _kept(self, identity: Identity) -> dict[str, Any] | None:
        try:
            return _decode_kept(self._path(identity).read_bytes()).answer
        except (OSError, msgspec.DecodeError):
            return None

    async def _keep(self, identity: Identity, answer: dict[str, Any]) -> None:
        content = msgspec.json.encode(_Kept(identity.files, answer)) + b"\n"
        if len(content) > _LARGEST_KEPT_BYTES:
            return
        async with self._writing:
            try:
                await anyio.to_thread.run_sync(self._write, identity, content)
            except OSError as error:
                # The answer is there all the same; the next time it is made again.
                _log.warning("preview_not_kept", reason=str(error))

    def _write(self, identity: Identity, content: bytes) -> None:
        self._folder.mkdir(exist_ok=True)
        write_atomically(self._path(identity), content, mode=0o600)
        self._sweep()

    def _sweep(self) -> None:
        if not self._folder.is_dir():
            return
        for unfinished in self._folder.glob(f".{_NAME}.*.tmp"):  # what a crash has cut short; nobody else writes now
            unfinished.unlink(missing_ok=True)
        newest_first = sorted(self._folder.glob(_NAME), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for place, path in enumerate(newest_first):
            if place >= _MOST_KEPT or not _may_stay(path):
                path.unlink(missing_ok=True)

    def _path(self, identity: Identity) -> Path:
        return self._folder / f"{identity.key}.json"


def _refuse_other_recipes(recipe: Recipe) -> None:
    if not recipe.data:
        raise InvalidInput(
            f"recipe {recipe.name} needs no data, so there is nothing to preview",
            where="recipe",
            mend="name one that trains on rows, such as lora",
        )
    if recipe.kind is not RunKind.TRAIN:
        raise InvalidInput(
            f"recipe {recipe.name} trains nothing", where="recipe", mend="name one that trains on rows, such as lora"
        )
    lacking = [option for option in _NEEDED_OPTIONS if option not in recipe.schema]
    if lacking:
        raise InvalidInput(
            f"recipe {recipe.name} renders its rows in its own way: it has no {', '.join(lacking)}",
            where="recipe",
            mend="the recipes that work as sft and lora do have previews",
        )


def _may_stay(path: Path) -> bool:
    try:
        sources = _decode_sources(path.read_bytes()).files
    except (OSError, msgspec.DecodeError):
        return False
    return all(Path(source).is_file() for source in sources)
