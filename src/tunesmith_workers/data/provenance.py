"""What is known of where data files come from: a ``provenance.json`` beside them, checked by hash when it is believed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunesmith_workers.data.deidentify import Policy
from tunesmith_workers.data.split import WrittenFile

NAME = "provenance.json"
_MADE_BY = "tunesmith data process"


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What was processed."""

    path: str
    bytes: int
    sha256: str


class DataPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The de-identification policy that data went through."""

    id: str
    version: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Written last: a folder with it is whole."""

    made_by: str
    version: str
    created_at: datetime
    input: Input
    options: dict[str, Any]
    policy: DataPolicy | None
    files: dict[str, WrittenFile]


_decode_provenance = msgspec.json.Decoder(Provenance).decode


def provenance_of(
    source: Input, options: Mapping[str, Any], policy: Policy | None, files: Mapping[str, WrittenFile]
) -> Provenance:
    return Provenance(
        made_by=_MADE_BY,
        version=importlib.metadata.version("tunesmith"),
        created_at=datetime.now(UTC),
        input=source,
        options=dict(options),
        policy=DataPolicy(id=policy.id, version=policy.version) if policy else None,
        files=dict(sorted(files.items())),
    )


def is_result(folder: Path) -> bool:
    """Whether the folder holds a result of ours."""
    return _read(folder) is not None


def policy_behind(data: Path, sha256: str) -> DataPolicy | None:
    """The policy that this very file went through; None when nothing vouches for it."""
    found = _read(data.parent)
    if found is None or not any(name == data.name and file.sha256 == sha256 for name, file in found.files.items()):
        return None
    return found.policy


def _read(folder: Path) -> Provenance | None:
    try:
        with (folder / NAME).open("rb") as file:
            found = _decode_provenance(file.read(1 << 20))
    except (OSError, ValueError):  # there is none, or it is somebody else's
        return None
    return found if found.made_by == _MADE_BY else None
