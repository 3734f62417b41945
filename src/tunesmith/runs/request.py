"""What a request for a run comes to: its recipe, the files it names, and the config that it would start with.

Shared by whoever creates runs and whoever only wants to know. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tunesmith.contract.manifest import value_at
from tunesmith.errors import InvalidInput, MissingReference, TooLarge
from tunesmith.recipes import (
    Origin,
    Recipe,
    RecipeBook,
    ResolvedConfig,
    origins_of,
    read_train_config,
    recipe_name_from,
    resolve,
)
from tunesmith.records import Callback, Checkpoint, DatasetReference, IdempotentCall, Resources
from tunesmith.references import References, ResolvedAdapter, gather
from tunesmith.runs.from_adapter import take_over
from tunesmith.runs.named_in_config import resolve_models

_ALIGNMENT = {"sft": "sft", "lora": "lora", "alignment": "dpo", "dpo": "dpo", "ppo": "ppo", "reward": "reward"}
DATA_OPTIONS = ("data.train_file", "data.validation_file", "data.test_file")
_FILE_OPTIONS = ("data.validation_file", "data.test_file", "data.chat_template")
_LARGEST_SEED = 2**32 - 1
_MOST_HYPERPARAM_BYTES = 64 * 1024


class Inherited(msgspec.Struct, frozen=True, kw_only=True):
    """What a resumed run takes over from the one it resumes from; its config is its train config."""

    hyperparams: Mapping[str, Any]
    origins: Mapping[str, Origin]
    train_config: str | None


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a door asks for it."""

    experiment_id: str | None = None
    task_type: str | None = None
    recipe: str | None = None
    model: str | None = None
    dataset: DatasetReference | None = None
    hyperparams: Mapping[str, Any] = {}
    hyperparams_from: str = "hyperparams"
    """The field of the request that they come from, as faults name it."""
    train_config: str | Path | Mapping[str, Any] | None = None
    """A path as a caller wrote it, a file that the door itself found, or the content."""
    resources: Resources = Resources()
    notes: str = ""
    priority: int = 0
    seed: int | None = None
    callback: Callback | None = None
    filled: Mapping[str, Any] = {}
    """What the door itself sets in the config, by dotted path. Never what a caller wrote: it is not checked."""
    parent_run_id: str | None = None
    resume_from: Checkpoint | None = None
    labels: Mapping[str, str] = {}
    """What the door keeps with the run."""
    validates: bool = False
    """Whether the files it names are looked at before it is queued; see ``validation``."""
    validation_path: str | None = None
    """The validation file, where the door has found one itself."""
    inherited: Inherited | None = None
    """Of a run that resumes from another: what that one was asked for."""
    idempotency: IdempotentCall | None = None


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a request comes to: everything that a run would start with."""

    recipe: Recipe
    config: ResolvedConfig
    origins: dict[str, Origin]
    """Where the values come from that are not the recipe's own, by dotted path."""
    dataset: DatasetReference | None
    train_config: str | None
    """The path of the train config, if it is a file."""
    warnings: tuple[str, ...]


class _Model(NamedTuple):
    """What the request's model stands for."""

    path: str
    """Or a hub id."""
    adapter: ResolvedAdapter | None


