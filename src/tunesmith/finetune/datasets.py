"""The datasets of a job as local files: what is an address is downloaded into the run's folder first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio

from tunesmith.errors import Fault, InvalidInput, TunesmithError
from tunesmith.finetune.job import Data
from tunesmith.net.guarded import GuardedClient


def is_address(dataset: str) -> bool:
    return dataset.lower().startswith(("http://", "https://"))


def local_datasets(data: Data, folder: Path) -> Mapping[str, str]:
    """Paths by parameter name. An address that occurs twice is fetched once.

    Raises:
        InvalidInput: with everything that could not be fetched; the reasons are those of the guarded client.
    """
    named = {"train_dataset_path": data.train, "valid_dataset_path": data.valid, "test_dataset_path": data.test}
    addresses = list(dict.fromkeys(dataset for dataset in named.values() if is_address(dataset)))
    folder.mkdir(parents=True, exist_ok=True)
    fetched = anyio.run(_fetch, addresses, data, folder) if addresses else {}
    return {name: fetched.get(dataset, dataset) for name, dataset in named.items()}


async def _fetch(addresses: list[str], data: Data, folder: Path) -> dict[str, str]:
    client = GuardedClient(allow_private=data.allow_private_urls)
    fetched: dict[str, str] = {}
    faults: list[Fault] = []
    try:
        for number, address in enumerate(addresses, 1):
            into = folder / f"{number}_{_file_name(address)}"
            try:
                got = await client.download(address, into, max_bytes=data.max_download_bytes)
            except TunesmithError as error:
                faults.append(Fault(message=error.message, where=error.where, mend=error.mend))
                continue
            print(f"downloaded {got.bytes} bytes, sha256 {got.sha256}, into {into}", flush=True)  # noqa: T201  # for run.log
            fetched[address] = str(into)
    finally:
        await client.aclose()
    if faults:
        raise InvalidInput("a dataset could not be downloaded", where="customized_input", faults=tuple(faults))
    return fetched


def _file_name(address: str) -> str:
    """The last part of the path, so that the function can tell the format by its end."""
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)[-100:] or "dataset"
