"""What makes a folder of weights a checkpoint: a manifest, written last, that says what it is and lists its files.

A folder without one is incomplete, whatever it holds. Here is also what must match for a training to resume from it. Recipes
that are not ours may write a manifest, too, with no more than ``step`` and ``created_at``: what it does not say is not compared.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

MANIFEST: Final = "manifest.json"
KEEP: Final = "KEEP"
"""A file of this name in a checkpoint: somebody marked it, and whoever prunes old ones leaves it alone."""

BASE: Final = "model.base"
DATA: Final = "the data's sha256"
_SAME_OPTIONS = ("job.type", "job.method", "lora.r", "lora.lora_alpha", "lora.target_modules", "data.chat_template")
"""Everything else may be overridden: whoever changes the batch or the length of rows means it."""
_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""Errors of the machine: they say nothing of the checkpoint."""


class ListedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that belongs to the checkpoint."""

    path: str
    """Below the checkpoint's folder."""
    bytes: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What the checkpoint was trained from: the same for all of a run."""

    base_model: str | None = None
    """What the config named: a whole model, or an adapter that the training went on from."""
    adapter_sha256: str | UnsetType = UNSET
    """Of the weights of that adapter: another one may lie in its place by now. Left out where it was a whole model."""
    template_sha256: str | UnsetType | None = UNSET
    """None: the tokenizer has no chat template."""
    tokenizer_sha256: Any = None
    """Text; of other programs, whatever it may be."""
    data_sha256: str | None = None
    config: dict[str, Any] = {}
    """The resolved config."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last file of a checkpoint or model folder."""

    kind: str = "checkpoint"
    """checkpoint, adapter or model."""
    step: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    epoch: float | None = None
    metrics: dict[str, float | None] = {}
    """The newest values of all metrics when it was written."""
    created_at: datetime
    origin: Origin = Origin()
    versions: Any = {}
    """Of packages, by name; of other programs, whatever it may be."""
    files: tuple[ListedFile, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


decode_manifest = msgspec.json.Decoder(Manifest).decode
"""Made when this is imported: msgspec describes a struct when it is first decoded, and a thread that decodes the same one
meanwhile reads a description that is not finished, and ends the process."""


class Misfit(NamedTuple):
    """One thing in which a training differs from what a checkpoint was trained from."""

    name: str
    was: object
    now: object


def read_manifest(folder: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> Manifest | None:
    """The manifest of a complete checkpoint; None when it is missing, damaged, or a file it lists does not have its size.

    ``read`` is for who has to be careful, because other programs write to that folder.

    Raises:
        OSError: too many files are open, or the disk is failing: whether it is complete cannot be said.
    """
    try:
        manifest = decode_manifest(read(folder / MANIFEST))
        whole = all((folder / file.path).stat().st_size == file.bytes for file in manifest.files)
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
        return None
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    return manifest if whole else None


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and every file it lists has its size. Raises OSError as ``read_manifest``."""
    return read_manifest(folder) is not None


def misfits(then: Origin, now: Origin) -> tuple[Misfit, ...]:
    """Everything in which ``now`` is not what a checkpoint of ``then`` was trained from; nothing where either does not say."""
    found = [*_hashes(then, now), *_options(then.config, now.config)]
    return tuple(one for one in found if one.was != one.now)


def _hashes(then: Origin, now: Origin) -> Iterator[Misfit]:
    pairs = (
        (BASE, then.base_model, now.base_model),
        ("the adapter's sha256", then.adapter_sha256 or None, now.adapter_sha256 or None),
        (DATA, then.data_sha256, now.data_sha256),
        ("the tokenizer's sha256", then.tokenizer_sha256, now.tokenizer_sha256),
    )
    yield from (Misfit(name, was, is_now) for name, was, is_now in pairs if None not in (was, is_now))
    if UNSET not in (then.template_sha256, now.template_sha256):
        yield Misfit("the chat template's sha256", then.template_sha256, now.template_sha256)


def _options(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Misfit]:
    for option in _SAME_OPTIONS:
        was, is_now = value_at(then, option), value_at(now, option)
        if UNSET not in (was, is_now):
            yield Misfit(option, was, is_now)


def value_at(config: object, path: str) -> Any:
    """The value at a dotted path; UNSET where there is none, None below a section that is null."""
    found: Any = config
    for name in path.split("."):
        if found is None:
            return None
        if not isinstance(found, Mapping) or name not in found:
            return UNSET
        found = found[name]
    return found


def sha256_of_data(paths: Iterable[Path]) -> str:
    """Of files, one after the other. Raises OSError."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()
