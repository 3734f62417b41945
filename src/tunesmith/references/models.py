"""What a name may mean where a model is named, besides a checkpoint: an alias, a run, a pulled model, a path, a hub id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tunesmith.files import raise_shortage
from tunesmith.paths import StatePaths
from tunesmith.recipes.suggest import nearest
from tunesmith.records import Run
from tunesmith.references.openai_names import DEFAULT_ALIASES
from tunesmith.references.paths import is_folder

HUB_ID = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*/[\w.-]+")
MODELSCOPE = "modelscope:"
"""What a hub id of ModelScope begins with."""


class Runs(Protocol):
    """The runs on record."""

    def __contains__(self, run_id: str, /) -> bool: ...

    def get(self, run_id: str) -> Run: ...


class ModelNames:
    """Tells what kind of name it is. Reads folders."""

    def __init__(
        self,
        aliases: Mapping[str, str],
        paths: StatePaths,
        runs: Runs,
        is_deployment: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._aliases = aliases
        self._paths = paths
        self._runs = runs
        self._is_deployment = is_deployment

    def other_meaning(self, name: str) -> str | None:
        """What ``model`` takes a name for, in words, whatever checkpoints are called; None: for nothing. Reads folders."""
        if name in self._aliases:
            return "an alias from the settings"
        if name in self._runs:
            return "a run's id"
        if self._is_deployment(name):
            return "the id or name of a deployment"
        if is_plain(name) and is_folder(self._paths.models / name):
            return "the name of a model"
        if looks_like_path(name) or is_folder(Path(name)):
            return "a path"
        return "the form of a hub id" if HUB_ID.fullmatch(name.removeprefix(MODELSCOPE)) else None

    def usable_aliases(self) -> list[str]:
        """Those of the settings, and OpenAI's names for which the model that they stand for is here."""
        here = {name for name, model in DEFAULT_ALIASES.items() if self.is_pulled(model)}
        return sorted(here | set(self._aliases))

    def is_pulled(self, hub_id: str) -> bool:
        return is_pull_of(self._paths.models / hub_id.rpartition("/")[2], hub_id)

    def mend(self, reference: str) -> str:
        names = sorted({*self.usable_aliases(), *self.pulled_models()})
        close = nearest(reference, names)
        known = f"there is: {', '.join(names)}" if names else "no model is here yet"
        return (f"did you mean {close}? " if close else "") + f"{known}; `tunesmith models pull NAME` fetches one"

    def pulled_models(self) -> list[str]:
        """Names below state/models that ``model`` accepts."""
        if not self._paths.models.is_dir():
            return []
        return sorted(folder.name for folder in self._paths.models.iterdir() if (folder / "config.json").is_file())


def is_plain(reference: str) -> bool:
    return "/" not in reference and reference not in ("", ".", "..") and "\0" not in reference


def looks_like_path(reference: str) -> bool:
    return reference.startswith(("/", "./", "../", "~")) or reference.count("/") > 1 or "\0" in reference


def is_pull_of(folder: Path, reference: str) -> bool:
    """Whether a folder below state/models was fetched from this hub id."""
    try:
        return (folder / "PULLED_FROM").read_text(encoding="utf-8").strip() == reference
    except OSError as error:
        raise_shortage(error)
        return False
