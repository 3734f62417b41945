"""What a request names: its datasets become files that exist, its addresses are vetted, and all that is wrong is said at once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.to_thread

from tunesmith.errors import Fault, Forbidden, InvalidInput, MissingReference, TunesmithError
from tunesmith.files import DATA_SUFFIXES
from tunesmith.finetune.datasets import is_address
from tunesmith.finetune.downloads import make_folder
from tunesmith.finetune.request import CustomizedInput
from tunesmith.net.guarded import GuardedClient
from tunesmith.references import References

_DATASETS = "input_content.customized_input"
_SPLITS = {
    "train_dataset_path": ("train",),
    "valid_dataset_path": ("valid", "validation", "val"),
    "test_dataset_path": ("test",),
}


class Inputs:
    """Looks at what requests name."""

    def __init__(
        self, references: References, client: GuardedClient, *, reads_rows: bool, max_download_bytes: int
    ) -> None:
        """``reads_rows``: built-in recipes are what reads them, and not a function of somebody's own."""
        self._references = references
        self._client = client
        self._reads_rows = reads_rows
        self._max_download_bytes = max_download_bytes

    async def refer(self, data: dict[str, Any], shape_faults: list[Fault]) -> dict[str, str]:
        """The datasets, local ones as full paths. Looks at whatever can be looked at, and raises with all faults at once."""
        found: list[TunesmithError] = []
        url = data.get("call_back_api")
        if isinstance(url, str) and url:
            found += await self._vetted(url, "call_back_api")
        content = data.get("input_content")
        given = content.get("customized_input") if isinstance(content, dict) else None
        named = {
            name: dataset
            for name in CustomizedInput.__struct_fields__
            if isinstance(given, dict) and isinstance(dataset := given.get(name), str) and dataset
        }
        datasets: dict[str, str] = {}
        for name, dataset in named.items():
            where = f"{_DATASETS}.{name}"
            if is_address(dataset):
                found += await self._vetted(dataset, where)
                datasets[name] = dataset
                continue
            try:
                # A function gets what was named. What a built-in recipe reads are rows.
                datasets[name] = str(await anyio.to_thread.run_sync(self._references.file_or_folder, dataset, where))
                if self._reads_rows:
                    shared = list(named.values()).count(dataset) > 1
                    datasets[name] = await anyio.to_thread.run_sync(self._rows_of, name, datasets[name], shared)
            except (MissingReference, Forbidden) as error:
                found.append(error)
        _refuse(shape_faults, found)
        return datasets

    def _rows_of(self, name: str, place: str, shared: bool) -> str:  # noqa: FBT001  # private, called by position
        """What a built-in recipe reads of a file or folder: all data files of a folder, in the order of their names.

        A folder that is named more than once is one dataset with its splits, such as ``train.jsonl``: if it has them.
        """
        where = f"{_DATASETS}.{name}"
        folder = Path(place)
        if not folder.is_dir():
            return place
        for split in _SPLITS[name] if shared else ():
            for suffix in DATA_SUFFIXES:
                with suppress(MissingReference):
                    return str(self._references.file(str(folder / f"{split}{suffix}"), where))
        return str(self._references.whole_folder(folder, where))

    async def _vetted(self, url: str, where: str) -> list[TunesmithError]:
        try:
            await self._client.vet(url)
        except InvalidInput as error:
            return [InvalidInput(error.message, where=where, mend=error.mend)]
        return []

    async def fetched(self, datasets: dict[str, str], folder: Path) -> dict[str, str]:
        """Local files as they are. A built-in recipe reads its data when it is queued, so addresses are fetched before."""
        local = dict(datasets)
        for name, dataset in datasets.items():
            if is_address(dataset):
                await anyio.to_thread.run_sync(make_folder, folder)
                suffix = ".json" if dataset.partition("?")[0].endswith(".json") else ".jsonl"
                into = folder / f"{name}{suffix}"
                got = await self._client.download(dataset, into, max_bytes=self._max_download_bytes)
                local[name] = str(got.path.resolve())
        return local


def _refuse(shape_faults: list[Fault], found: list[TunesmithError]) -> None:
    if not shape_faults and not found:
        return
    faults = shape_faults + [Fault(message=one.message, where=one.where, mend=one.mend) for one in found]
    kinds = {type(one) for one in found}
    # Where all of it is of one kind, the status says which.
    kind = InvalidInput if shape_faults or len(kinds) != 1 else kinds.pop()
    raise kind(
        "the request has " + ("one fault" if len(faults) == 1 else f"{len(faults)} faults"), faults=tuple(faults)
    )
