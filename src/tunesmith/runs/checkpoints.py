"""What runs need to know of checkpoints, and when one keeps a run from being created or queued again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tunesmith.errors import Conflict, Fault, InvalidInput, MissingReference
from tunesmith.recipes import leaves
from tunesmith.records import Checkpoint, Run
from tunesmith.runs.request import option_at

_LENGTHS = ("training.max_steps", "training.num_train_epochs")
"""What decides where a training ends; the first one wins."""


class Checkpoints(Protocol):
    """What runs need to know of checkpoints."""

    async def reconcile(self, run_id: str, experiment_id: str | None) -> None: ...

    def present_of(self, run_id: str) -> list[Checkpoint]: ...

    def newest_of(self, run_id: str) -> Checkpoint | None: ...

    def misfits(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Fault, ...]: ...

    def holding(self, path: str) -> str | None: ...

    def stays(self, path: str) -> bool: ...


def used_by(checkpoints: Checkpoints, config: Mapping[str, Any], resume_from: str | None) -> tuple[str, ...]:
    """The checkpoints that a resolved config names, whichever option or item of one it is, and the one to resume from."""
    values = [value for _, value in leaves(config, set())]
    named = [one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    found = map(checkpoints.holding, filter(None, (*named, resume_from)))
    return tuple(dict.fromkeys(path for path in found if path is not None))


def refuse_if_gone(checkpoints: Checkpoints, run: Run) -> None:
    """Look once more whether all that the run uses stays. Touches no disk. Raises MissingReference."""
    faults = tuple(
        Fault(
            message=f"{path} was just removed to make room",
            where="ckpt_path" if path == run.resume_from else "model",
        )
        for path in run.checkpoints_used
        if not checkpoints.stays(path)
    )
    if faults:
        raise MissingReference(
            "a checkpoint is not there any more",
            faults=faults,
            mend="name one that is listed; a marked one is never removed",
        )


def refuse_misfit(
    checkpoints: Checkpoints, kind: type[InvalidInput | Conflict], checkpoint: Checkpoint, config: Mapping[str, Any]
) -> None:
    faults = checkpoints.misfits(checkpoint, config)
    if faults:
        raise kind(
            f"checkpoint {Path(checkpoint.path).name} does not fit: nothing would resume from where it was",
            faults=faults,
        )


def refuse_finished(total: int | None, checkpoint: Checkpoint, earlier: object, config: Mapping[str, Any]) -> None:
    """A run that would end as soon as it has begun is a mistake of whoever asks for it."""
    at_its_end = total is not None and checkpoint.step >= total
    before, now = ([option_at(one, path) for path in _LENGTHS] for one in (earlier, config))
    most = now[0]
    is_over = isinstance(most, int) and 0 < most <= checkpoint.step and (at_its_end or before != now)
    if is_over or (at_its_end and before == now):
        limits = [f"{path} {value}" for path, value in zip(_LENGTHS, now, strict=True) if value is not None]
        raise Conflict(
            f"nothing is left to do: the checkpoint is at step {checkpoint.step}, and the run would end there"
            + (f" ({', '.join(limits)})" if limits else ""),
            where="override_hyperparams",
            mend="raise max_steps, or num_train_epochs where max_steps is not set, or name an earlier checkpoint",
        )
