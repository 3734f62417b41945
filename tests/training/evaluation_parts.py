"""What the tests of evaluations share: running one in this process, and reading what it left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from training_parts import RECIPES, Told

from tunesmith_workers.evaluation.scoring import evaluate
from tunesmith_workers.process.config import EvaluateConfig, Folders, read_config


class Evaluated:
    """What an evaluation printed and wrote."""

    def __init__(self, told: Told, output: Path) -> None:
        self.told = told
        self.output = output

    @property
    def result(self) -> dict[str, Any]:
        [result] = self.told.of("result")
        return result

    @property
    def metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = self.result["metrics"]
        return metrics

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.output / "report.json").read_bytes())
        return report

    @property
    def page(self) -> str:
        return (self.output / "report.html").read_text()

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "predictions.jsonl").read_bytes().splitlines()]


def write_evaluation(
    folder: Path, model: Path | str, rows: Path, model_section: dict[str, Any] | None = None, **scoring
):
    """The config of an evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    content = {
        "model": {"base": str(model), **(model_section or {})},
        "data": {"train_file": str(rows)},
        "evaluation": {"max_new_tokens": 8, **scoring},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def evaluate_here(path: Path, printed) -> Evaluated:
    """Run it in this process; ``printed`` is capfdbinary."""
    config = read_config(EvaluateConfig, path, RECIPES / "evaluate" / "recipe.yaml")
    folders = Folders(run=path.parent, output=path.parent / "output", resume_from=None)
    printed.readouterr()
    evaluate(config, folders)
    return Evaluated(Told(printed.readouterr().out), folders.output)
