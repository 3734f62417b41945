"""``evaluate``: scores a model on rows. Started by recipes/evaluate/run.sh."""

from __future__ import annotations

from tunesmith_workers.evaluation.scoring import evaluate
from tunesmith_workers.process.config import EvaluateConfig, read_arguments
from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.process.stopping import StopRequest


def main() -> None:
    StopRequest().listen()
    evaluate(*read_arguments(EvaluateConfig))


if __name__ == "__main__":
    run_and_exit(main)
