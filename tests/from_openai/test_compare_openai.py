"""Two models are asked the same rows by the real SDK, one at what plays OpenAI, and scored as evaluations are."""

from __future__ import annotations

import json
import subprocess

import pytest
from import_parts import KEY, OLD_MODEL

from support.tiny_model import save_tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.sdk, pytest.mark.timeout(280)]

ROWS, TOKENS = 6, 5


@pytest.fixture
def other(tiny):
    """Another model than the old one."""
    folder = tiny.with_name("other")
    return folder if folder.exists() else save_tiny_model(folder, tiny_tokenizer(), seed=1)


@pytest.fixture
def held_out(home, other, tmp_path):
    """Rows whose right answers are what the new model says."""
    lines = []
    with home.client() as client:
        for number in range(ROWS):
            asked = [{"role": "user", "content": f"what is {number}?"}]
            request = {"model": str(other), "messages": asked, "temperature": 0, "max_tokens": TOKENS}
            answer = client.post("/v1/chat/completions", json=request).raise_for_status().json()
            said = answer["choices"][0]["message"]["content"]
            lines.append({"messages": [*asked, {"role": "assistant", "content": said or "nothing"}]})
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def comparing(command, environment, tmp_path):
    """Compares, to the end."""

    def run(url, *args):
        done = subprocess.run(
            command("compare-openai", "--openai-base-url", url, "--max-tokens", TOKENS, *args),
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert KEY not in done.stdout + done.stderr
        return done

    return run


def test_both_are_asked_and_compared(comparing, old, home, other, held_out, tmp_path):
    """Answers as JSON lines, a verdict, a page; asked again, nobody is asked; without the old one, the new one is scored."""
    url = f"{old.url}/v1"
    done = comparing(url, OLD_MODEL, other, held_out, "--json")
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} rows: about" in done.stderr
    report = json.loads(done.stdout)
    first, second = report["models"]
    assert first["label"] == f"{OLD_MODEL} at OpenAI"
    assert second["metrics"]["exact_match"]["value"] == 1
    assert first["metrics"]["exact_match"]["value"] < 1
    assert report["comparisons"][0]["verdict"].startswith("better by")
    folder = tmp_path / "comparison"
    answers = [json.loads(line) for line in (folder / "new_answers.jsonl").read_text().splitlines()]
    assert [one["where"].rpartition(":")[2] for one in answers] == [str(number + 1) for number in range(ROWS)]
    assert all(one["completion_tokens"] for one in answers)
    assert OLD_MODEL in (folder / "report.html").read_text()

    kept = (folder / "old_answers.jsonl").read_bytes()
    again = comparing("http://127.0.0.1:9/v1", OLD_MODEL, other, held_out)
    assert again.returncode == 0, again.stderr
    assert "better by" in again.stdout
    assert (folder / "old_answers.jsonl").read_bytes() == kept

    alone = comparing("http://127.0.0.1:9/v1", OLD_MODEL, other, held_out, "--output", "alone", "--rows", 2)
    assert alone.returncode == 1
    assert f"{OLD_MODEL} at OpenAI does not answer: OpenAI cannot be reached" in alone.stderr
    assert "exact_match" in alone.stdout
    report = json.loads((tmp_path / "alone" / "report.json").read_text())
    assert [one["label"] for one in report["models"]] == [f"{other} here"]
    assert report["rows"] == 2


def test_what_cannot_be_compared_is_told_before_anybody_is_asked(comparing, old, tmp_path):
    """Rows without an answer, metrics that are none or need more than answers, models that nobody knows."""
    url = f"{old.url}/v1"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    assert "rows.jsonl:1" in comparing(url, OLD_MODEL, "m", rows).stderr
    rows.write_text('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n')
    assert "did you mean exact_match" in comparing(url, OLD_MODEL, "m", rows, "--metric", "exactmatch").stderr
    assert "from answers alone" in comparing(url, OLD_MODEL, "m", rows, "--metric", "loss").stderr
    neither = comparing(url, "nobody-1", "nobody-2", rows)
    assert neither.returncode == 1
    assert "neither model answers" in neither.stderr
    assert "nobody-2 here does not answer" in neither.stderr
