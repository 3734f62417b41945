"""``lora``: trains a small adapter beside the frozen weights of a model. Started by recipes/lora/run.sh."""

from __future__ import annotations

from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.programs.training import run, start
from tunesmith_workers.weights.lora import LoraWeights


def main() -> None:
    started = start()
    from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy  # noqa: PLC0415  # imports torch

    run(LoraWeights(), TokenCrossEntropy(), started)


if __name__ == "__main__":
    run_and_exit(main)
