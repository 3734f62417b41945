"""Hands every measurement of a training to whoever reports it elsewhere."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_workers.reporting.reporter import Reporter


class Reports(TrainerCallback):
    """Reports what is logged, at its step."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002  # Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002  # Trainer's signature
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self._reporter.measured(state.global_step, logs or {})
