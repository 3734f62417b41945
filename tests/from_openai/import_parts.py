"""Two real servers: one plays OpenAI, with jobs in it; the other is the new home. And the command with the real SDK."""

from __future__ import annotations

import importlib.util
import json
import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from support.server import polled, write_recipe

SRC = Path(__file__).parents[2] / "src"
PYTHONS = [path for path in os.environ.get("TUNESMITH_TEST_OPENAI_PYTHONS", "").split(":") if path]
HAS_SDK = importlib.util.find_spec("openai") is not None
NO_SDK = "openai is not installed, and TUNESMITH_TEST_OPENAI_PYTHONS names no interpreter that has it"
KEY = "sk-nobody-may-see-this"
OLD_MODEL = "gpt-4o-mini-2024-07-18"
UNKNOWN_MODEL = "gpt-9-2030-01-01"
"""Nothing stands for it by itself."""

# What a training needs of a recipe's options, without a training.
_OPTIONS = {
    "training": {
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.0002,
        "logging_steps": 5,
        "seed": 42,
    },
    "checkpoint": {"save_steps": 500},
    "data": {"train_file": None, "validation_file": None},
    "model": {"base": None},
}
_SCRIPT = """
if grep -q 'num_train_epochs: 9' "$1"; then exit 3; fi
echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'
printf '{"tunesmith":"result","model":"%s"}\\n' "$TUNESMITH_OUTPUT_DIR"
"""


def python_with_sdk() -> tuple[str, dict[str, str]]:
    """An interpreter that has both the SDK and all that tunesmith needs, and the variables that make it so."""
    if HAS_SDK:
        return sys.executable, {}
    return PYTHONS[0], {"PYTHONPATH": os.pathsep.join([str(SRC), *site.getsitepackages(), *_beside()])}


def _beside() -> list[str]:
    """Where an environment that lends from another one finds the rest."""
    return [path for path in sys.path if path.endswith("site-packages") and path not in site.getsitepackages()]


def write_lora(recipes: Path) -> None:
    """A recipe of that name which ends at once; it fails when nine epochs are asked for."""
    write_recipe(
        recipes,
        "lora",
        _SCRIPT,
        _OPTIONS,
        data=["messages"],
        schema={"data.validation_file": {"type": "str", "optional": True}},
    )


def rows(count: int, about: str = "number") -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"{about} {n}?"}, {"role": "assistant", "content": str(n)}]}
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def upload(client: httpx.Client, content: bytes, name: str) -> str:
    answer = client.post("/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def finished_job(client: httpx.Client, **request: object) -> dict:
    """A job of the old service, once it is over."""
    answer = client.post("/v1/fine_tuning/jobs", json={"model": OLD_MODEL} | request)
    assert answer.status_code == 200, answer.text
    for job in polled(lambda: client.get(f"/v1/fine_tuning/jobs/{answer.json()['id']}").json()):
        if job["status"] in ("succeeded", "failed"):
            return job
    raise AssertionError(f"the job does not end: {job}")


def hyperparameters(**numbers: object) -> Mapping[str, object]:
    return {"type": "supervised", "supervised": {"hyperparameters": numbers}}