class RequestResolver:
    """Resolves requests for runs."""

    def __init__(
        self,
        *,
        recipes: RecipeBook,
        references: References,
        max_train_config_bytes: int,
        config_for: Callable[[str | None, str], tuple[Path, str] | None] = lambda *_: None,
    ) -> None:
        """``config_for`` answers, for a run's dataset and recipe, the train config it gets without naming one, and whose
        that is; asked from threads.
        """
        self._recipes = recipes
        self._references = references
        self._max_train_config_bytes = max_train_config_bytes
        self._config_for = config_for

    def resolve(self, request: RunRequest) -> Resolved:
        """What a run of this request would start with; nothing is created. Blocks on the disk.

        Raises:
            InvalidInput: with every fault of the config at once.
            MissingReference: with every missing file and model at once.
            Forbidden: a path outside the allowed roots.
        """
        check_size(request.hyperparams)
        train_config = self._train_config(request.train_config)
        recipe = self._recipe(request, train_config)
        named, place = request.train_config, "train_config"
        chosen = self._chosen_config(request, recipe)
        if chosen is not None:
            train_config, named, place = chosen
        model, dataset = self._resolve_references(request, recipe)
        filled = self._filled(request, model.path if model is not None else None, dataset)
        config = resolve(
            recipe,
            train_config=train_config,
            request=request.hyperparams,
            filled=filled,
            places=(place, request.hyperparams_from),
        )
        resolve_models(recipe, config, self._references)
        self._check_files(recipe, config, filled, request)
        origins = origins_of(
            recipe, train_config=train_config, request=request.hyperparams, filled=filled, by_service=request.filled
        )
        origins = _inherited(origins, request.inherited)
        take_over(recipe, config, origins, model.adapter if model is not None else None)
        unasked = f"no train_config was named, so the {place} is used; train_config {{}} uses none"
        return Resolved(
            recipe=recipe,
            config=config,
            origins=origins,
            dataset=dataset,
            train_config=_file_of(named, request.inherited),
            warnings=(unasked,) if chosen is not None else (),
        )

    def _train_config(self, given: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if isinstance(given, Path):
            return self._read_config(given, given.name)
        if not isinstance(given, str):
            return given
        return self._read_config(self._references.file(given, "train_config"), given)

    def _chosen_config(self, request: RunRequest, recipe: Recipe) -> tuple[Mapping[str, Any], str, str] | None:
        """Content, path and description of the train config that a run gets without naming one."""
        if request.train_config is not None:
            return None
        found = self._config_for(request.dataset.name if request.dataset is not None else None, recipe.name)
        if found is None:
            return None
        path, owner = found
        return self._read_config(path, str(path)), str(path), f"train config of {owner}"

    def _read_config(self, path: Path, source: str) -> Mapping[str, Any]:
        return read_train_config(path, source=source, where="train_config", max_bytes=self._max_train_config_bytes)

    def _recipe(self, request: RunRequest, train_config: Mapping[str, Any] | None) -> Recipe:
        named = request.recipe or (recipe_name_from(train_config) if train_config else None)
        if named:
            return self._recipes.get(named)
        if request.task_type:
            return self._recipes.get(_ALIGNMENT.get(request.task_type, request.task_type))
        raise InvalidInput("no recipe is named", where="recipe", mend="set recipe; GET /v1/recipes lists them")

    def _resolve_references(self, request: RunRequest, recipe: Recipe) -> tuple[_Model | None, DatasetReference | None]:
        if not recipe.data:
            return self._model(request) if _needs_model(recipe) else None, None
        missing: list[MissingReference | None] = []
        model, dataset = None, None
        try:
            model = self._model(request)
        except MissingReference as error:
            missing.append(error)
        try:
            dataset = self._dataset(request, recipe)
        except MissingReference as error:
            missing.append(error)
        gather(*missing)
        return model, dataset

    def _model(self, request: RunRequest) -> _Model:
        if not request.model:
            raise MissingReference("no model is named", where="model", mend="set model, or the experiment's base_model")
        return _Model(self._references.model(request.model), self._references.adapter(request.model))

    def _dataset(self, request: RunRequest, recipe: Recipe) -> DatasetReference:
        if request.dataset is None:
            raise MissingReference("no dataset is named", where="dataset", mend='set dataset: {"name": "path.jsonl"}')
        dataset = self._references.dataset(request.dataset)
        if "validation_file" not in recipe.config.get("data", {}):
            return dataset
        beside = request.validation_path or self._references.validation_beside(dataset)
        return msgspec.structs.replace(dataset, validation_path=beside)

    def _filled(self, request: RunRequest, model: str | None, dataset: DatasetReference | None) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        if model is not None:
            filled["model.base"] = model
        if dataset is not None:
            filled["data.train_file"] = dataset.path
            if dataset.validation_path is not None:
                filled["data.validation_file"] = dataset.validation_path
        if request.seed is not None:
            if not 0 <= request.seed <= _LARGEST_SEED:
                raise InvalidInput(f"must lie between 0 and {_LARGEST_SEED}", where="seed", mend="choose another")
            filled["training.seed"] = request.seed
        return {**filled, **request.filled}

    def _check_files(
        self, recipe: Recipe, config: ResolvedConfig, filled: Mapping[str, Any], request: RunRequest
    ) -> None:
        """Files that the config names beside the dataset must lie under the allowed roots as well."""
        for path in _FILE_OPTIONS:
            named = option_at(config, path)
            # What a recipe's author, a door or an earlier request has set was vetted then.
            before = request.train_config if request.resume_from is not None else None
            trusted = path in filled or named in (option_at(recipe.config, path), option_at(before, path))
            if isinstance(named, str) and not trusted and ("/" in named or Path(named).exists()):
                self._references.file(named, path)


def _needs_model(recipe: Recipe) -> bool:
    """Whether a recipe without data, such as an export, has to be given a model all the same."""
    option = recipe.schema.get("model.base")
    return option is not None and option.required


def _inherited(origins: dict[str, Origin], earlier: Inherited | None) -> dict[str, Origin]:
    """The whole config of the earlier run is the train config of this one: what was not changed comes from where it came."""
    if earlier is None:
        return origins
    found = {path: earlier.origins.get(path) if here is Origin.TRAIN_CONFIG else here for path, here in origins.items()}
    return {path: origin for path, origin in found.items() if origin is not None}


def _file_of(named: str | Path | Mapping[str, Any] | None, inherited: Inherited | None) -> str | None:
    if isinstance(named, str | Path):
        return str(named)
    return inherited.train_config if inherited is not None else None


def option_at(config: object, path: str) -> Any:
    """The option's value; None where it is null or not there."""
    found = value_at(config, path)
    return None if found is msgspec.UNSET else found


def check_size(hyperparams: Mapping[str, Any]) -> None:
    # They are part of the run's record, which is shown in lists and written down at every change.
    try:
        size = len(msgspec.json.encode(hyperparams))
    except RecursionError:
        raise InvalidInput("are nested too deeply", where="hyperparams", mend="flatten them") from None
    if size > _MOST_HYPERPARAM_BYTES:
        raise TooLarge(
            f"take {size} bytes, and may take {_MOST_HYPERPARAM_BYTES}",
            where="hyperparams",
            mend="put a long value into a train config",
        )
