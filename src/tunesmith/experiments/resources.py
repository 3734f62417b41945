"""What a project's runs start from: its dataset file and its train config, found by name, all that is missing at once.

Names stand for files of the training folder, which nothing may lead out of, and for uploads: ``orders.jsonl`` is looked
for below its ``datasets/`` (configs below ``configs/``), and ``datasets/orders.jsonl`` in the folder itself. The folder is the operator's, and any client may upload under any name, so a file goes before an upload: a
project never changes its data because somebody else has uploaded something. Opens train configs only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from tunesmith.errors import Fault, InvalidInput, MissingReference
from tunesmith.recipes import RecipeBook, read_train_config, recipe_name_from, value_named
from tunesmith.recipes.suggest import nearest, shortened
from tunesmith.records import DatasetReference, Project

_MOST_SIBLINGS = 1000


class Uploads(Protocol):
    """What was uploaded, by name."""

    def data(self, name: str) -> str | None:
        """The reference of an upload or a dataset."""

    def config(self, filename: str, data: str | None) -> Path | None:
        """The train config that goes with that data; for None, the newest of any dataset."""


class References(Protocol):
    """What any reference means. Raises MissingReference, or Forbidden for a path outside the allowed roots."""

    def dataset(self, dataset: DatasetReference) -> object: ...

    def model(self, reference: str) -> object: ...


class StartingPoint(NamedTuple):
    """What a run of a project is made of."""

    dataset: str
    """A reference that runs know."""
    train_config: Path
    recipe: str
    model: str


class ProjectResources:
    """Finds what projects name."""

    def __init__(
        self,
        *,
        training_dir: Path,
        uploads: Uploads,
        references: References,
        recipes: RecipeBook,
        max_train_config_bytes: int,
    ) -> None:
        self._training_dir = training_dir
        self._uploads = uploads
        self._references = references
        self._recipes = recipes
        self._max_train_config_bytes = max_train_config_bytes

    def find(self, project: Project, model: str | None = None) -> StartingPoint:
        """Everything that a run needs; ``model`` goes before the one that the train config names. Blocks on the disk.

        Raises:
            MissingReference: with everything that is not there.
            InvalidInput: the train config is no YAML, or does not say which recipe it is for.
        """
        missing: list[Fault] = []
        dataset = self._dataset(project.dataset_name, missing)
        path = self._train_config(project.training_yaml_name, dataset, missing)
        try:
            content = self._read(path, project.training_yaml_name, missing) if path is not None else {}
        except InvalidInput:
            if not missing:
                raise
            content = {}  # what is missing comes first
        model = model or self._base_model(content)
        if model:
            _note(missing, "model", lambda: self._references.model(model))
        if missing or dataset is None or path is None:
            raise MissingReference("the run was not started: what it needs is not all there", faults=tuple(missing))
        return StartingPoint(dataset, path, self._recipe(content, project.training_yaml_name), model)

    def _base_model(self, content: dict[str, Any]) -> str:
        """What the train config names as its model, under whichever name; empty where that cannot be told."""
        try:
            named = value_named(self._recipes.get(recipe_name_from(content) or ""), content, "model.base")
        except InvalidInput:  # said when the recipe is looked for
            section = content.get("model")
            named = section.get("base") if isinstance(section, dict) else None
        return named if isinstance(named, str) else ""

    def _dataset(self, name: str, missing: list[Fault]) -> str | None:
        file = self._file("datasets", name, "dataset_name")
        if isinstance(file, Path):
            return str(file)
        uploaded = self._uploads.data(name)
        if uploaded is None:
            missing.append(file)
            return None
        _note(missing, "dataset_name", lambda: self._references.dataset(DatasetReference(name=uploaded)))
        return uploaded

    def _train_config(self, name: str, dataset: str | None, missing: list[Fault]) -> Path | None:
        own = self._uploads.config(name, dataset) if dataset is not None else None
        if own is not None:
            return own
        file = self._file("configs", name, "training_yaml_name")
        if isinstance(file, Path):
            return file
        uploaded = self._uploads.config(name, None)
        if uploaded is None:
            missing.append(file)
        return uploaded

    def _file(self, kind: str, name: str, where: str) -> Path | Fault:
        """The regular file of that name below a folder of the training folder or below itself, or why there is none."""
        wrong = name_fault(where, name)
        if wrong is not None:
            return wrong
        nearer, farther = self._training_dir / kind, self._training_dir
        places = {nearer: name, farther: name}
        first, *rest = PurePosixPath(name).parts
        if first == kind and rest:
            # The operator may keep datasets/ elsewhere, behind a link: that leads there, and not out.
            places = {nearer: str(PurePosixPath(*rest)), farther: name}
        for folder, below in places.items():
            if os.path.lexists(folder / below):
                return _file_fault(where, folder, below) or (folder / below).resolve()
        return _not_there(where, name, places)

    def _read(self, path: Path, name: str, missing: list[Fault]) -> dict[str, Any]:
        try:
            return read_train_config(
                path, source=name, where="training_yaml_name", max_bytes=self._max_train_config_bytes
            )
        except MissingReference as error:
            missing.append(Fault(message=error.message, where=error.where, mend=error.mend))
            return {}

    def _recipe(self, content: dict[str, Any], name: str) -> str:
        recipe = recipe_name_from(content)
        if recipe is None:
            raise InvalidInput(
                f"{name} does not say which recipe it is for",
                where="train_config.job.type",
                mend="add `job: {type: lora}`, or another recipe; GET /v1/recipes lists them",
            )
        key = "method" if (content.get("job") or {}).get("type") == "rl" else "type"
        try:
            self._recipes.get(recipe)
        except MissingReference as error:
            raise InvalidInput(error.message, where=f"train_config.job.{key}", mend=error.mend) from error
        return recipe


def name_fault(where: str, name: str) -> Fault | None:
    """What keeps a name from being one of a file below a folder of ours."""
    if not name.strip():
        return Fault(message="must not be empty", where=where, mend="name a file or an upload")
    parts = PurePosixPath(name).parts
    if name.startswith(("/", "~")) or ".." in parts or "\0" in name or not parts:
        return Fault(
            message=f"{shortened(name)!r} is not the name of a file below the training folder",
            where=where,
            mend="name it as it is called there, without a way in or out such as /, ~ or ..",
        )
    return None


def _file_fault(where: str, folder: Path, name: str) -> Fault | None:
    try:
        path = (folder / name).resolve()
        inside = path.is_relative_to(folder.resolve())
        mode = path.stat().st_mode if inside else 0
    except (OSError, RuntimeError, ValueError):  # also: a loop of links
        return _not_there(where, name, {folder: name})
    if not inside:
        return Fault(
            message=f"{shortened(name)!r} is a link that leads out of {folder}", where=where, mend="copy the file there"
        )
    if not stat.S_ISREG(mode):
        return Fault(message=f"{shortened(name)!r} is not a regular file", where=where, mend="name a file")
    return None


def _not_there(where: str, name: str, places: Mapping[Path, str]) -> Fault:
    """``places`` are folders, with the name that was looked for below each."""
    close = next(filter(None, (nearest(below, _siblings(folder, below)) for folder, below in places.items())), None)
    folder = next(iter(places))
    return Fault(
        message=f"there is no upload {shortened(name)!r}, and no such file in {folder}",
        where=where,
        mend=f"did you mean {close}?" if close else f"upload it, or put it into {folder}",
    )


def _siblings(folder: Path, name: str) -> list[str]:
    """Names beside the one that was meant, as far as they can be shown."""
    beside = PurePosixPath(name).parent
    try:
        with os.scandir(folder / beside) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MOST_SIBLINGS), strict=False)]
    except (OSError, ValueError):
        return []
    return [str(beside / one) for one in names if one.encode(errors="replace").decode() == one]


def _note(missing: list[Fault], where: str, look: Callable[[], object]) -> None:
    try:
        look()
    except MissingReference as error:
        missing.append(Fault(message=error.message, where=where, mend=error.mend))
