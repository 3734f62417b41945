"""The demo's plot on throwaway recipes: what it prints, how it ends, and that it leaves nothing running."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import ServerProcess, polled, write_recipe
from support.tiny_model import save_tiny_model, tiny_tokenizer
from tunesmith.demo.orders import DEMO_HYPERPARAMS
from tunesmith.server.state_lock import holder

TRAIN = r"""
for i in 1 2; do echo "{\"tunesmith\":\"metrics\",\"step\":$i,\"total_steps\":2,\"loss\":0.$i}"; done
while [ -e "$(dirname "$1")/../../hold" ]; do sleep 0.02; done
if [ -e "$(dirname "$1")/../../fail" ]; then
  echo '{"tunesmith":"message","level":"error","text":"the loss is not a number","mend":"lower the rate"}'
  exit 1
fi
cp "$(dirname "$1")/../../models/SmolLM2-135M-Instruct/"* "$TUNESMITH_OUTPUT_DIR"
touch "$TUNESMITH_OUTPUT_DIR/trained"
echo "{\"tunesmith\":\"result\",\"model\":\"$TUNESMITH_OUTPUT_DIR\"}"
"""
EVALUATE = r"""
model=$(sed -n 's/^ *base: //p' "$1")
score=0.0
if [ -e "$model/trained" ]; then score=0.95; fi
echo "{\"predicted\":\"the score will be $score\"}" > "$TUNESMITH_OUTPUT_DIR/predictions.jsonl"
echo "{\"tunesmith\":\"result\",\"metrics\":{\"exact_match\":$score}}"
"""
NULLABLE = {"type": "str", "optional": True}


@pytest.fixture
def stage(cli: Cli) -> Path:
    """A folder with a model and the two recipes, as small as they get; answers the state folder."""
    config: dict[str, dict[str, object]] = {
        "model": {"base": None},
        "data": {"train_file": None},
        "evaluation": {"max_new_tokens": 256},
    }
    schema = {"model.base": NULLABLE, "data.train_file": NULLABLE}
    write_recipe(
        cli.folder / "recipes", "evaluate", EVALUATE, config, kind="evaluate", data=["messages"], schema=schema
    )
    for path, value in DEMO_HYPERPARAMS.items():
        section, _, name = path.partition(".")
        config.setdefault(section, {})[name] = value
    write_recipe(cli.folder / "recipes", "lora", TRAIN, config, data=["messages"], schema=schema)
    state = cli.folder / "state"
    save_tiny_model(state / "models" / "SmolLM2-135M-Instruct", tiny_tokenizer())
    return state


def processes_below(state: Path) -> list[str]:
    """Commands of processes that have a file of this folder open, or name it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(state) in command:
                found.append(command)
    return found


def _is_free(state: Path) -> bool:
    return any(free for free in polled(lambda: holder(state / "lock") is None) if free)


def test_the_demo_shows_before_and_after(cli: Cli, stage: Path) -> None:
    """It ends with the two scores, a worked example, the files and what to try; its own service is gone, its state stays."""
    played = cli("demo")
    assert played.returncode == 0, played.stderr
    lines = [line.split() for line in played.stdout.splitlines()]
    assert ["before", "0", "of", "60", "0%"] in lines
    assert ["after", "57", "of", "60", "95%"] in lines
    assert "2/3 training: step 2/2  loss 0.2" in played.stdout
    assert '"customer":' in played.stdout
    assert "the score will be 0.95" in played.stdout
    assert "tunesmith runs list" in played.stdout
    assert "POST /api/inference/chat" in played.stdout
    assert not processes_below(stage)
    assert _is_free(stage)
    assert len((stage / "demo" / "train.jsonl").read_text().splitlines()) == 400
    assert len((stage / "demo" / "held_out.jsonl").read_text().splitlines()) == 60
    assert len(list((stage / "runs").glob("run_*/run.log"))) == 3


def test_the_demo_uses_a_service_that_runs(cli: Cli, stage: Path) -> None:
    """A server that holds the folder is used and left alone; --json prints the outcome and nothing else."""
    with ServerProcess.start(stage, cli.folder / "recipes") as server:
        played = cli("demo", "--json", "--steps", 7)
        assert played.returncode == 0, played.stderr
        outcome = json.loads(played.stdout)
        assert outcome["after"]["exact_match"] == 0.95
        assert isinstance(outcome["chat"]["answer"], str)
        with server.client() as client:
            # The service goes on, and with it the engine that is kept warm for the next question.
            (engine,) = client.get("/api/v1/deployments").json()
            assert engine["on_demand"]
            client.delete(f"/api/v1/deployments/{engine['deployment_id']}").raise_for_status()
            training = client.get(f"/v1/runs/{outcome['training_id']}").json()
        assert training["hyperparams"]["training.max_steps"] == 7
        assert server.stop() == 0


def test_a_failed_training_ends_the_demo_with_its_reason(cli: Cli, stage: Path) -> None:
    """Exit code 1, with what the run said, where its log is, and no service left behind."""
    (stage / "fail").touch()
    played = cli("demo")
    assert played.returncode == 1
    assert "the loss is not a number (lower the rate)" in played.stderr
    assert "run.log" in played.stderr
    assert _is_free(stage)


def test_interrupting_the_demo_stops_the_run_and_the_service(cli: Cli, stage: Path) -> None:
    """Ctrl-C cancels the run under way before the service goes; nothing goes on in the background."""
    (stage / "hold").touch()
    with cli.start("demo") as demo:
        assert demo.stdout is not None
        assert any("step 2/2" in line for line in iter(demo.stdout.readline, ""))
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=100)
    assert demo.returncode == 130
    assert "stopping run" in rest
    assert "stopped; what is done so far is kept" in errors
    assert _is_free(stage)
    last = json.loads((stage / "runs.jsonl").read_text().splitlines()[-1])
    assert last["data"]["state"] == "cancelled"


def test_the_demo_says_what_it_misses(cli: Cli) -> None:
    """Outside a clone it names the recipes it needs and the flag; with a bad model name it fetches nothing."""
    missing = cli("demo")
    assert missing.returncode == 1
    assert "--recipes-dir" in missing.stderr
    assert not (cli.folder / "state").exists()


LOSES_THE_FIRST = """
import os, signal
from tunesmith.demo import interrupts

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)  # what is raised in here is lost

interrupts.listen()
try:
    Finalized()
    print("lost", flush=True)
    signal.pause()
except KeyboardInterrupt:
    interrupts.heard()
    print("heard", flush=True)
signal.sigtimedwait([], 2)
print("not again", flush=True)
"""


def test_an_interrupt_that_is_lost_is_raised_again_until_it_is_heard() -> None:
    """Python drops what is raised in a finalizer; Ctrl-C in such a moment still ends the demo, and only once."""
    ended = subprocess.run(
        [sys.executable, "-c", LOSES_THE_FIRST], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split("\n") == ["lost", "heard", "not again", ""]
