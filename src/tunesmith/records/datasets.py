"""Datasets, the files in them, and train configs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

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


class FileCheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a look at every row of a file has found."""

    rows: int
    """Good and bad."""
    shapes: dict[str, int] = {}
    """Good rows by their shape."""
    faults: int = 0
    """Rows that cannot be used."""
    told: tuple[str, ...] = ()
    """What is wrong with the first of them, with their lines."""

    @property
    def ok(self) -> bool:
        return self.rows > 0 and not self.faults


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
    purpose: str = ""
    """What it is for, where its door asks that: ``fine-tune``, ``batch``, ...; empty where nobody said."""
    expires_at: datetime | None = None
    """When it is removed by itself, unless a run uses it."""
    caller: str = ""
    """The id of the API key that it came with, where its door asks that; empty: there was none."""
    check: FileCheck | None = None
    """None: nobody has looked, or the look is not over."""
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
