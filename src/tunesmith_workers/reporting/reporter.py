"""The training's side of reporting to Weights & Biases: starts the process that does it, and hands it measurements.

A training must not wait for a service on the internet, nor end with it. So wandb lives in a process of its own
(``wandb_process``), and this side only writes into a pipe that never blocks: what does not fit is left out and counted. The
end is waited for, but not for long; what had not arrived by then lies in the run's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import msgspec

from tunesmith.contract.environment import RUN_ID
from tunesmith_workers.process.config import Folders, TrainConfig
from tunesmith_workers.process.events import emit_message, is_first_process
from tunesmith_workers.reporting.lines import Ended, Measured, Opening, line_of

PLACE = "reporting.wandb"
_PROGRAM = "tunesmith_workers.reporting.wandb_process"
_PIPE_BYTES = 1024 * 1024
"""Room for some thousand measurements while wandb is started or is slow; the kernel may allow less."""
_LONGEST_LINE = 4096
"""A line up to this is written whole or not at all (PIPE_BUF)."""
_TO_FINISH = 30.0
"""Seconds that the last measurements have to arrive once the training is over."""
_TO_LEAVE = 4.0
"""The same when the training was stopped or has failed, and somebody waits for its end."""


class Reporter:
    """Takes measurements and never waits, until its end."""

    def __init__(self, opening: Opening) -> None:
        """Raises OSError where no process can be started."""
        self._folder = opening.folder
        self._left_out = 0
        heard, self._pipe = os.pipe()
        try:
            with contextlib.suppress(OSError):  # more than this user may have: it stays as it is
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            os.set_blocking(self._pipe, False)
            # -P: a folder named wandb where the training was started is no package.
            self._process = subprocess.Popen([sys.executable, "-P", "-m", _PROGRAM], stdin=heard)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(heard)
        self._is_open = True
        self._write(line_of(opening))

    def measured(self, step: int, values: Mapping[str, object]) -> None:
        """Hand on what was measured after a step. What is no finite number is left out."""
        numbers = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        line = line_of(Measured(step=step, values=numbers))
        if len(line) <= _LONGEST_LINE:
            self._write(line)
        else:
            self._left_out += 1

    def end(self, exit_code: int, seconds: float) -> None:
        """Have the rest sent, for so many seconds at most."""
        self._write(line_of(Ended(exit_code=exit_code)))
        os.close(self._pipe)
        self._is_open = False
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._warn(f"not everything had arrived at wandb {seconds:.0f} s after the end")
            return
        if code:
            self._warn(f"the process that reports to wandb ended with {code}")
        elif self._left_out:
            self._warn(f"{self._left_out} measurements were not sent to wandb, which takes them too slowly")

    def _write(self, line: bytes) -> None:
        if not self._is_open:
            return
        try:
            os.write(self._pipe, line)
        except BlockingIOError:
            self._left_out += 1
        except OSError:  # the process is gone: it has said why, or its exit code will
            self._is_open = False

    def _warn(self, text: str) -> None:
        emit_message(
            text,
            level="warning",
            where=PLACE,
            mend=f"the run's own metrics are complete; `wandb sync` uploads what lies in {self._folder}/wandb",
        )


@contextlib.contextmanager
def reporting(config: TrainConfig, folders: Folders) -> Iterator[Reporter | None]:
    """Report on the training that goes on meanwhile, if its config names a project; by the first process of a group."""
    reporter = _started(config, folders)
    if reporter is None:
        yield None
        return
    try:
        yield reporter
    except SystemExit:  # asked to stop
        reporter.end(0, _TO_LEAVE)
        raise
    except BaseException:
        reporter.end(1, _TO_LEAVE)
        raise
    reporter.end(0, _TO_FINISH)


def _started(config: TrainConfig, folders: Folders) -> Reporter | None:
    wandb = config.reporting.wandb
    if not wandb.project or not is_first_process():
        return None
    opening = Opening(
        project=wandb.project,
        name=wandb.name,
        entity=wandb.entity,
        tags=wandb.tags,
        run_id=os.environ.get(RUN_ID) or None,
        resumes=folders.resume_from is not None,
        folder=str(folders.run.absolute()),
        config=msgspec.to_builtins(config),
    )
    try:
        return Reporter(opening)
    except OSError as error:
        emit_message(
            f"measurements are not sent to wandb: no process can be started for it ({error.strerror})",
            level="warning",
            where=PLACE,
            mend="see what of processes, descriptors or memory is short",
        )
        return None
