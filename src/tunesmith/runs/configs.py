"""The config that a run started with, read back from its folder, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec

from tunesmith.errors import InvalidInput, NotFound, TooLarge
from tunesmith.files import read_regular
from tunesmith.paths import StatePaths
from tunesmith.recipes import Origin, Recipe, RecipeBook, guessed_origins, leaves
from tunesmith.records import Run
from tunesmith.runs.book import RunBook
from tunesmith.safe_yaml import load as load_yaml

_LARGEST_CONFIG = 16 * 1024 * 1024
_DATA_FILES = ("data.train_file", "data.validation_file")


class RunConfig(NamedTuple):
    """The resolved config of a run, and where each value comes from, by dotted path."""

    config: dict[str, Any]
    origins: dict[str, Origin]


class RunConfigs:
    """The configs of all runs."""

    def __init__(self, book: RunBook, recipes: RecipeBook, paths: StatePaths) -> None:
        self._book = book
        self._recipes = recipes
        self._paths = paths

    async def of(self, run_id: str) -> RunConfig:
        """What the run started with.

        Raises:
            NotFound: no such run, or its folder is gone.
        """
        run = self._book.get(run_id)
        config = await self.values_of(run_id)
        return RunConfig(config, await anyio.to_thread.run_sync(self._origins, run, config))

    async def values_of(self, run_id: str) -> dict[str, Any]:
        """Without the origins. Raises NotFound."""
        path = self._paths.run(run_id).config
        try:
            content = await anyio.to_thread.run_sync(read_regular, path, _LARGEST_CONFIG)
            config = await anyio.to_thread.run_sync(lambda: load_yaml(content, source=f"{run_id}/{path.name}"))
        except (OSError, InvalidInput, TooLarge) as error:
            raise NotFound(
                f"the config of run {run_id} cannot be read any more: {error}",
                mend="the run, or somebody else, has changed its folder; start it anew",
            ) from error
        return config if isinstance(config, dict) else {}

    def recipe_of(self, run: Run) -> Recipe | None:
        """As it is now; None when its folder is gone or was broken since. Blocks on the disk."""
        try:
            return self._recipes.get(run.recipe)
        except InvalidInput:
            return None

    def _origins(self, run: Run, config: Mapping[str, Any]) -> dict[str, Origin]:
        """By dotted path, of every value. Blocks on the disk."""
        recipe = self.recipe_of(run)
        options = set(recipe.schema) if recipe is not None else set()
        try:
            noted = _decoded(read_regular(self._paths.run(run.id).origins, _LARGEST_CONFIG))
        except (OSError, msgspec.DecodeError):
            filled = {*(("model.base", *_DATA_FILES) if run.model else ()), *(("training.seed",) if run.seed else ())}
            noted = guessed_origins(recipe, config, run.hyperparams, filled)
        return {path: noted.get(path, Origin.RECIPE) for path, _ in leaves(config, {*options, *noted})}


_decoded = msgspec.json.Decoder(dict[str, Origin]).decode
