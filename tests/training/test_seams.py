"""A new way to train is an objective and a program: nothing else needs to know of it."""

from __future__ import annotations

import pytest
import torch
from training_parts import COLOURS, Told, chat, config_and_folders

from tunesmith_workers.examples.batches import rows_of, targets_of
from tunesmith_workers.examples.rendering import IGNORED
from tunesmith_workers.objectives.base import BatchLoss
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.process.stopping import StopRequest
from tunesmith_workers.programs.training import Started, run
from tunesmith_workers.weights.full import FullWeights
from tunesmith_workers.weights.lora import LoraWeights

pytestmark = [
    pytest.mark.training,
    # What the libraries say to each other in a training is quieted in a worker, and no promise of ours.
    pytest.mark.filterwarnings("default"),
]


class EveryRowCountsTheSame(TokenCrossEntropy):
    """The mean over rows of each row's mean, however long its answer is."""

    def items(self, batch):
        return torch.tensor(len(rows_of(batch)))

    def loss(self, logits, model, batch, *, measures=False):
        predicted, wanted = logits(model, batch)
        each = torch.nn.functional.cross_entropy(predicted.float(), wanted, reduction="none")
        answers = [int((row != IGNORED).sum()) for row in torch.split(targets_of(batch), batch["lengths"])]
        total = torch.stack([answer.mean() for answer in torch.split(each, answers)]).sum()
        spread = torch.tensor(float(max(answers))) * len(answers)
        return BatchLoss(total, len(answers), {"longest_answer": spread} if measures else {})


@pytest.fixture
def train(write_rows, write_config, capfdbinary):
    def train(weights, accelerate: str) -> Told:
        rows = [*COLOURS[:12], *(chat(f"say {n}", "so " * n) for n in range(1, 13))]
        path = write_config(
            write_rows(rows),
            training={"accelerate": accelerate, "max_steps": 5, "per_device_train_batch_size": 4},
            model={"dtype": "float32"},
        )
        config, folders = config_and_folders(path, "sft" if isinstance(weights, FullWeights) else "lora")
        run(weights, EveryRowCountsTheSame(), Started(config, folders, StopRequest()))
        return Told(capfdbinary.readouterr().out)

    return train


@pytest.mark.parametrize("weights", [LoraWeights, FullWeights])
def test_an_objective_of_ones_own_trains_with_all_that_the_loop_has(train, weights, two_threads):
    """In parts and packed as in one piece and padded; its metrics are logged; the model is saved."""
    plain, fast = train(weights(), "off"), train(weights(), "auto")
    assert len(plain.losses) == 5
    assert plain.losses[-1] < plain.losses[0]
    assert fast.losses == pytest.approx(plain.losses, abs=1e-4)
    assert fast.said("packed batches")
    for told in (plain, fast):
        assert all(fields["longest_answer"] >= 1 for fields in told.of("metrics") if "loss" in fields)
        assert told.of("result")


@pytest.fixture
def two_threads():
    """Forked workers have a thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
