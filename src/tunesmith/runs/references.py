"""What the names in a request stand for: a model reference and a dataset become paths that exist.

Paths must lie under the allowed roots, symbolic links followed. Nothing is opened or downloaded here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.errors import Fault, Forbidden, MissingReference
from tunesmith.paths import StatePaths
from tunesmith.records import Dataset, RunState
from tunesmith.runs.book import RunBook

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = (".jsonl", ".json")
_VALIDATION_SPLITS = ("validation", "valid", "val")


class References:
    """Resolves model references and datasets."""

    def __init__(self, *, roots: Sequence[Path], aliases: Mapping[str, str], paths: StatePaths, book: RunBook) -> None:
        self._roots = tuple(roots)
        self._aliases = aliases
        self._paths = paths
        self._book = book

    def model(self, reference: str) -> str:
        """A folder's path, or a hub id that the worker will try to fetch.

        Raises:
            MissingReference: nothing goes by that name; the message lists what there is.
            Forbidden: a path outside the allowed roots.
        """
        reference = self._aliases.get(reference, reference)
        if reference in self._book:
            return self._output_of(reference)
        pulled = self._paths.models / reference
        if _plain(reference) and pulled.is_dir():
            return str(pulled.resolve())
        if _looks_like_path(reference) or Path(reference).is_dir():
            return str(self._existing(reference, "model"))
        by_name = self._paths.models / reference.rpartition("/")[2]
        if _HUB_ID.fullmatch(reference):
            return str(by_name.resolve()) if _is_pull_of(by_name, reference) else reference
        raise MissingReference(f"there is no model {reference!r}", where="model", mend=self._model_mend(reference))

    def _output_of(self, run_id: str) -> str:
        run = self._book.get(run_id)
        path = run.progress.output_path
        if run.state is not RunState.SUCCEEDED or path is None:
            raise MissingReference(
                f"run {run_id} is {run.state} and has no model", where="model", mend="name a run that succeeded"
            )
        return path

    def _model_mend(self, reference: str) -> str:
        names = sorted([*self._aliases, *self.pulled_models()])
        close = difflib.get_close_matches(reference, names, n=1)
        known = f"there is: {', '.join(names)}" if names else "no model is here yet"
        return (f"did you mean {close[0]}? " if close else "") + f"{known}; `tunesmith models pull NAME` fetches one"

    def pulled_models(self) -> list[str]:
        """Names below state/models that ``model`` accepts."""
        if not self._paths.models.is_dir():
            return []
        return sorted(folder.name for folder in self._paths.models.iterdir() if (folder / "config.json").is_file())

    def dataset(self, dataset: Dataset) -> Dataset:
        """The dataset with its file's path.

        A folder stands for its files by split: ``train.jsonl``, ``validation.jsonl``, ...

        Raises:
            MissingReference: no such file.
            Forbidden: a path outside the allowed roots.
        """
        path = self._existing(dataset.name, "dataset.name")
        if path.is_dir():
            candidates = [path / f"{dataset.split}{suffix}" for suffix in _SUFFIXES]
            path = next((self._existing(str(file), "dataset.name") for file in candidates if file.exists()), path)
        if not path.is_file():
            raise MissingReference(
                f"{dataset.name!r} holds no file for the split {dataset.split!r}",
                where="dataset.split",
                mend=f"put {dataset.split}.jsonl into the folder, or name the file itself",
            )
        return Dataset(name=dataset.name, split=dataset.split, path=str(path))

    def validation_beside(self, dataset: Dataset) -> str | None:
        """The validation file of a dataset that is a folder."""
        folder = Path(dataset.name)
        if not folder.is_dir():
            return None
        found = (folder / f"{split}{suffix}" for split in _VALIDATION_SPLITS for suffix in _SUFFIXES)
        return next((str(file.resolve()) for file in found if file.is_file()), None)

    def file(self, name: str, where: str) -> Path:
        """Any other file that a request names."""
        path = self._existing(name, where)
        if not path.is_file():
            raise MissingReference(f"{name!r} is not a file", where=where)
        return path

    def _existing(self, name: str, where: str) -> Path:
        if "\0" in name:
            raise MissingReference("a path cannot hold a NUL character", where=where)
        path = Path(name).expanduser().resolve()
        if not any(path.is_relative_to(root) for root in self._roots):
            raise Forbidden(
                f"{name!r} lies outside the allowed roots",
                where=where,
                mend=f"move it below one of {', '.join(map(str, self._roots))}, or add its folder to allowed_roots",
            )
        if not path.exists():
            raise MissingReference(f"{name!r} does not exist", where=where, mend=_nearest_sibling(path))
        return path


def gather(*problems: MissingReference | None) -> None:
    """Raise everything that is missing as one error."""
    found = [problem for problem in problems if problem is not None]
    if len(found) == 1:
        raise found[0]
    if found:
        raise MissingReference(
            f"{len(found)} things that the request names do not exist",
            faults=tuple(Fault(message=p.message, where=p.where, mend=p.mend) for p in found),
        )


def _plain(reference: str) -> bool:
    return "/" not in reference and reference not in ("", ".", "..") and "\0" not in reference


def _looks_like_path(reference: str) -> bool:
    return reference.startswith(("/", "./", "../", "~")) or reference.count("/") > 1 or "\0" in reference


def _is_pull_of(folder: Path, reference: str) -> bool:
    """Whether a folder below state/models was fetched from this hub id."""
    try:
        return (folder / "PULLED_FROM").read_text(encoding="utf-8").strip() == reference
    except OSError:
        return False


def _nearest_sibling(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"{path.parent} does not exist either"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"did you mean {close[0]}?" if close else None
