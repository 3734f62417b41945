"""What the names in a request stand for: a model reference and a dataset become paths that exist.

Paths must lie under the allowed roots, symbolic links followed, and never lead to what the server keeps for itself in its
state folder. Nothing is opened or downloaded here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from tunesmith.errors import Fault, MissingReference
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, DatasetReference, Deployment
from tunesmith.references.model_references import ModelReferences
from tunesmith.references.models import Runs, is_plain
from tunesmith.references.paths import shown

_SUFFIXES = (".jsonl", ".json")
_MOST_LISTED = 20
_VALIDATION_SPLITS = ("validation", "valid", "val")


class References(ModelReferences):
    """Resolves model references and datasets."""

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        aliases: Mapping[str, str],
        paths: StatePaths,
        book: Runs,
        checkpoint: Callable[[str], Checkpoint | None],
        checkpoint_at: Callable[[str, int], Checkpoint | None] = lambda *_: None,
        deployment: Callable[[str], Deployment | None] = lambda _: None,
        uploaded: Callable[[str], Sequence[tuple[str, Path]] | None] = lambda _: None,
    ) -> None:
        """``checkpoint_at`` finds the checkpoint of a run at a step. ``uploaded`` answers names and
        paths of the files of an uploaded dataset, by its id or name; asked from threads.
        """
        super().__init__(
            roots=roots,
            aliases=aliases,
            paths=paths,
            book=book,
            checkpoint=checkpoint,
            checkpoint_at=checkpoint_at,
            deployment=deployment,
        )
        self._uploaded = uploaded

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
                    f"the file of dataset {shown(dataset.name)!r} is not at {path} any more",
                    where="dataset.name",
                    mend="delete it from the dataset and upload it again",
                )
            return DatasetReference(name=dataset.name, split=dataset.split, path=str(path))
        path = self.existing(dataset.name, "dataset.name")
        if path.is_dir() and not dataset.split:
            return msgspec.structs.replace(dataset, path=str(self.whole_folder(path, "dataset.name")))
        if path.is_dir():
            path = self._split_file(path, dataset.split) or path
        if not path.is_file():
            raise MissingReference(
                f"{dataset.name!r} holds no file for the split {shown(dataset.split)!r}",
                where="dataset.split",
                mend=f"put {shown(dataset.split)}.jsonl into the folder, or name the file itself",
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
        folder = self.existing(dataset.name, "dataset.name")
        found = (self._split_file(folder, split) for split in _VALIDATION_SPLITS)
        # An empty one is what a split without validation rows leaves.
        return next((str(path) for path in found if path is not None and path.stat().st_size), None)

    def _split_file(self, folder: Path, split: str) -> Path | None:
        if not is_plain(split):
            return None
        for suffix in _SUFFIXES:
            file = folder / f"{split}{suffix}"
            with contextlib.suppress(MissingReference):
                path = self.existing(str(file), "dataset.split")
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
                f"the dataset {shown(dataset.name)!r} was just deleted", where="dataset.name", mend="name another"
            )


def _uploaded_file(dataset: DatasetReference, files: Sequence[tuple[str, Path]]) -> Path:
    which = f"dataset {shown(dataset.name)!r}"
    if not files:
        raise MissingReference(f"{which} has no files yet", where="dataset.name", mend="upload one: PUT .../files")
    fitting = files if len(files) == 1 else [file for file in files if _stem(file[0]) == dataset.split]
    if len(fitting) == 1:
        return fitting[0][1]
    split = shown(dataset.split)
    names = ", ".join(shown(name) for name, _ in files[:_MOST_LISTED]) + (", ..." if len(files) > _MOST_LISTED else "")
    raise MissingReference(
        f"{which} has {len(fitting) or 'no'} files for the split {split!r}; it has {names}",
        where="dataset.split",
        mend=f"name one of its files {split}.jsonl" if not fitting else "delete all of them but one",
    )


def _stem(name: str) -> str:
    """The name of an uploaded file without folders, which some clients send, and without its suffix."""
    return PurePosixPath(name.replace("\\", "/")).stem


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
