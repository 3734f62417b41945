"""What the names in a request stand for: a model reference and a dataset become paths that exist.

Paths must lie under the allowed roots, symbolic links followed, and never lead to what the server keeps for itself in its
state folder. Nothing is opened or downloaded here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from tunesmith.errors import Fault, Forbidden, InvalidInput, MissingReference
from tunesmith.files import DATA_SUFFIXES, data_files, raise_shortage
from tunesmith.paths import StatePaths
from tunesmith.recipes.suggest import nearest
from tunesmith.records import Checkpoint, DatasetReference, RunState
from tunesmith.runs.book import RunBook

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = (".jsonl", ".json")
_LONGEST_SHOWN = 300
_MOST_LISTED = 20
_VALIDATION_SPLITS = ("validation", "valid", "val")


class References:
    """Resolves model references and datasets."""

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        aliases: Mapping[str, str],
        paths: StatePaths,
        book: RunBook,
        checkpoint: Callable[[str], Checkpoint | None],
        uploaded: Callable[[str], Sequence[tuple[str, Path]] | None] = lambda _: None,
    ) -> None:
        """``uploaded`` answers names and paths of the files of an uploaded dataset, by its id or name; asked from threads."""
        self._roots = tuple(roots)
        self._aliases = aliases
        self._paths = paths
        self._book = book
        self._checkpoint = checkpoint
        self._uploaded = uploaded

    def model(self, reference: str) -> str:
        """A folder's path, or a hub id that the worker will try to fetch.

        Raises:
            MissingReference: nothing goes by that name; the message lists what there is.
            Forbidden: a path outside the allowed roots.
        """
        reference = self._aliases.get(reference, reference)
        if reference in self._book:
            return self._output_of(reference)
        checkpoint = self._checkpoint(reference)
        if checkpoint is not None:
            return self._still_there(checkpoint)
        pulled = self._paths.models / reference
        if _plain(reference) and _is_folder(pulled):
            return str(pulled.resolve())
        if _looks_like_path(reference) or _is_folder(Path(reference)):
            return str(self._existing(reference, "model"))
        by_name = self._paths.models / reference.rpartition("/")[2]
        if _HUB_ID.fullmatch(reference):
            return str(by_name.resolve()) if _is_pull_of(by_name, reference) else reference
        raise MissingReference(
            f"there is no model {_shown(reference)!r}", where="model", mend=self._model_mend(reference)
        )

    def other_meaning(self, name: str) -> str | None:
        """What ``model`` takes a name for, in words, whatever checkpoints are called; None: for nothing. Reads folders."""
        if name in self._aliases:
            return "an alias from the settings"
        if name in self._book:
            return "a run's id"
        if _plain(name) and _is_folder(self._paths.models / name):
            return "the name of a model"
        if _looks_like_path(name) or _is_folder(Path(name)):
            return "a path"
        return "the form of a hub id" if _HUB_ID.fullmatch(name) else None

    def _output_of(self, run_id: str) -> str:
        run = self._book.get(run_id)
        path = run.progress.output_path
        if run.state is not RunState.SUCCEEDED or path is None:
            raise MissingReference(
                f"run {run_id} is {run.state} and has no model", where="model", mend="name a run that succeeded"
            )
        if not _is_folder(Path(path)):
            raise MissingReference(
                f"the model of run {run_id} is not at {path} any more", where="model", mend="train it again"
            )
        return path

    def _still_there(self, checkpoint: Checkpoint) -> str:
        if checkpoint.removed_at is not None or not _is_folder(Path(checkpoint.path)):
            raise MissingReference(
                f"checkpoint {checkpoint.id} is not at {checkpoint.path} any more",
                where="model",
                mend="mark checkpoints that must be kept",
            )
        return checkpoint.path

    def _model_mend(self, reference: str) -> str:
        names = sorted([*self._aliases, *self.pulled_models()])
        close = nearest(reference, names)
        known = f"there is: {', '.join(names)}" if names else "no model is here yet"
        return (f"did you mean {close}? " if close else "") + f"{known}; `tunesmith models pull NAME` fetches one"

    def pulled_models(self) -> list[str]:
        """Names below state/models that ``model`` accepts."""
        if not self._paths.models.is_dir():
            return []
        return sorted(folder.name for folder in self._paths.models.iterdir() if (folder / "config.json").is_file())

    def dataset(self, dataset: DatasetReference) -> DatasetReference:
        """The dataset with its file's path.

        It is an uploaded dataset's id or name, or else a path. A folder stands for its files by split: ``train.jsonl``,
        ``validation.jsonl``, ...; so does an uploaded dataset, and one with a single file stands for that one. With an empty
        split, a folder stands for all of its data files.

        Raises:
            MissingReference: no such file.
            Forbidden: a path outside the allowed roots.
        """
        files = self._uploaded(dataset.name)
        if files is not None:
            path = _uploaded_file(dataset, files)
            if path.is_symlink() or not path.is_file():
                raise MissingReference(
                    f"the file of dataset {_shown(dataset.name)!r} is not at {path} any more",
                    where="dataset.name",
                    mend="delete it from the dataset and upload it again",
                )
            return DatasetReference(name=dataset.name, split=dataset.split, path=str(path))
        path = self._existing(dataset.name, "dataset.name")
        if path.is_dir() and not dataset.split:
            return msgspec.structs.replace(dataset, path=str(self.whole_folder(path, "dataset.name")))
        if path.is_dir():
            path = self._split_file(path, dataset.split) or path
        if not path.is_file():
            raise MissingReference(
                f"{dataset.name!r} holds no file for the split {_shown(dataset.split)!r}",
                where="dataset.split",
                mend=f"put {_shown(dataset.split)}.jsonl into the folder, or name the file itself",
            )
        return DatasetReference(name=dataset.name, split=dataset.split, path=str(path))

    def validation_beside(self, dataset: DatasetReference) -> str | None:
        """The validation file of a dataset that is a folder, or was uploaded.

        Raises:
            Forbidden: it is a link to outside the allowed roots.
        """
        files = self._uploaded(dataset.name)
        if files is not None:
            by_split = [path for split in _VALIDATION_SPLITS for name, path in files if _stem(name) == split]
            return next((str(path) for path in by_split if str(path) != dataset.path), None)
        if not dataset.split:
            return None
        folder = self._existing(dataset.name, "dataset.name")
        found = (self._split_file(folder, split) for split in _VALIDATION_SPLITS)
        # An empty one is what a split without validation rows leaves.
        return next((str(path) for path in found if path is not None and path.stat().st_size), None)

    def _split_file(self, folder: Path, split: str) -> Path | None:
        if not _plain(split):
            return None
        for suffix in _SUFFIXES:
            file = folder / f"{split}{suffix}"
            with contextlib.suppress(MissingReference):
                path = self._existing(str(file), "dataset.split")
                if path.is_file():
                    return path
        return None

    def refuse_if_gone(self, dataset: DatasetReference) -> None:
        """Look once more whether an uploaded dataset that was resolved is still there. Touches no disk.

        Raises:
            MissingReference: it was deleted in the meantime.
        """
        used = {path for path in (dataset.path, dataset.validation_path) if path is not None}
        of_uploads = {path for path in used if Path(path).is_relative_to(self._paths.uploads_folder.absolute())}
        # By the upload's id, which its folder is named by: under its name there may be a newer one by now.
        if any(self._uploaded(Path(path).parent.name) is None for path in of_uploads):
            raise MissingReference(
                f"the dataset {_shown(dataset.name)!r} was just deleted", where="dataset.name", mend="name another"
            )

    def file(self, name: str, where: str) -> Path:
        """Any other file that a request names."""
        path = self._existing(name, where)
        if not path.is_file():
            raise MissingReference(f"{_shown(name)!r} is not a file", where=where, mend="name a regular file")
        return path

    def file_or_folder(self, name: str, where: str) -> Path:
        """Either of them, for what reads both."""
        path = self._existing(name, where)
        if not path.is_file() and not path.is_dir():
            raise MissingReference(
                f"{_shown(name)!r} is neither a file nor a folder", where=where, mend="name one of the two"
            )
        return path

    def whole_folder(self, folder: Path, where: str) -> Path:
        """A folder all of whose data files are read: itself, or its only data file.

        Raises:
            MissingReference: it has none.
            Forbidden: one of them is a link to outside the allowed roots.
        """
        try:
            found = [self._allowed(str(path), where) for path in data_files(folder)]
        except OSError as error:
            raise_shortage(error)
            raise MissingReference(
                f"{_shown(str(folder))!r} cannot be read: {error.strerror}", where=where, mend="check its permissions"
            ) from error
        if not found:
            raise MissingReference(
                f"the folder {_shown(str(folder))!r} holds no data file",
                where=where,
                mend=f"put files of rows into it, named {', '.join(DATA_SUFFIXES)}; files in folders below do not count",
            )
        return found[0] if len(found) == 1 else folder

    def output_folder(self, name: str, where: str) -> Path:
        """A folder that a request wants something written to; it need not exist yet. Links in it are followed.

        Raises:
            InvalidInput: there is something else than a folder, or a file is on the way to it.
            Forbidden: it lies outside the allowed roots.
        """
        path = self._allowed(name, where)
        if not self._paths.may_be_written(path) and not self._chosen_in_state(path):
            raise Forbidden(
                f"{_shown(name)!r} lies in the state folder, which is the server's to write to",
                where=where,
                mend="name a folder elsewhere below the allowed roots",
            )
        nearest_there = next(one for one in (path, *path.parents) if one.exists())
        if not nearest_there.is_dir():
            raise InvalidInput(f"{_shown(str(nearest_there))!r} is not a folder", where=where, mend="name a folder")
        return path

    def _existing(self, name: str, where: str) -> Path:
        path = self._allowed(name, where)
        if not path.exists():
            raise MissingReference(f"{name!r} does not exist", where=where, mend=_nearest_sibling(path))
        return path

    def _allowed(self, name: str, where: str) -> Path:
        path = _resolved(name, where)
        if not any(path.is_relative_to(root) for root in self._roots):
            raise Forbidden(
                f"{_shown(name)!r} lies outside the allowed roots",
                where=where,
                mend=f"move it below one of {', '.join(map(str, self._roots))}, or add its folder to allowed_roots",
            )
        if not self._paths.may_be_named(path) and not self._chosen_in_state(path):
            raise Forbidden(
                f"{_shown(name)!r} is kept by the server for itself",
                where=where,
                mend="in the state folder, uploads, models, and the output and checkpoints of runs can be named",
            )
        return path

    def _chosen_in_state(self, path: Path) -> bool:
        """Whether the operator allowed a folder within the state folder that it lies in."""
        state = self._paths.root.resolve()
        return any(root.parent.is_relative_to(state) and path.is_relative_to(root) for root in self._roots)


def _uploaded_file(dataset: DatasetReference, files: Sequence[tuple[str, Path]]) -> Path:
    shown = f"dataset {_shown(dataset.name)!r}"
    if not files:
        raise MissingReference(f"{shown} has no files yet", where="dataset.name", mend="upload one: PUT .../files")
    fitting = files if len(files) == 1 else [file for file in files if _stem(file[0]) == dataset.split]
    if len(fitting) == 1:
        return fitting[0][1]
    split = _shown(dataset.split)
    names = ", ".join(_shown(name) for name, _ in files[:_MOST_LISTED]) + (", ..." if len(files) > _MOST_LISTED else "")
    raise MissingReference(
        f"{shown} has {len(fitting) or 'no'} files for the split {split!r}; it has {names}",
        where="dataset.split",
        mend=f"name one of its files {split}.jsonl" if not fitting else "delete all of them but one",
    )


def _stem(name: str) -> str:
    """The name of an uploaded file without folders, which some clients send, and without its suffix."""
    return PurePosixPath(name.replace("\\", "/")).stem


def _resolved(name: str, where: str) -> Path:
    try:
        path = Path(name).expanduser().resolve()
        path.exists()  # a name that is too long shows only now
    except (OSError, RuntimeError, ValueError) as error:  # also: a loop of links, an unknown ~user, a NUL character
        reason = error.strerror if isinstance(error, OSError) else _shown(str(error))
        raise MissingReference(
            f"{_shown(name)!r} is not a usable path: {reason}", where=where, mend="name a file that exists"
        ) from error
    return path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


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
    except OSError as error:
        raise_shortage(error)
        return False


def _nearest_sibling(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"{path.parent} is no folder that can be read"
    close = nearest(path.name, names)
    return f"did you mean {_shown(close)}?" if close else None


def _shown(name: str) -> str:
    """A name for a message: not endless, and free of what cannot be encoded (file names may hold any bytes)."""
    brief = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "..."
    return brief.encode(errors="replace").decode()
