"""A Trainer with other hooks than ours is refused before anything is trained, naming the version."""

from __future__ import annotations

import pytest
from transformers import Trainer

from tunesmith_workers.process.faults import WorkerFault
from tunesmith_workers.training.hooks import refuse_other_hooks
from tunesmith_workers.training.trainer import _REPLACED, FineTuner


class Theirs:
    """A trainer as it was when ours was written."""

    scaled = None

    def train(self, batch):
        return self.step(batch, scaled=self.scaled)

    def step(self, batch, scaled=None):
        return batch, scaled


class Ours(Theirs):
    def step(self, batch, scaled=None):
        return None


def test_the_trainer_that_is_installed_is_the_one_that_is_known():
    """Every method that is replaced exists there, takes the same, and is called."""
    refuse_other_hooks(FineTuner, Trainer, _REPLACED)


def test_all_that_is_replaced_is_checked():
    """Whatever of Trainer this class defines anew."""
    replaced = {name for name in vars(FineTuner) if hasattr(Trainer, name) and not name.startswith("__")}
    assert replaced <= set(_REPLACED)


class Renamed(Theirs):
    """The old name stays for those who call it, and is not called any more."""

    def train(self, batch):
        return self.perform_step(batch)

    def perform_step(self, batch):
        return batch


class Longer(Theirs):
    def step(self, batch, scale=None, device=None):
        return batch


class Gone:
    def train(self, batch):
        return batch


class Nested(Theirs):
    """Calls the step from within something else, which counts."""

    def train(self, batch):
        return [self.step(row) for row in batch]


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (Gone, "Gone.step does not exist in transformers 9.9"),
        (Longer, r"Longer.step takes \(self, batch, scale, device\) and not \(self, batch, scaled\)"),
        (type("Renamed", (), dict(vars(Renamed), step=Theirs.step)), "Renamed.step is not called any more"),
    ],
)
def test_another_trainer_is_refused(theirs, reason):
    """What differs is said, with the version to blame."""
    with pytest.raises(WorkerFault, match=reason) as refused:
        refuse_other_hooks(Ours, theirs, ("step",), "9.9")
    assert refused.value.where == "transformers 9.9"
    assert refused.value.mend


@pytest.mark.parametrize("theirs", [Theirs, Nested])
def test_what_is_called_from_within_is_found(theirs):
    """Also in a function within a method."""
    refuse_other_hooks(Ours, theirs, ("step",), "9.9")
