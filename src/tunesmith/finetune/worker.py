"""The process in which a user's function runs: ``python -m tunesmith.finetune.worker config.yaml``.

Fetches the datasets, calls the function, prints its results as events. Whatever goes wrong becomes one error event that
says what and where. Callbacks are not sent from here: this process may die, and they must not die with it.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from tunesmith.contract import environment
from tunesmith.errors import Fault, TunesmithError
from tunesmith.finetune.checkpoint import reported_in
from tunesmith.finetune.datasets import local_datasets
from tunesmith.finetune.function import call, load
from tunesmith.finetune.job import Job, read_job
from tunesmith.finetune.output import Output
from tunesmith.finetune.results import Results


def main(config: Path) -> int:
    """Answers the exit code."""
    job = read_job(config)
    folder = Path(os.environ.get(environment.RUN_DIR) or config.parent)
    signal.signal(signal.SIGTERM, _leave)
    Path(job.model.output_path).mkdir(parents=True, exist_ok=True)
    with Output(Path(job.model.log_path)) as output:
        try:
            _run(job, folder, output)
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
            output.emit("message", level="error", text="the function called sys.exit", mend="return instead")
        except BaseException as error:  # noqa: BLE001  # whatever it raises is told, and ends this process anyway
            traceback.print_exc()
            fault = _fault(error, job.training.file)
            output.emit("message", level="error", text=fault.message, where=fault.where, mend=fault.mend)
        else:
            return 0
    return 1


def _run(job: Job, folder: Path, output: Output) -> None:
    datasets = local_datasets(job.data, folder / "datasets")
    results = Results(job, folder, output.emit)
    answer = call(load(job.training.reference), _offered(job, datasets, results))
    if inspect.isgenerator(answer):
        for result in answer:
            results.take(result)
    elif answer is not None:
        results.take(answer)
    results.finish()


def _offered(job: Job, datasets: Mapping[str, str], results: Results) -> dict[str, Any]:
    return {
        **datasets,
        "param_dict": job.training.param_dict,
        "model_path": job.model.path,
        "output_model_path": job.model.output_path,
        "output_log_path": job.model.log_path,
        "report": results.take,
        "resume_from": reported_in(os.environ.get(environment.RESUME_FROM)),
    }


def _fault(error: BaseException, file: str) -> Fault:
    if isinstance(error, TunesmithError):
        message = "; ".join([error.message, *map(str, error.faults)])
        return Fault(message=message, where=error.where, mend=error.mend)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{file}:{lines[-1]}" if lines else file
    return Fault(message=f"{type(error).__name__}: {error}", where=where, mend="its log has the traceback")


def _leave(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that the function's `finally` gets its turn.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
