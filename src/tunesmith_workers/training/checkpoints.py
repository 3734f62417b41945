"""What makes a folder of weights a checkpoint: a manifest, written last, that says what it is and lists its files.

A folder without a manifest is incomplete, whatever it holds. The weights are the trainer's to write.
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

from tunesmith_workers.data.provenance import DataPolicy, policy_behind
from tunesmith_workers.data.reader import data_files
from tunesmith_workers.process.faults import BadConfig

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "tunesmith")
_PREFIX = "checkpoint-"
_REMOVED = ".removed-"
KEEP = "KEEP"
"""A file of this name in a checkpoint: somebody marked it, and it stays."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a checkpoint comes from: the same for all of a run."""

    base_model: str
    template_sha256: str | None
    tokenizer_sha256: str
    data_sha256: str
    config: dict[str, Any]
    """The resolved config."""
    data_policy: DataPolicy | None = None
    """The de-identification policy that the data went through, as the provenance.json beside it says."""


class ListedFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last file of a checkpoint or model folder."""

    kind: str
    """checkpoint, adapter or model."""
    step: int
    epoch: float | None
    metrics: dict[str, float | None]
    created_at: datetime
    origin: Origin
    versions: dict[str, str]
    files: list[ListedFile]


def origin_of(*, base: str, tokenizer: Any, data: Path, config: dict[str, Any]) -> Origin:
    template = tokenizer.chat_template
    data_sha256 = sha256_of_data(data)
    return Origin(
        base_model=base,
        template_sha256=_sha256(template.encode()) if isinstance(template, str) else None,
        tokenizer_sha256=_sha256(tokenizer.backend_tokenizer.to_str().encode()),
        data_sha256=data_sha256,
        config=config,
        data_policy=policy_behind(data, data_sha256),
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
        files=[ListedFile(path=str(path.relative_to(folder)), bytes=path.stat().st_size) for path in files],
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
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return all((folder / file.path).stat().st_size == file.bytes for file in manifest.files)
    except (OSError, msgspec.DecodeError):
        return False


def metrics_of(folder: Path) -> dict[str, float | None]:
    """The newest values of all metrics when this complete checkpoint was written."""
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest).metrics


def refuse_misfit(folder: Path, origin: Origin) -> None:
    """Make sure that a training of ``origin`` can go on from ``folder`` as if it had never stopped.

    Raises:
        BadConfig: with every difference: another model, other data, another template, another shape of adapter.
    """
    try:
        then = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest).origin
    except (OSError, msgspec.DecodeError):
        then = None
    if then is None or not is_complete(folder):
        raise BadConfig(f"{folder} is not a complete checkpoint", where="resume", mend="name one that is listed")
    pairs: dict[str, tuple[Any, Any]] = {
        "model.base": (then.base_model, origin.base_model),
        "the data's sha256": (then.data_sha256, origin.data_sha256),
        "the chat template's sha256": (then.template_sha256, origin.template_sha256),
        "the tokenizer's sha256": (then.tokenizer_sha256, origin.tokenizer_sha256),
    }
    for knob in ("r", "lora_alpha", "target_modules"):
        was, now = ((one.config.get("lora") or {}).get(knob) for one in (then, origin))
        pairs[f"lora.{knob}"] = (was, now)
    differences = [f"{name} was {was}, and is {now}" for name, (was, now) in pairs.items() if was != now]
    if differences:
        raise BadConfig(
            f"{folder.name} does not fit this run: {'; '.join(differences)}",
            where="resume",
            mend="go on with what it was trained with, or start a new run from its weights",
        )


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
    """Of a data file, or of all in a folder one after the other; the service's ``checkpoints.fit`` computes the same."""
    found = hashlib.sha256()
    for path in data_files(data):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()
