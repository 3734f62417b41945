"""Measurements at Weights & Biases: with the real package where it is installed, and a warning where it is not."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_parts import COLOURS, RECIPES, Told, environment

from tunesmith_workers.reporting.lines import Ended, Measured, Opening, line_of
from tunesmith_workers.reporting.reporter import Reporter

INSTALLED = importlib.util.find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not INSTALLED, reason="the extra wandb is not installed")
_BLOCK = 32 * 1024


def opening(folder: Path, **changes: Any) -> Opening:
    known: dict[str, Any] = {"project": "colours", "name": None, "entity": None, "tags": ("a", "b")}
    of_run = {"run_id": "run_01", "resumes": False, "folder": str(folder), "config": {"training": {"seed": 3}}}
    return Opening(**{**known, **of_run, **changes})


def reported(said: bytes, **variables: str) -> Told:
    """What the process that reports tells, given these lines on its standard input."""
    finished = subprocess.run(
        [sys.executable, "-P", "-m", "tunesmith_workers.reporting.wandb_process"],
        input=said,
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return Told(finished.stdout + b"\n" + finished.stderr)


def records(folder: Path) -> Iterator[Any]:
    """What offline runs of wandb hold, in the order of time: records of LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        content, place, parts = file.read_bytes(), 7, b""
        while place + 7 <= len(content):
            if _BLOCK - place % _BLOCK < 7:
                place += _BLOCK - place % _BLOCK
                continue
            length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
            parts += content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                yield Record.FromString(parts)
                parts = b""


def history(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """The steps of a run at wandb, and what was logged at each."""
    found = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.append(
                (record.history.step.num, {name: value for name, value in items.items() if not name.startswith("_")})
            )
    return found


def run_lora(config: Path, **variables: str) -> tuple[int, Told]:
    finished = subprocess.run(
        ["bash", str(RECIPES / "lora" / "run.sh"), str(config)],
        env={**environment(config.parent), **variables},
        capture_output=True,
        check=False,
        timeout=100,
    )
    return finished.returncode, Told(finished.stdout + b"\n" + finished.stderr)


@pytest.mark.training
@pytest.mark.skipif(INSTALLED, reason="the extra wandb is installed")
def test_without_the_package_a_training_warns_once_and_goes_on(write_rows, write_config):
    """The warning says what to install, and the model is there."""
    config = write_config(write_rows(COLOURS), reporting={"wandb": {"project": "colours"}})
    code, told = run_lora(config)
    assert code == 0, told.text
    (warning,) = [one for one in told.of("message") if one.get("where") == "reporting.wandb"]
    assert warning["level"] == "warning"
    assert "package cannot be imported" in warning["text"]
    assert "tunesmith[wandb]" in warning["mend"]
    assert (config.parent / "output" / "adapter_model.safetensors").exists()
    assert len(told.losses) == 12


@pytest.mark.training
@needs_wandb
def test_every_measurement_is_at_wandb_at_its_step(write_rows, write_config):
    """Under our own names, with the config, the tags and the run's id; wandb's own words are not in the log."""
    sent = {"wandb": {"project": "colours", "tags": ["mine"]}}
    config = write_config(
        write_rows(COLOURS), reporting=sent, evaluation={"strategy": "steps", "steps": 6, "holdout_share": 0.2}
    )
    code, told = run_lora(config, WANDB_MODE="offline", TUNESMITH_RUN_ID="run_01ABC")
    assert code == 0, told.text
    assert told.said("measurements are reported to wandb: kept in")
    assert not any(line.startswith("wandb:") for line in told.text.splitlines())
    expected: dict[int, dict[str, float]] = {}
    for measured in told.of("metrics"):
        known = {name: value for name, value in measured.items() if name not in ("step", "total_steps", "at")}
        expected.setdefault(measured["step"], {}).update(known)
    assert dict(history(config.parent)) == {step: pytest.approx(values) for step, values in expected.items()}
    assert {"loss", "eval_loss", "token_accuracy"} <= set(expected[6])
    (run,) = [record.run for record in records(config.parent) if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.display_name, run.project, list(run.tags)) == (
        "run_01ABC",
        "run_01ABC",
        "colours",
        ["mine"],
    )
    kept = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert kept["training"]["max_steps"] == 12
    (ended,) = [record.exit for record in records(config.parent) if record.WhichOneof("record_type") == "exit"]
    assert ended.exit_code == 0


def attempt(folder: Path, steps: list[int], value: float, *end: Ended, **opened: Any) -> Told:
    """What the process tells that is given the measurements of one attempt, without a network."""
    measured = [Measured(step=step, values={"loss": step + value}) for step in steps]
    return reported(b"".join(map(line_of, [opening(folder, **opened), *measured, *end])), WANDB_MODE="offline")


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(step, values["loss"]) for step, values in history(folder)]


