"""Train configs: the one of each dataset and the one of the whole service, checked against the recipe they name.

A config that is kept fits its recipe as it was then; a run checks it again with everything else it is given.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import InvalidInput, MissingReference, NotFound, OutOfSpace, TooLarge, TunesmithError
from tunesmith.files import NO_ROOM, set_aside, write_atomically
from tunesmith.journal import Entry, Journal
from tunesmith.paths import StatePaths
from tunesmith.recipes import RecipeBook, parse_train_config, recipe_name_from, resolve
from tunesmith.records import Clock, TrainConfigFile, new_id

_log = structlog.get_logger()
_PREFIX = "tc"
_SUFFIXES = (".yaml", ".yml")


class TrainConfigSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every train config."""

    dataset_id: str | None
    filename: str
    stored_name: str
    recipe: str
    deleted_at: datetime | None = None


class ChosenConfig(NamedTuple):
    """The train config that a run gets without naming one."""

    path: Path
    owner: str
    """Whose it is, in words."""


class TrainConfigs:
    """At most one for each dataset, and one for the whole service (the dataset None)."""

    def __init__(
        self,
        journal: Journal[TrainConfigFile, TrainConfigSummary],
        paths: StatePaths,
        recipes: RecipeBook,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        self._journal = journal
        self._paths = paths
        self._recipes = recipes
        self._clock = clock
        self._max_bytes = max_bytes
        self._current: dict[str | None, str] = {}
        self._replaced: list[str] = []
        """Live ones that a later one stands for; only a crash leaves any."""
        self._locks: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        for config_id, summary in journal.summaries.items():
            self._index(config_id, summary)
        journal.on_commit(self._committed)

    def _index(self, config_id: str, summary: TrainConfigSummary) -> None:
        current = self._current.get(summary.dataset_id)
        if summary.deleted_at is None:
            if current is not None and current != config_id:
                self._replaced.append(current)
            self._current[summary.dataset_id] = config_id
        else:
            if current == config_id:
                del self._current[summary.dataset_id]
            if config_id in self._replaced:
                self._replaced.remove(config_id)

    def _committed(self, _entry: Entry, config: TrainConfigFile, _previous: TrainConfigSummary | None) -> None:
        self._index(config.id, self._journal.summaries[config.id])

    def find(self, dataset_id: str | None) -> TrainConfigFile | None:
        config_id = self._current.get(dataset_id)
        return self._journal.get(config_id) if config_id is not None else None

    def get(self, dataset_id: str | None) -> TrainConfigFile:
        """Raises NotFound."""
        config = self.find(dataset_id)
        if config is None:
            owner = "the service" if dataset_id is None else f"dataset {dataset_id}"
            raise NotFound(f"{owner} has no train config", mend="PUT one, as the part `file`")
        return config

    def chosen_for(self, dataset_id: str | None, recipe: str) -> ChosenConfig | None:
        """The dataset's config if it is for this recipe, else the service's if it is. Also to be asked from threads."""
        for owner_id in dict.fromkeys((dataset_id, None)):
            config_id = self._current.get(owner_id)
            summary = self._journal.summaries[config_id] if config_id is not None else None
            if summary is not None and summary.recipe == recipe:
                owner = "the service" if owner_id is None else f"dataset {owner_id}"
                return ChosenConfig(self._path(summary.stored_name).absolute(), owner)
        return None

    def named(self, filename: str, dataset_id: str | None) -> Path | None:
        """The dataset's config if it has this name; for None, the newest of the name. Also to be asked from threads."""
        found = [
            (config_id, self._journal.summaries[config_id])
            for owner_id, config_id in list(self._current.items())
            if dataset_id in (None, owner_id)
        ]
        newest = max((one for one in found if one[1].filename == filename), default=None, key=lambda one: one[0])
        return self._path(newest[1].stored_name).absolute() if newest is not None else None

    async def put(self, dataset_id: str | None, filename: str, content: bytes) -> TrainConfigFile:
        """Check it, keep it, and let it take the place of the one before.

        Raises:
            InvalidInput: it is no train config, or does not fit its recipe; with every fault.
            MissingReference: it names a recipe that is not there.
            TooLarge: over the limit from the settings.
            OutOfSpace: nothing was changed.
        """
        recipe = await anyio.to_thread.run_sync(self._check, filename, content)
        config_id = new_id(_PREFIX)
        config = TrainConfigFile(
            id=config_id,
            dataset_id=dataset_id,
            filename=filename,
            stored_name=f"{config_id}.yaml",
            size=len(content),
            uploaded_at=self._clock(),
            recipe=recipe,
        )
        async with self._locks[dataset_id]:
            before = self.find(dataset_id)
            await self._keep(config, content)
            if before is not None:
                await self._retire(before)
        return config

    def _check(self, filename: str, content: bytes) -> str:
        """The recipe it is for."""
        shown = filename[-100:]
        if PurePosixPath(filename).suffix.lower() not in _SUFFIXES:
            raise InvalidInput(
                f"{shown!r} is not named like a train config", where="file", mend="its name ends with .yaml or .yml"
            )
        parsed = parse_train_config(content, source=shown, max_bytes=self._max_bytes)
        name = recipe_name_from(parsed)
        if name is None:
            raise InvalidInput(
                "does not say which recipe it is for",
                where="train_config.job.type",
                mend="add a section `job:` with, for example, `type: lora`",
            )
        try:
            recipe = self._recipes.get(name)
        except MissingReference as error:
            raise MissingReference(error.message, where="train_config.job.type", mend=error.mend) from error
        # What every config needs may still come with the run.
        later = {path: "given with the run" for path, option in recipe.schema.items() if option.required}
        resolve(recipe, train_config=parsed, filled=later)
        return recipe.name

    async def _keep(self, config: TrainConfigFile, content: bytes) -> None:
        path = self._path(config.stored_name)
        try:
            await anyio.to_thread.run_sync(write_atomically, path, content)
            await self._journal.append("put", config)
        except (OSError, OutOfSpace, InvalidInput, TooLarge) as error:
            # Surely not on record. (After Unavailable it may be, and then the next server needs the file.)
            await anyio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise OutOfSpace("the state disk is full; no config was kept", mend="free some space") from error
            raise

    async def remove(self, dataset_id: str | None) -> None:
        """Raises NotFound: there is none."""
        async with self._locks[dataset_id]:
            await self._retire(self.get(dataset_id))

    async def _retire(self, config: TrainConfigFile) -> None:
        await self._journal.append("deleted", msgspec.structs.replace(config, deleted_at=self._clock()))
        path = self._path(config.stored_name)
        await anyio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))

    async def recover(self, was_deleted: Callable[[str], bool]) -> None:
        """After a start: finish what a crash has cut short, and remove every file without a record."""
        orphaned = [one for owner, one in self._current.items() if owner is not None and was_deleted(owner)]
        for config_id in [*self._replaced, *orphaned]:
            config = self._journal.get(config_id)
            assert config is not None
            try:
                await self._retire(config)
            except TunesmithError as error:
                _log.warning("train_config_not_removed", train_config_id=config_id, reason=str(error))
        await anyio.to_thread.run_sync(self._sweep)

    def _sweep(self) -> None:
        live = {self._journal.summaries[config_id].stored_name for config_id in self._current.values()}
        removed = {summary.stored_name for summary in self._journal.summaries.values()} - live
        for entry in list(self._paths.train_configs_folder.iterdir()):
            ours = entry.name.lstrip(".").startswith(f"{_PREFIX}_") and not entry.is_dir()
            if entry.name in live or not ours:
                continue
            if entry.name in removed or entry.name.startswith("."):  # the last: written only in part
                entry.unlink()
            else:
                _log.warning("train_config_without_record_set_aside", now=str(set_aside(entry, self._paths.root)))

    def _path(self, stored_name: str) -> Path:
        return self._paths.train_configs_folder / stored_name
