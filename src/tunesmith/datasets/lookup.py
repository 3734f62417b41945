"""What others ask of what was uploaded: a dataset's file and its train config by name, and whether files hold rows.

Asked from threads. Of files only the first rows are read; all else is in memory.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.datasets.configs import TrainConfigs
from tunesmith.datasets.first_rows import data_faults
from tunesmith.datasets.service import DatasetService
from tunesmith.datasets.single_files import upload_named
from tunesmith.datasets.uploads import UploadService
from tunesmith.errors import Fault
from tunesmith.files import data_files
from tunesmith.recipes import Recipe


class Lookup:
    """Uploads, datasets and train configs by the names that people gave them."""

    def __init__(self, datasets: DatasetService, uploads: UploadService, configs: TrainConfigs) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._configs = configs

    def data_faults(self, place: Path, recipe: Recipe) -> tuple[Fault, ...]:
        """What in the first rows of a data file, or of those in a folder, keeps a recipe from using it. Blocks.

        A file that was uploaded is called by its own name.
        """
        try:
            files = data_files(place)
        except OSError:
            return ()
        return tuple(
            fault
            for path in files
            for fault in data_faults(path, recipe.data, name=self._name_of(path), recipe=recipe.name)
        )

    def _name_of(self, path: Path) -> str:
        upload_id = path.parent.name
        return self._uploads.get(upload_id).name if upload_id in self._uploads else str(path)

    def files_of(self, reference: str) -> list[tuple[str, Path]] | None:
        """Names and paths of the files of a dataset by its id or name, or of one upload by its id, also where that is
        written as OpenAI's clients know it, ``file-...``; None: there is none.

        An upload is gone as soon as its dataset is being deleted, though its file is still there.
        """
        upload_id = upload_named(reference)
        if upload_id in self._uploads and self._uploads.dataset_of(upload_id) in self._datasets:
            return [(reference, self._uploads.path(upload_id))]
        return self._datasets.files_of(reference)

    def data(self, name: str) -> str | None:
        """The id of the newest upload of this name in any dataset; else of the dataset or upload with this id or name."""
        newest = next(iter(self._uploads.named(name)), None)
        if newest is not None:
            return newest
        upload_id = upload_named(name)
        return upload_id if upload_id in self._uploads else self._datasets.id_of(name)

    def config(self, filename: str, data: str | None) -> Path | None:
        """The train config of this name: of the dataset that ``data`` is or lies in; for None, the newest of any dataset."""
        dataset_id = self._uploads.dataset_of(data) if data is not None and data in self._uploads else data
        return self._configs.named(filename, dataset_id)
