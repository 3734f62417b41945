"""``result_files``: when a job has succeeded, its measurements become a CSV file that clients download like any other.

The file's id is that of the run under another prefix, so it is written once, also when a server ends in the middle of it.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from tunesmith.errors import TunesmithError
from tunesmith.openai.job_events import lines_from_end, measured_in
from tunesmith.openai.labels import JOB
from tunesmith.paths import StatePaths
from tunesmith.records import Run, RunState

RESULTS = "fine-tune-results"
"""The purpose of these files."""
NAME = "step_metrics.csv"
_log = structlog.get_logger()
_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
    "epoch": "epoch",
    "learning_rate": "learning_rate",
    "trained_tokens": "trained_tokens",
}
"""OpenAI's columns, and some more at their end."""
_RETRY_SECONDS = 5.0

Keep = Callable[[str, AsyncIterator[bytes], str], Awaitable[object]]
"""Puts a file there: its name, its bytes, and the id of the upload."""


class ResultFiles:
    """Writes them, one after the other."""

    def __init__(self, *, keep: Keep, was_ever: Callable[[str], bool], paths: StatePaths) -> None:
        """``was_ever`` says whether an upload is, or was, on record."""
        self._keep = keep
        self._was_ever = was_ever
        self._paths = paths
        self._waiting: dict[str, None] = {}
        self._given_up: set[str] = set()
        self._wake = asyncio.Event()
        self._written = asyncio.Event()

    def committed(self, _entry: object, run: Run, _previous: object) -> None:
        """Listen to the journal of runs with this."""
        if run.state is RunState.SUCCEEDED and JOB in run.labels:
            self._ask(run.id)

    def _ask(self, run_id: str) -> None:
        self._waiting.setdefault(run_id)
        self._wake.set()

    def pending(self, run: Run) -> bool:
        """Whether the job has succeeded, and its file is still being written."""
        return run.state is RunState.SUCCEEDED and run.id in self._waiting and run.id not in self._given_up

    async def settled(self, run_id: str) -> None:
        """Wait until the job's file is written, or until that has failed once."""
        while run_id in self._waiting and run_id not in self._given_up:
            await self._written.wait()

    def look_back(self, succeeded: Iterable[str]) -> None:
        """Before anybody is served: what an earlier server has left, of the jobs that succeeded."""
        for run_id in succeeded:
            if not self._was_ever(upload_of(run_id)):
                self._ask(run_id)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled: write the files of jobs as they succeed."""
        task_status.started()
        while True:
            self._wake.clear()
            for run_id in list(self._waiting):
                await self._write(run_id)
            if self._waiting:
                await anyio.sleep(_RETRY_SECONDS)
            else:
                await self._wake.wait()

    async def _write(self, run_id: str) -> None:
        try:
            if not self._was_ever(upload_of(run_id)):
                content = await anyio.to_thread.run_sync(step_metrics, self._paths.run(run_id).metrics)
                await self._keep(NAME, _at_once(content), upload_of(run_id))
        except (TunesmithError, OSError) as error:
            _log.warning("result_file_not_written_yet", run_id=run_id, reason=str(error))
            self._given_up.add(run_id)  # the job is not kept from its end by it
        except Exception:  # noqa: BLE001  # whatever a run has written, it must not end the server
            _log.exception("result_file_not_written", run_id=run_id)
            self._waiting.pop(run_id, None)
        else:
            self._waiting.pop(run_id, None)
            self._given_up.discard(run_id)
        written, self._written = self._written, asyncio.Event()
        written.set()


def upload_of(run_id: str) -> str:
    """The id of the upload that is the job's result file."""
    return run_id.replace("run_", "upl_", 1)


def step_metrics(metrics: Path) -> bytes:
    """The measurements of a metrics.jsonl as CSV, a row for each step, oldest first. Blocks."""
    rows = [_row(row) for row in _from_last(lines_from_end(metrics))]
    return b"".join([_row(_COLUMNS_AS_ROW), *reversed(rows)])


_COLUMNS_AS_ROW = {name: column for column, name in _COLUMNS.items()}


def _row(row: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([row.get(name, "") for name in _COLUMNS.values()])
    return text.getvalue().encode()


def _from_last(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Steps from the last to the first. A step may be measured in several lines, and once more after a restart, with all
    that follow it: then the earlier ones do not count.
    """
    at_step: dict[str, Any] = {}
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or (at_step and step > at_step["step"]):
            continue
        if at_step and step < at_step["step"]:
            yield at_step
            at_step = {}
        epoch = {"epoch": line["epoch"]} if "epoch" in line else {}
        at_step = {"step": step, **epoch, **measured_in(line), **at_step}
    if at_step:
        yield at_step


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content
