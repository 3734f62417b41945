"""The recipe evaluate-evalscope: the real evalscope scores a model that is really served, over HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from real_parts import ROOT, deployed

from support.server import start_run, wait_for_run

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

PYTHON = Path(os.environ.get("EVALSCOPE_PYTHON") or ROOT / ".venvs" / "evalscope" / "bin" / "python")
ROWS = [
    {
        "messages": [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": said},
        ]
    }
    for said in ("The capital of France is Paris.", "zebras")
]


def scored(client, rows: Path, **model) -> dict:
    hyperparams = {"model": model, "evaluation": {"max_new_tokens": 32}}
    dataset, base = {"name": str(rows)}, "evaluated"
    run_id = start_run(client, "evaluate-evalscope", model=base, dataset=dataset, hyperparams=hyperparams)
    return wait_for_run(client, run_id, seconds=300)


@pytest.fixture
def rows(home) -> Path:
    path = home / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.skipif(not PYTHON.exists(), reason="no evalscope: `nox -s evalscope_venv` installs it")
def test_a_deployment_is_scored_by_evalscope(client, real_model, rows):
    """One of two answers is the expected one to the letter: half of each ROUGE. The report and its page are artifacts."""
    found = deployed(client, "transformers", str(real_model), name="evaluated")
    address = f"http://127.0.0.1:{found['port']}/v1"
    run = scored(client, rows, url=address, url_model=found["served_models"][0])
    assert run["status"] == "succeeded", run
    assert run["metrics"]["rouge_l_f1"] == 0.5
    assert not [name for name in run["metrics"] if name.startswith("bleu")], "evalscope gives 0 without NLTK's data"
    kinds = {one["kind"] for one in client.get(f"/v1/runs/{run['run_id']}/artifacts").json()["artifacts"]}
    assert kinds >= {"report", "report_page"}
    silent = scored(client, rows, url="http://127.0.0.1:9/v1", url_model="small")
    assert silent["status"] == "failed"
