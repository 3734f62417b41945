"""A config means the same to the service and to the worker that gets it: one reader, YAML 1.2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import safe_yaml
from tunesmith.errors import InvalidInput, TunesmithError
from tunesmith_workers.process.config import TrainConfig, read_config
from tunesmith_workers.process.faults import BadConfig

LORA = Path(__file__).parents[2] / "recipes/lora/recipe.yaml"
# Each line is ten times the one before it.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


def read(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_config(TrainConfig, path, LORA)


def test_what_people_write_is_what_they_mean(tmp_path):
    """Where YAML 1.1 would read text, an octal number, a switch, a date or minutes and seconds."""
    text = """
model: {base: 2026-11-20}
data: {train_file: 12:30:45, chat_template: off, max_length: 0100}
training: {learning_rate: 1e-4, num_train_epochs: 3, accelerate: off}
"""
    config = read(tmp_path, text)
    assert (config.training.learning_rate, config.data.max_length) == (1e-4, 100)
    assert (config.base, config.data.train_file, config.data.chat_template) == ("2026-11-20", "12:30:45", "off")
    assert config.training.accelerate == "off"
    service = safe_yaml.load(text, source="config.yaml")
    assert service["training"] == {"learning_rate": 1e-4, "num_train_epochs": 3, "accelerate": "off"}
    assert service["data"] == {"train_file": "12:30:45", "chat_template": "off", "max_length": 100}


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("training: {}\ntraining: {}\n", "gives the key 'training' twice", 2),
        ("lora: {r: 8,\n  r: 16}\n", "gives the key 'r' twice", 2),
        (BOMB, "holds more than", 5),
        ("training: !!python/object/apply:os.system ['true']\n", "uses the tag", 1),
        ("base: &b {r: 8}\nlora: {<<: *b}\n", "merge key", 2),
        ("training: [\n", "is not valid YAML", 2),
        ("training: {}\n---\nlora: {}\n", "more than one document", 2),
    ],
)
def test_both_refuse_the_same_with_the_line(tmp_path, text, said, line):
    """A worker that is started by hand, too."""
    with pytest.raises(BadConfig, match=said) as by_worker:
        read(tmp_path, text)
    with pytest.raises(InvalidInput, match=said) as by_service:
        safe_yaml.load(text, source=str(tmp_path / "config.yaml"))
    assert by_worker.value.where == by_service.value.where == f"{tmp_path / 'config.yaml'}:{line}"
    assert by_worker.value.mend == by_service.value.mend
    assert by_worker.value.text == by_service.value.message


def test_endless_configs_are_not_read(tmp_path):
    """Before anything is parsed."""
    with pytest.raises(BadConfig, match="at most 16777216 are read"):
        read(tmp_path, "#" * (16 * 1024 * 1024 + 1))
    with pytest.raises(TunesmithError, match="at most 5242880 are read"):
        safe_yaml.load("#" * (5 * 1024 * 1024 + 1), source="config.yaml")
