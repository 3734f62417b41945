"""How an engine ended, in words for its deployment. Decides nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tunesmith.records import Deployment, Exit
from tunesmith.runner.logs import latest_lines

_LAST_LINES = 5
_LONGEST = 4000


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """That the engine of a deployment is gone."""

    deployment_id: str
    reason: str


def ending_of(one: Deployment, exit_: Exit | None) -> Ending:
    if exit_ is None:
        how = "the engine is gone, and nobody knows how it ended"
    elif one.process is None:
        how = f"the engine could not be started: is there a program {one.command[0]}?"
    elif exit_.signal is not None:
        how = f"the engine was ended by signal {exit_.signal}"
    else:
        how = f"the engine exited with {exit_.code}"
    return Ending(deployment_id=one.id, reason=how)


def with_last_lines(reason: str, log: Path) -> str:
    """With what the engine said last, which tells most often why. Reads its log."""
    said = [text for line in latest_lines(log, _LAST_LINES) if (text := line.rpartition("\r")[2].strip())]
    return (reason + "; it last said:\n" + "\n".join(said))[:_LONGEST] if said else reason
