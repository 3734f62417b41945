"""Making a folder of weights a checkpoint, resuming from one, and removing old ones. What one is: ``contract.manifest``.

The weights are the trainer's to write.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.contract import manifest as contract
from tunesmith.contract.manifest import KEEP, MANIFEST, ListedFile, Manifest, decode_manifest, misfits, read_manifest
from tunesmith_workers.data.provenance import DataPolicy, policy_behind
from tunesmith_workers.data.reader import data_files
from tunesmith_workers.models.starting_point import ADAPTER_WEIGHTS
from tunesmith_workers.process.faults import BadConfig

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "tunesmith")
_PREFIX = "checkpoint-"
_REMOVED = ".removed-"


class Origin(contract.Origin, frozen=True, kw_only=True):
    """Where a checkpoint comes from, with what is known of its data besides."""

    data_policy: DataPolicy | None = None
    """The de-identification policy that the data went through, as the provenance.json beside it says."""


def origin_of(
    *, base: str, tokenizer: Any, data: Path | None, config: dict[str, Any], adapter: Path | None = None
) -> Origin:
    """``data`` is None for what was not trained, such as an export. ``adapter`` is what the training began from, if that is one."""
    template = tokenizer.chat_template
    data_sha256 = sha256_of_data(data) if data is not None else None
    return Origin(
        base_model=base,
        adapter_sha256=contract.sha256_of_data([adapter / ADAPTER_WEIGHTS]) if adapter is not None else msgspec.UNSET,
        template_sha256=_sha256(template.encode()) if isinstance(template, str) else None,
        tokenizer_sha256=_sha256(tokenizer.backend_tokenizer.to_str().encode()),
        data_sha256=data_sha256,
        config=config,
        data_policy=policy_behind(data, data_sha256) if data is not None and data_sha256 is not None else None,
    )


def complete(
    folder: Path, *, kind: str, origin: Origin, step: int, epoch: float | None, metrics: dict[str, float | None]
) -> Manifest:
    """Make what is in ``folder`` durable, then write its manifest.

    Raises:
        OSError: the disk is full; the folder stays incomplete.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        _sync(path)
    manifest = Manifest(
        kind=kind,
        step=step,
        epoch=epoch,
        metrics=metrics,
        created_at=datetime.now(UTC),
        origin=origin,
        versions=_versions(),
        files=tuple(ListedFile(path=str(path.relative_to(folder)), bytes=path.stat().st_size) for path in files),
    )
    beside = folder / f".{MANIFEST}.tmp"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    _sync(beside)
    beside.replace(folder / MANIFEST)
    _sync(folder)
    return manifest


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and every file it lists has its size."""
    try:
        return contract.is_complete(folder)
    except OSError:
        return False


def metrics_of(folder: Path) -> dict[str, float | None]:
    """The newest values of all metrics when this complete checkpoint was written."""
    return decode_manifest((folder / MANIFEST).read_bytes()).metrics


def refuse_misfit(folder: Path, origin: Origin) -> None:
    """Make sure that a training of ``origin`` can resume from ``folder`` as if it had never stopped.

    Raises:
        BadConfig: with every difference: another model, other data, another template, another shape of adapter.
    """
    try:
        manifest = read_manifest(folder)
    except OSError:
        manifest = None
    if manifest is None or not _says_all(manifest.origin):
        raise BadConfig(f"{folder} is not a complete checkpoint", where="resume", mend="name one that is listed")
    differences = [f"{name} was {was}, and is {now}" for name, was, now in misfits(manifest.origin, origin)]
    if differences:
        raise BadConfig(
            f"{folder.name} does not fit this run: {'; '.join(differences)}",
            where="resume",
            mend="resume with what it was trained with, or start a new run from its weights",
        )


def _says_all(origin: contract.Origin) -> bool:
    """Whether a program of ours wrote it: what is resumed exactly must be known exactly."""
    known = (origin.base_model, origin.tokenizer_sha256, origin.data_sha256)
    return None not in known and origin.template_sha256 is not msgspec.UNSET


def prune(folder: Path, keep: int | None, protected: Path | None = None) -> list[Path]:
    """Remove the oldest checkpoints in ``folder`` beyond ``keep``; the newest, marked ones and ``protected`` always stay.

    A link, in the place of a checkpoint or of ``folder``, is neither counted nor followed.
    """
    if folder.is_symlink():
        return []
    found = sorted((path for path in folder.glob(f"{_PREFIX}*") if _is_own_folder(path)), key=step_of)
    if keep is None or len(found) <= keep:
        return []
    spared = {found[-1], protected, *(path for path in found if (path / KEEP).exists())}
    old = [path for path in found if path not in spared][: len(found) - keep]
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for left in folder.glob(f"{_REMOVED}*"):  # of a removal that was cut short
            shutil.rmtree(left.name, ignore_errors=True, dir_fd=parent)
        return [path for path in old if _remove(parent, path.name)]
    finally:
        os.close(parent)


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(parent: int, name: str) -> bool:
    """Put it aside first: whoever marks it meanwhile was in time, and it is put back, or finds it gone."""
    aside = f"{_REMOVED}{name}"
    try:
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
        if _is_there(f"{aside}/{KEEP}", parent):
            os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
            return False
        shutil.rmtree(aside, dir_fd=parent)
    except OSError:
        return False  # a checkpoint too many must not end the training
    return True


def _is_there(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def step_of(folder: Path) -> int:
    number = folder.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else -1


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of_data(data: Path) -> str:
    """Of a data file, or of all in a folder."""
    return contract.sha256_of_data(data_files(data))