@needs_wandb
def test_another_attempt_goes_on_in_the_same_run_at_wandb(tmp_path):
    """Steps never go back: those that were logged before are left out."""
    attempt(tmp_path, [1, 2, 3], 0.0, Ended(exit_code=0))
    attempt(tmp_path, [2, 3, 4], 0.5, Ended(exit_code=0), resumes=True)
    attempt(tmp_path, [4], 0.9, Ended(exit_code=0), resumes=True)
    assert {record.run.run_id for record in records(tmp_path) if record.WhichOneof("record_type") == "run"} == {
        "run_01"
    }
    assert losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]


@needs_wandb
def test_what_a_killed_attempt_took_with_it_is_logged_again(tmp_path):
    """Nobody knows what of it wandb had written down; here all of it is lost. No warning is told: the run goes on."""
    told = attempt(tmp_path, [1, 2, 3], 0.0)
    assert [one["level"] for one in told.of("message")] == ["info"]
    for lost in (tmp_path / "wandb").glob("offline-run-*"):
        shutil.rmtree(lost)
    attempt(tmp_path, [3, 4], 0.5, Ended(exit_code=0), resumes=True)
    assert losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]
    attempt(tmp_path, [5], 0.0, Ended(exit_code=0), resumes=True)
    assert losses(tmp_path)[4:] == [(5, 5.0)]


@needs_wandb
def test_a_training_by_hand_is_a_run_at_wandb_of_its_own(tmp_path):
    """Unless it resumes: then it is the one before."""
    ended = Ended(exit_code=0)
    attempt(tmp_path, [1], 0.0, ended, run_id=None)
    attempt(tmp_path, [1], 0.5, ended, run_id=None)
    attempt(tmp_path, [1, 2], 0.0, ended, run_id=None, resumes=True)
    first, second, third = (
        record.run.run_id for record in records(tmp_path) if record.WhichOneof("record_type") == "run"
    )
    assert first != second == third
    assert losses(tmp_path) == [(1, 1.0), (1, 1.5), (2, 2.0)]


@needs_wandb
@pytest.mark.parametrize(
    ("variables", "words", "mend"),
    [
        ({"WANDB_API_KEY": ""}, "No API key configured", "list WANDB_* in run_environment"),
        (
            {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "connection refused",
            "see that this machine reaches it",
        ),
    ],
)
def test_what_cannot_be_sent_is_kept(tmp_path, variables, words, mend):
    """No key, and nobody there: one warning with what to do, and the measurements are on the disk."""
    said = [opening(tmp_path), Measured(step=1, values={"loss": 1.0}), Ended(exit_code=0)]
    told = reported(b"".join(map(line_of, said)), HOME=str(tmp_path), WANDB_MODE="online", **variables)
    (warning,) = told.of("message")
    assert warning["level"] == "warning"
    assert words in warning["text"]
    assert mend in warning["mend"]
    assert history(tmp_path) == [(1, {"loss": 1.0})]


def test_a_training_never_waits_for_one_that_does_not_read(tmp_path, capfdbinary):
    """Measurements beyond what the pipe holds are left out, and the end is waited for no longer than was said."""
    reporter = Reporter(opening(tmp_path))
    os.kill(reporter._process.pid, signal.SIGSTOP)
    for step in range(20_000):
        reporter.measured(step, {"loss": 1.0, "broken": float("nan"), "named": "text"})
    reporter.end(0, 0.1)
    (warning,) = Told(capfdbinary.readouterr().out).of("message")
    assert warning["level"] == "warning"
    assert "not everything had arrived at wandb" in warning["text"]
    assert warning["mend"].endswith(f"{tmp_path}/wandb")


def test_one_that_has_gone_costs_nothing(tmp_path, capfdbinary):
    """The pipe is broken: measurements go nowhere, and the end says so once."""
    reporter = Reporter(opening(tmp_path))
    reporter._process.kill()
    reporter._process.wait()
    for step in range(3):
        reporter.measured(step, {"loss": 1.0})
    reporter.end(0, 10)
    (warning,) = Told(capfdbinary.readouterr().out).of("message")
    assert warning["text"] == "the process that reports to wandb ended with -9"
