"""``evaluate_evalscope``: has evalscope score a served model. Started by recipes/evaluate-evalscope/run.sh."""

from __future__ import annotations

from tunesmith_workers.evaluation.evalscope import evaluate
from tunesmith_workers.process.config import EvalscopeConfig, read_arguments
from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.process.stopping import StopRequest


def main() -> None:
    StopRequest().listen()
    evaluate(*read_arguments(EvalscopeConfig))


if __name__ == "__main__":
    run_and_exit(main)
