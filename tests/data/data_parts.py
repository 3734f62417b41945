"""What the tests of data files share: rows, files made of them, and the worker programs called as the service does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith.contract.events import read_line
from tunesmith_workers.data.fast import Sorting, sort_out
from tunesmith_workers.data.process import Request as ProcessRequest
from tunesmith_workers.data.process import process
from tunesmith_workers.data.validate import Request as ValidateRequest
from tunesmith_workers.data.validate import validate

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
GOOD = {"messages": TURNS}
SHAREGPT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
SHAPES = {
    "messages": GOOD,
    "conversations": {"conversations": TURNS},
    "instruction": {"instruction": "say", "input": "hi", "output": "hello"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "preference": {"prompt": "a", "chosen": "good", "rejected": "bad"},
    "scored": {"prompt": "a", "response": "b", "score": 0.5},
    "prompt": {"prompt": "a"},
}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def verdict(path: Path, *, sorting: Sorting = sort_out, **options: Any) -> dict[str, Any]:
    return validate(ValidateRequest(file=str(path), **options), sorting)


def processed(
    path: Path, out: Path, ratios=(0.8, 0.1, 0.1), *, sorting: Sorting = sort_out, **options: Any
) -> dict[str, Any]:
    return process(ProcessRequest(input_file=str(path), output_dir=str(out), ratios=ratios, **options), sorting)


def everything(out: Path) -> list[Any]:
    """The rows of all three files."""
    return [row for name in ("train", "val", "test") for row in read(out / f"{name}.json")]


# A process that begins as a copy of a large one is charged with the memory of that one; this one is small.
_MEASURE = """
import os, subprocess, sys
program = subprocess.Popen([sys.executable, "-m", sys.argv[1]], stdin=subprocess.PIPE)
program.stdin.write(sys.argv[2].encode() + b"\\n")
program.stdin.flush()  # and left open, as the service leaves it
_, status, usage = os.wait4(program.pid, 0)
program.returncode = os.waitstatus_to_exitcode(status)
print("peak", usage.ru_maxrss * 1024, flush=True)
sys.exit(program.returncode)
"""


def call(module: str, request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """What the worker program answers, and how much memory it took at most, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, module, json.dumps(request)],
        env=clean_environment(),
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    [answer] = [event[1] for line in lines if (event := read_line(line)) and event[0] == "result"]
    [peak] = [int(line.split()[1]) for line in lines if line.startswith(b"peak ")]
    return answer, peak


texts = st.text(st.characters(codec="utf-8"), max_size=30)
_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "human", "gpt", "wizard"]), "content": texts}
    ),
    max_size=5,
)
_openai_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["developer", "user", "assistant", "function"]), "content": texts | st.none()},
    optional={
        "weight": st.sampled_from([0, 1, None, 0.5, True, "1"]),
        "name": texts,
        "refusal": texts | st.none(),
        "function_call": st.sampled_from([None, {"name": "f", "arguments": "{}"}, {"name": "f", "arguments": "x"}]),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
rows = st.one_of(
    st.fixed_dictionaries({"messages": _messages}, optional={"id": anything, "system": texts, "tools": anything}),
    st.fixed_dictionaries({"conversations": _messages}),
    st.fixed_dictionaries({"output": texts}, optional={"instruction": texts, "input": texts, "system": texts}),
    st.fixed_dictionaries({"prompt": texts | _messages}, optional={"completion": texts, "source": anything}),
    st.fixed_dictionaries({"prompt": texts, "chosen": texts | _messages, "rejected": texts}),
    st.fixed_dictionaries({"prompt": texts, "response": texts, "score": anything}),
    st.fixed_dictionaries({"messages": st.lists(_openai_message, max_size=3)}, optional={"functions": anything}),
    st.fixed_dictionaries(
        {"input": st.fixed_dictionaries({"messages": _messages}) | anything, "preferred_output": _messages},
        optional={"non_preferred_output": _messages, "id": anything},
    ),
    st.sampled_from(list(SHAPES.values())),
    st.just(GOOD),
    anything,
)
