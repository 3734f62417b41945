"""Serves POST /finetune for a small classifier of handwritten digits. See README.md beside this file.

The function below is all that Tunesmith needs: it is called in a process of its own, once for each request.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith import FinetuneAPI

HIDDEN = 128


def run_finetune_func(
    train_dataset_path: str,
    valid_dataset_path: str,
    test_dataset_path: str,
    param_dict: dict[str, Any],
    model_path: str,
    output_model_path: str,
) -> Iterator[dict[str, Any]]:
    """Train, keep the weights that do best on the validation rows, and yield a result after every step or epoch."""
    torch.manual_seed(param_dict["config_param"].get("seed", 0))
    torch.set_num_threads(1)  # such a small network is fastest on one
    train, valid, test = map(read_rows, (train_dataset_path, valid_dataset_path, test_dataset_path))
    network = new_network()
    if Path(model_path).is_file():
        network.load_state_dict(torch.load(model_path, weights_only=True))
    optimizer = torch.optim.AdamW(network.parameters(), lr=param_dict["lr"])

    by_step = param_dict["measurement"] == "step"
    best = Path(output_model_path) / ("best_model_step.pth" if by_step else "best_model_epoch.pth")
    best_accuracy = -1.0
    curves: dict[str, list[float]] = {"losses": [], "accuracies": [], "valid_losses": [], "valid_accuracies": []}
    batches = -(-len(train[1]) // param_dict["batch_size"])
    last = param_dict["total_epoch_number"] * (batches if by_step else 1)
    for idx, (loss, accuracy) in enumerate(measured(network, optimizer, train, param_dict, by_step=by_step), 1):
        valid_loss, valid_accuracy = score(network, valid)
        for curve, value in zip(curves.values(), (loss, accuracy, valid_loss, valid_accuracy), strict=True):
            curve.append(value)
        if valid_accuracy > best_accuracy:
            best_accuracy = valid_accuracy
            torch.save(network.state_dict(), best)
        if idx == last:
            network.load_state_dict(torch.load(best, weights_only=True))
        print(f"{param_dict['measurement']} {idx}: loss {loss:.4f}, valid_accuracy {valid_accuracy:.4f}")
        yield {
            "is_final": idx == last,
            "idx": idx,
            "fig_param": {"x_axis": list(range(1, idx + 1)), "x_label": param_dict["measurement"], **curves},
            "test_accuracy": score(network, test)[1],
        }


Rows = tuple[torch.Tensor, torch.Tensor]


def read_rows(path: str) -> Rows:
    """64 brightnesses from 0 to 16 and the digit, on each line of a CSV file."""
    rows = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    return rows[:, :64] / 16, rows[:, 64].long()


def new_network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


def measured(
    network: nn.Module, optimizer: torch.optim.Optimizer, train: Rows, params: dict[str, Any], *, by_step: bool
) -> Iterator[tuple[float, float]]:
    """Trains; loss and accuracy of each step, or the means of each epoch."""
    pixels, digits = train
    for _ in range(params["total_epoch_number"]):
        steps = []
        for rows in torch.randperm(len(digits)).split(params["batch_size"]):
            network.train()
            answers = network(pixels[rows])
            loss = nn.functional.cross_entropy(answers, digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append((loss.item(), (answers.argmax(1) == digits[rows]).float().mean().item()))
            if by_step:
                yield steps[-1]
        if not by_step:
            yield sum(loss for loss, _ in steps) / len(steps), sum(right for _, right in steps) / len(steps)


@torch.no_grad()
def score(network: nn.Module, rows: Rows) -> tuple[float, float]:
    """Loss and accuracy."""
    network.eval()
    pixels, digits = rows
    answers = network(pixels)
    right = (answers.argmax(1) == digits).float().mean().item()
    return nn.functional.cross_entropy(answers, digits).item(), right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits-data", help="where the service keeps everything")
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()
    FinetuneAPI("digits", run_finetune_func, Path(options.data) / "base.pth", options.data).start(port=options.port)
