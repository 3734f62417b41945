"""Whether a training can resume from a checkpoint, as far as its manifest tells: what differs, said before anything starts.

What must match is said in ``contract.manifest``. The worker looks once more, at what only it can see: the tokenizer, and a
chat template as it is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from tunesmith.contract.manifest import BASE, DATA, Misfit, Origin, misfits, sha256_of_data, value_at
from tunesmith.errors import Fault
from tunesmith.files import data_files, raise_shortage

_UNREADABLE = ""
_MEND = "or start a new run from the checkpoint's weights"


def differences(origin: Origin, config: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Everything in a resolved config that does not fit a checkpoint of ``origin``. Reads the data file for its hash."""
    base, data = value_at(config, BASE), value_at(config, "data.train_file")
    compares_data = origin.data_sha256 is not None and isinstance(data, str)
    now = Origin(
        base_model=None if base is UNSET else str(base),
        data_sha256=_sha256(Path(data)) if compares_data else None,
        config=dict(config),
    )
    return tuple(_of_data(one, data) if one.name == DATA else _fault(one) for one in misfits(origin, now))


def _fault(misfit: Misfit) -> Fault:
    return Fault(
        message=f"was {misfit.was!r} and is now {misfit.now!r}", where=misfit.name, mend=f"leave it as it was, {_MEND}"
    )


def _of_data(misfit: Misfit, data: str) -> Fault:
    return Fault(
        message=f"{data} was trained on with the sha256 {misfit.was}, and now "
        + ("cannot be read" if misfit.now == _UNREADABLE else f"has {misfit.now}"),
        where="data.train_file",
        mend=f"put the file back as it was, {_MEND}",
    )


def _sha256(place: Path) -> str:
    try:
        return sha256_of_data(data_files(place))
    except OSError as error:
        raise_shortage(error)
        return _UNREADABLE
