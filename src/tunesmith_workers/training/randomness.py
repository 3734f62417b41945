"""The random numbers a step starts from, kept so that a stop in the middle of the step can be taken back to its start.

A checkpoint that is written between two batches of one optimizer step belongs to the step before: the gradients so far
are dropped, and with them the random numbers that dropout used for them must be given back.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Randomness:
    """The state of all generators, as Trainer saves it."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002  # the generator that Trainer saves
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        """Set all generators to it."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002  # see above
        torch.set_rng_state(self._cpu)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)

    def differs_from(self, other: Randomness) -> bool:
        """Whether any number was drawn between the two."""
        (_, *numbers), (_, *theirs) = self._numpy, other._numpy
        same = self._python == other._python and all(map(np.array_equal, numbers, theirs))
        return not (same and all(map(torch.equal, [self._cpu, *self._cuda], [other._cpu, *other._cuda])))


class StepStart(TrainerCallback):
    """Remembers the state of all generators where a resumed Trainer will set them again.

    Resuming at the start of an epoch sets them before the data loader draws its seed, and anywhere else after it.
    """

    def __init__(self) -> None:
        self._kept: Randomness | None = None
        self._epoch_begins = False
        self.inside_step = False
        """Whether some batches of a step, but not all, are done."""

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self._kept = Randomness()
        self._epoch_begins = True

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        if not self._epoch_begins:
            self._kept = Randomness()
        self._epoch_begins = False

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self.inside_step = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002  # Trainer's signature
        self.inside_step = False

    def go_back(self) -> None:
        """Set all generators to where the step began."""
        if self._kept is not None:
            self._kept.restore()
