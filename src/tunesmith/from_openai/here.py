"""What is here of an account already: datasets that an import has made, and jobs that were started from them.

An imported dataset carries the old job in its metadata, so that starting it needs OpenAI no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from tunesmith.errors import NotFound, TunesmithError
from tunesmith.from_openai.old_jobs import OldJob, read_job
from tunesmith.openai import file_id
from tunesmith.safe_yaml import dump

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

IMPORTED = "openai_import"
"""The key of a dataset's metadata that has the old job."""
_DATASETS = "/api/v1/datasets"
_JOBS = "/v1/fine_tuning/jobs"
_MOST = 1_000_000
_JOBS_PAGE = 100
_OVER = ("failed", "cancelled")


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset that one old job has become."""

    dataset_id: str
    name: str
    job: OldJob
    files: dict[str, str]
    """The ids of the files here, by name."""
    rows: dict[str, int]
    """How many rows each had when it came."""
    has_config: bool

    @property
    def lacks(self) -> list[str]:
        """The names of the old job's files that are not here."""
        return [name for name in self.job.files if name not in self.files]


class Here:
    """This service, as an import sees it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def imported(self) -> dict[str, Imported]:
        """By the old job's id, each dataset that came from OpenAI."""
        listed = self._service.pages(_DATASETS, "datasets", limit=_MOST)
        found = [one for dataset in listed if (one := _imported(dataset)) is not None]
        return {one.job.id: one for one in reversed(found)}

    def create(self, job: OldJob, originals: Mapping[str, str], rows: Mapping[str, int]) -> Imported:
        """A dataset for the job, without files yet. ``originals`` are the names that the files had at OpenAI."""
        kept = {"job": msgspec.to_builtins(job), "rows": dict(rows), "files": dict(originals)}
        content = {
            "name": job.dataset_name,
            "source": "openai",
            "task_type": job.kind,
            "description": f"imported from OpenAI's fine-tuning job {job.id} of {job.model}",
            "metadata": {IMPORTED: kept},
        }
        self._service.post(_DATASETS, content)  # no other may have its name: nothing is made twice
        found = _imported(self._service.get(f"{_DATASETS}/{job.dataset_name}"))
        if found is None:
            raise TunesmithError(f"the dataset {job.dataset_name} is none of an import", mend="delete or rename it")
        return found

    def upload(self, imported: Imported, name: str, content: BinaryIO) -> Imported:
        """Put one file into the dataset."""
        path, key = f"{_DATASETS}/{imported.dataset_id}/files", f"import-openai {imported.job.id} {name}"
        try:
            received = self._service.upload(path, name, content, idempotency_key=key)
        except NotFound:  # an earlier import has put it there, and somebody has deleted it since
            content.seek(0)
            received = self._service.upload(path, name, content)
        return msgspec.structs.replace(imported, files={**imported.files, name: file_id(received["upload_id"])})

    def give_config(self, imported: Imported, config: Mapping[str, Any]) -> None:
        """Give the dataset a train config."""
        path = f"{_DATASETS}/{imported.dataset_id}/train-config"
        self._service.upload(path, "train-config.yaml", dump(dict(config)))

    @cached_property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """Those that can be used, by name."""
        found = self._service.pages("/v1/recipes", "recipes", limit=_MOST)
        return {one["name"]: one for one in found if one["ok"]}

    def base_of(self, name: str) -> str:
        """The folder or hub id that a base model's name stands for here.

        Raises:
            TunesmithError: nothing.
        """
        return str(self._service.get("/v1/models/resolve", ref=name)["path"])

    def start(self, request: Mapping[str, Any]) -> str:
        """Ask for a job; answers its id."""
        return str(self._service.post(_JOBS, request)["id"])

    @cached_property
    def started(self) -> dict[str, str]:
        """By the id of its training file, the newest job that has not failed."""
        found: dict[str, str] = {}
        after = None
        while True:
            page = self._service.get(_JOBS, limit=_JOBS_PAGE, after=after)
            for job in page["data"]:
                if job["status"] not in _OVER:
                    found.setdefault(job["training_file"], job["id"])
            if not page["has_more"] or not page["data"]:
                return found
            after = page["data"][-1]["id"]


def _imported(dataset: Mapping[str, Any]) -> Imported | None:
    kept = dataset["metadata"].get(IMPORTED)
    if not isinstance(kept, Mapping):
        return None
    try:
        job = read_job(kept.get("job"))
    except TunesmithError:
        return None  # somebody else uses that key
    rows = kept.get("rows")
    return Imported(
        dataset_id=dataset["id"],
        name=dataset["name"],
        job=job,
        files={one["name"]: file_id(one["upload_id"]) for one in dataset["files"] if one["replaced_by"] is None},
        rows=dict(rows) if isinstance(rows, Mapping) else {},
        has_config=dataset["train_config"] is not None,
    )
