"""Which occurrences a callback wants to hear of. Pure: who offers them remembers what came before."""

from __future__ import annotations

import math

import msgspec

from tunesmith.records import Callback, CallbackEvent

# An epoch is computed as step / steps per epoch, and may fall a hair short of the whole number it stands for.
_SLACK = 1e-6


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a run. All but ``kind`` matters for metrics only."""

    kind: CallbackEvent
    step: int | None = None
    epoch: float | None = None
    previous_step: int | None = None
    """Where the metrics before these ones were taken, sent or not; None for the first."""
    previous_epoch: float | None = None
    last: bool = False
    """Nothing more will be measured."""


def which(callback: Callback, occurrence: Occurrence) -> bool:
    """Whether it is to be sent: metrics once for each multiple of ``every_*`` that they reach or pass, and the last."""
    if occurrence.kind not in callback.events:
        return False
    if occurrence.kind is not CallbackEvent.METRICS or occurrence.last:
        return True
    by_steps, by_epochs = callback.every_steps, callback.every_epochs
    if by_steps is None and by_epochs is None:
        by_epochs = 1
    return _crosses(by_steps, occurrence.previous_step, occurrence.step) or _crosses(
        by_epochs, occurrence.previous_epoch, occurrence.epoch
    )


def _crosses(every: int | None, previous: float | None, now: float | None) -> bool:
    if every is None or now is None:
        return False
    return math.floor(now / every + _SLACK) > math.floor((previous or 0) / every + _SLACK)
