"""Which of a function's results are told: every so many steps or epochs, and always the last, once it has returned."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tunesmith.contract.events import Kind
from tunesmith.errors import InvalidInput
from tunesmith.files import write_atomically
from tunesmith.finetune.checkpoint import keep
from tunesmith.finetune.job import Job
from tunesmith.finetune.result import ReportedResult, Result, decode_result, read_result

MOST_RESULT_BYTES = 1024 * 1024
FOLDER = "results"


class Emit(Protocol):
    """Prints one event."""

    def __call__(self, event: Kind, /, **fields: Any) -> None: ...


class Results:
    """Takes the results of one call. A function may report from several threads."""

    def __init__(self, job: Job, run_folder: Path, emit: Emit) -> None:
        self._job = job
        self._folder = run_folder / FOLDER
        self._checkpoints = run_folder / "checkpoints"
        self._emit = emit
        self._lock = threading.Lock()
        self._latest: ReportedResult | None = None
        self._folder.mkdir(parents=True, exist_ok=True)
        told = sorted(self._folder.glob("*.json"))
        self._written = len(told)
        # An attempt that resumes from a checkpoint comes by some results once more; those were told.
        self._told_upto = decode_result(told[-1].read_bytes()).idx if told else 0

    def take(self, given: object) -> None:
        """Check a result, and tell it if it is due.

        Raises:
            InvalidInput: it is not one, or comes out of order.
        """
        result = read_result(
            given,
            measurement=self._job.training.measurement,
            output_model_path=self._job.model.output_path,
            output_log_path=self._job.model.log_path,
        )
        with self._lock:
            before = self._latest
            _check_order(before, result)
            self._latest = result
            self._measure(result)
            # The final one waits until the function has returned: what ends in an exception has not succeeded.
            if not result.is_final and self._due(before, result):
                self._tell(result.told)
            if result.checkpoint is not None:
                self._keep(result.checkpoint, result)

    def finish(self) -> None:
        """The function has returned: its last result is the final one.

        Raises:
            InvalidInput: there was none.
        """
        if self._latest is None:
            raise InvalidInput(
                "it returned without a result", where=self._job.training.function, mend="yield one, or call report"
            )
        self._tell(msgspec.structs.replace(self._latest.told, is_final=True))

    def _due(self, before: Result | None, result: Result) -> bool:
        every = self._job.training.show_frequency
        upto = max(self._told_upto, before.idx if before is not None else 0)
        return result.idx // every > upto // every

    def _keep(self, reported: str, result: Result) -> None:
        by_epoch = self._job.training.measurement == "epoch"
        facts = {"metrics": _newest(result), "epoch": result.idx if by_epoch else None}
        path = keep(reported, self._checkpoints, idx=result.idx, facts=facts)
        self._emit("checkpoint", path=str(path), step=result.idx, metrics=facts["metrics"])

    def _measure(self, result: Result) -> None:
        """The newest point of each curve, for those who watch the run."""
        training = self._job.training
        counted = (
            {"epoch": result.idx, "total_steps": training.total_epoch_number} if training.measurement == "epoch" else {}
        )
        self._emit("metrics", step=result.idx, **counted, **_newest(result))

    def _tell(self, result: Result) -> None:
        content = msgspec.json.encode(result)
        if len(content) > MOST_RESULT_BYTES:
            raise InvalidInput(
                f"a result takes {len(content)} bytes, and may take {MOST_RESULT_BYTES}",
                where="result",
                mend="draw fewer points",
            )
        # A file, because a line of a log has its limits.
        self._written += 1
        name = f"{self._written:06d}.json"
        write_atomically(self._folder / name, content)
        self._emit("result", finetune=f"{FOLDER}/{name}", is_final=result.is_final, model=result.output_model_path)


def _newest(result: Result) -> dict[str, float | None]:
    figure = result.fig_param
    curves = {
        "loss": figure.losses,
        "accuracy": figure.accuracies,
        "eval_loss": figure.valid_losses,
        "eval_accuracy": figure.valid_accuracies,
    }
    newest = {name: curve[-1] for name, curve in curves.items() if curve}
    return newest if result.test_accuracy is None else {**newest, "test_accuracy": result.test_accuracy}


def _check_order(before: Result | None, result: Result) -> None:
    if before is None:
        return
    if before.is_final:
        raise InvalidInput(f"result {result.idx} came after the final one", where="result.idx", mend="end after it")
    if result.idx < before.idx or (result.idx == before.idx and not result.is_final):
        raise InvalidInput(f"result {result.idx} came after result {before.idx}", where="result.idx", mend="count up")
