"""The process that reports to Weights & Biases: reads measurements on standard input, and logs them to a run of wandb.

Whatever is wrong here is a warning in the run's log and never more: the training does not know of it. Where wandb cannot be
reached, or has no key, measurements are kept below the run's folder for ``wandb sync``. wandb's own words stay out of the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from tunesmith_workers.process.events import emit_message
from tunesmith_workers.reporting.kept import Kept
from tunesmith_workers.reporting.lines import Ended, Line, Measured, Opening, decode_line

_PLACE = "reporting.wandb"
_TO_START = 15.0
"""Seconds that wandb may take to be reached: less than a short training waits for its last measurements."""
_TO_FINISH = 60.0
"""Seconds that it may take to send the rest. The training waits less long; this bounds a process that has lost it."""
_LONGEST_WORDS = 400


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to the whole group: the training says when it is over
        signal.signal(number, signal.SIG_IGN)
    lines = _lines(_from_training())
    opening = next(lines, None)
    if not isinstance(opening, Opening):
        sys.exit(1)  # a config that no pipe holds; the training says that this process has ended
    try:
        _report(opening, lines)
    except Exception as error:  # noqa: BLE001  # wandb raises what it likes, and none of it is worth a training
        _warn(f"measurements are not sent to wandb any more: {_said(error)}", f"see {opening.folder}/wandb")


def _from_training() -> int:
    """The pipe from the training. Standard input and output are others from now on: wandb asks and says nothing."""
    pipe, log = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.stdout = os.fdopen(log, "w")
    return pipe


def _lines(pipe: int) -> Iterator[Line]:
    """Up to the end of the training, however that came."""
    with os.fdopen(pipe, "rb") as file:
        for line in file:
            try:
                yield decode_line(line)
            except msgspec.DecodeError:  # cut short: the training was killed, or the pipe was full
                continue


def _report(opening: Opening, lines: Iterator[Line]) -> None:
    try:
        import wandb  # noqa: PLC0415  # an extra, which may be missing
    except ImportError as error:
        _warn(
            f"measurements are not sent to wandb: its package cannot be imported ({_said(error)})",
            "pip install 'tunesmith[wandb]', or set reporting.wandb.project to null",
        )
        return
    kept = Kept(opening)
    run = _open(wandb, opening, kept.id)
    # A run that was resumed at wandb knows best how far it is.
    step, exit_code = _log(run, kept, max(kept.step, run.starting_step - 1), lines)
    if exit_code is None:
        # The training was killed, and so may wandb be any moment: another attempt logs what is not known to have arrived.
        with contextlib.suppress(Exception):
            run.finish(exit_code=1)
        return
    run.finish(exit_code=exit_code)
    kept.all_sent(step)


def _open(wandb: Any, opening: Opening, run_id: str) -> Any:
    """A run of wandb, kept on the disk where it cannot be reached."""
    said = {
        "project": opening.project,
        "name": opening.name or run_id,
        "entity": opening.entity,
        "tags": opening.tags,
        "id": run_id,
        "resume": "allow",
        "dir": opening.folder,
        "config": opening.config,
        "settings": wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_save_requirements=False,
            init_timeout=_TO_START,
            finish_timeout=_TO_FINISH,
        ),
    }
    try:
        run = wandb.init(**said)
    except Exception as error:  # noqa: BLE001  # see main
        kept = f"measurements are kept in {opening.folder}/wandb"
        _warn(f"wandb cannot be used now: {_said(error)}; {kept}", f"{_mend(error)}; `wandb sync` uploads them")
        wandb.teardown()
        return wandb.init(**said, mode="offline")
    where = run.url or f"kept in {opening.folder}/wandb (WANDB_MODE is {run.settings.mode})"
    emit_message(f"measurements are reported to wandb: {where}")
    return run


def _mend(error: Exception) -> str:
    if "API key" in str(error) or type(error).__name__ == "AuthenticationError":
        return "give the server WANDB_API_KEY, and list WANDB_* in run_environment"
    return "see that this machine reaches it (WANDB_BASE_URL, HTTPS_PROXY), and that its key may write to the project"


def _log(run: Any, kept: Kept, upto: int, lines: Iterator[Line]) -> tuple[int, int | None]:
    """Log what is later than the step ``upto``; the last step, and the exit code of the training where it told one."""
    newest = upto
    for measured in kept.unsent():
        if measured.step > upto:
            run.log(measured.values, step=measured.step)
            newest = max(newest, measured.step)
    upto = newest
    for line in lines:
        if isinstance(line, Ended):
            return newest, line.exit_code
        if isinstance(line, Measured) and line.step > upto:
            kept.add(line)
            run.log(line.values, step=line.step)
            newest = max(newest, line.step)
    return newest, None


def _warn(text: str, mend: str) -> None:
    emit_message(text, level="warning", where=_PLACE, mend=mend)


def _said(error: BaseException) -> str:
    """The words of an exception on one line."""
    return " ".join(str(error).split())[:_LONGEST_WORDS].rstrip(".") or type(error).__name__


if __name__ == "__main__":
    main()
