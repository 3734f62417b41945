"""The shipped recipes' options with programs that end at once or when told to, and steps of the train-task door over HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.server import polled

SHIPPED = Path(__file__).parents[2] / "recipes"
ROW = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'

TRAINS = r"""
echo '{"tunesmith":"metrics","step":5,"total_steps":10,"epoch":0.5,"loss":0.5,"learning_rate":0.0002}'
while [ -e "$(dirname "$0")/hold" ]; do sleep 0.02; done
mkdir -p "$TUNESMITH_OUTPUT_DIR/sub"
head -c 2000000 /dev/zero > "$TUNESMITH_OUTPUT_DIR/sub/adapter_model.safetensors"
printf '{}' > "$TUNESMITH_OUTPUT_DIR/adapter_config.json"
ln -s /etc/hostname "$TUNESMITH_OUTPUT_DIR/link"
mkfifo "$TUNESMITH_OUTPUT_DIR/pipe"
echo '{"tunesmith":"metrics","step":10,"total_steps":10,"epoch":1.0,"loss":0.25,"learning_rate":0.0}'
echo "{\"tunesmith\":\"result\",\"model\":\"$TUNESMITH_OUTPUT_DIR\",\"metrics\":{}}"
"""
EXPORTS = r"""
while [ -e "$(dirname "$0")/hold" ]; do sleep 0.02; done
mkdir -p "$TUNESMITH_OUTPUT_DIR"
printf graph > "$TUNESMITH_OUTPUT_DIR/model.onnx"
printf '{}' > "$TUNESMITH_OUTPUT_DIR/tokenizer.json"
cat "$1" > "$TUNESMITH_OUTPUT_DIR/config.yaml"
echo '{"tunesmith":"result","metrics":{"max_abs_diff":0.00002,"greedy_agreement":1.0,"bytes":5.0,"opset_version":18.0}}'
"""
SCORES = r"""
printf '{}' > "$TUNESMITH_OUTPUT_DIR/report.json"
echo "{\"tunesmith\":\"artifact\",\"path\":\"$TUNESMITH_OUTPUT_DIR/report.json\",\"kind\":\"report\"}"
echo '{"tunesmith":"metrics","loss":0.5,"exact_match":1.0}'
echo '{"tunesmith":"result","metrics":{"loss":0.5,"exact_match":1.0,"rows":1}}'
"""
FAILS = """
echo '{"tunesmith":"message","level":"error","text":"out of cheese","where":"cheese","mend":"buy some"}'
exit 7
"""


def script(body: str) -> str:
    return f"#!/usr/bin/env bash\n# For the tests.\nset -euo pipefail\n{body.strip()}\n"


def write_home(home: Path) -> Path:
    """Recipes, a model and rows, as the tests name them."""
    shutil.copytree(SHIPPED, home / "recipes")
    programs = {"sft": FAILS, "export-onnx": EXPORTS, "evaluate": SCORES}
    for run_sh in home.glob("recipes/*/run.sh"):
        run_sh.write_text(script(programs.get(run_sh.parent.name, TRAINS)))
    (home / "model").mkdir()
    (home / "rows.jsonl").write_text(ROW)
    return home


def start(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/train/start", json=fields)
    assert answer.status_code == 200, answer.text
    started: dict[str, Any] = answer.json()
    return started


def status(client: httpx.Client, task_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/api/train/status/{task_id}").raise_for_status().json()
    return shown


def ended(client: httpx.Client, task_id: str) -> dict[str, Any]:
    """The task once it is over."""
    for task in polled(lambda: status(client, task_id)):
        if task["status"] in ("completed", "failed", "cancelled"):
            return task
    raise AssertionError(f"the task is still {task}")


def config_of(home: Path, run_id: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((home / "state/runs" / run_id / "config.yaml").read_text())
    return config
