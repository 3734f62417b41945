"""Whether a training can go on from a checkpoint, as far as its manifest tells: what differs, said before anything starts.

The worker looks once more, at what only it can see: the tokenizer, and a chat template as it is rendered. A recipe whose
checkpoints say nothing of where they come from is not held to anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.manifest import ManifestOrigin
from tunesmith.errors import Fault
from tunesmith.files import data_files, raise_shortage

# Everything else may be overridden: whoever changes the batch or the length of rows means it.
_SAME_KNOBS = (
    "job.type",
    "job.method",
    "lora.r",
    "lora.lora_alpha",
    "lora.target_modules",
    "data.chat_template",
)
_MISSING = object()


def differences(origin: ManifestOrigin, config: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Everything in a resolved config that does not fit a checkpoint of ``origin``. Reads the data file for its hash."""
    return tuple(_differences(origin, config))


def _differences(origin: ManifestOrigin, config: Mapping[str, Any]) -> Iterator[Fault]:
    base = _at(config, "model.base")
    if origin.base_model is not None and base not in (_MISSING, origin.base_model):
        yield _fault("model.base", origin.base_model, base)
    for knob in _SAME_KNOBS:
        was, now = _at(origin.config, knob), _at(config, knob)
        if _MISSING not in (was, now) and was != now:
            yield _fault(knob, was, now)
    data = _at(config, "data.train_file")
    if origin.data_sha256 is not None and isinstance(data, str):
        found = _sha256(Path(data))
        if found != origin.data_sha256:
            yield Fault(
                message=f"{data} was trained on with the sha256 {origin.data_sha256}, and now "
                + (f"has {found}" if found else "cannot be read"),
                where="data.train_file",
                mend="put the file back as it was, or start a new run from the checkpoint's weights",
            )


def _fault(where: str, was: object, now: object) -> Fault:
    return Fault(
        message=f"was {was!r} and is now {now!r}",
        where=where,
        mend="leave it as it was, or start a new run from the checkpoint's weights",
    )


def _at(config: Mapping[str, Any], path: str) -> Any:
    found: Any = config
    for name in path.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return _MISSING
        found = found[name]
    return found


def _sha256(place: Path) -> str | None:
    """Of a data file, or of all in a folder one after the other."""
    found = hashlib.sha256()
    try:
        for path in data_files(place):
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: found)
    except OSError as error:
        raise_shortage(error)
        return None
    return found.hexdigest()
