"""What a training counts from its first step on, and resumes from a checkpoint: trained tokens, and how long the validation
loss has not got better.

transformers writes such counters into ``trainer_state.json``. Restored by it, its own control flags would come with them, and
a training that was stopped would stop at once; so each counter is taken from there on its own.
"""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from tunesmith_workers.process.events import emit_message
from tunesmith_workers.training.speed import Speed


class TrainedTokens(TrainerCallback, ExportableState):
    """How many items of the objective were trained, which for ``sft`` and ``lora`` are tokens."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self._speed.trained = _restored(self, state, "trained")

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"trained": self._speed.trained}}


class EarlyStopping(EarlyStoppingCallback):
    """Ends a training after so many scorings without a better loss, those before its checkpoint included."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        super().on_train_begin(args, state, control, **given)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self.early_stopping_patience_counter = _restored(self, state, "early_stopping_patience_counter")
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
            emit_message(
                f"nothing is trained: the validation loss had not got better for {self.early_stopping_patience_counter} "
                "scorings before this checkpoint; a higher evaluation.early_stopping_patience trains on"
            )


def _restored(counter: ExportableState, state: TrainerState, name: str) -> int:
    """The counter's value in the checkpoint; what it is now where there is no checkpoint, or none of it in there."""
    kept: Any = state.stateful_callbacks
    found = [kept[kind.__name__] for kind in type(counter).__mro__ if kind.__name__ in kept]
    # Trainer looks for an entry of each counter when it writes the next checkpoint.
    value = kept.setdefault(type(counter).__name__, found[0] if found else counter.state())["attributes"][name]
    return int(value)
