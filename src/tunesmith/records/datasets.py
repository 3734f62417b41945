"""Datasets, the files in them, and train configs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tunesmith.records.base import IdempotentCall, Record


class Dataset(Record, frozen=True, kw_only=True):
    """A named collection of uploaded files. What its files add up to is counted from the uploads."""

    name: str
    created_at: datetime
    type: str = ""
    source: str = ""
    task_type: str = ""
    description: str = ""
    metadata: dict[str, Any] = {}
    """What its owner says of it: version, records, license, tags, language, and whatever else."""
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class Upload(Record, frozen=True, kw_only=True):
    """One file that was put into a dataset, whole. Its bytes lie in a folder named by its id."""

    dataset_id: str
    name: str
    """As the client called it; never used as a path."""
    stored_name: str
    """Made by the server: the file's name below the upload's folder."""
    bytes: int
    sha256: str
    uploaded_at: datetime
    deleted_at: datetime | None = None
    idempotency: IdempotentCall | None = None


class TrainConfigFile(Record, frozen=True, kw_only=True):
    """The train config of a dataset, or the one of the whole service; each PUT makes a new one."""

    dataset_id: str | None
    """None: of the whole service."""
    filename: str
    stored_name: str
    size: int
    """In bytes."""
    uploaded_at: datetime
    recipe: str
    """The recipe it was checked against."""
    deleted_at: datetime | None = None
