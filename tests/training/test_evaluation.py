"""Whole evaluations of the tiny model: what they measure, say and leave. Comparisons and judges have tests of their own."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import subprocess
from html.parser import HTMLParser

import pytest
import torch
import transformers
from evaluation_parts import evaluate_here, write_evaluation
from training_parts import COLOURS, RECIPES, Told, chat, environment

from tunesmith.recipes import read_recipe
from tunesmith_workers.evaluation.metrics import KINDS
from tunesmith_workers.examples.rendering import Renderer
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.faults import BadConfig, BadRows
from tunesmith_workers.rollout.generation import answer

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]

UNEVEN = [
    chat("one?", "1"),
    chat(
        "a long question about the colour of grass in summer?",
        "green, as far as anybody has ever seen, and at dusk dark green",
    ),
    *COLOURS[:8],
    {"messages": [*COLOURS[0]["messages"], *COLOURS[1]["messages"]]},
    chat("two?", "2 " * 40),
]


def plain_loop(model, tokenizer, path) -> tuple[float, float]:
    """Loss over all tokens, and the share that would have been chosen, one row after the other, as anybody would write it."""
    loss = tokens = right = 0
    for row in Renderer(tokenizer).render(read_rows(path)):
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        with torch.inference_mode():
            output = model(input_ids=ids, labels=labels)
        scored = labels[0, 1:] != -100
        loss += output.loss.double().item() * int(scored.sum())
        right += int((output.logits[0, :-1].argmax(-1) == ids[0, 1:])[scored].sum())
        tokens += int(scored.sum())
    return loss / tokens, right / tokens


@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_perplexity_is_that_of_a_plain_loop(
    batch_size, dtype, tiny_model, tokenizer, write_rows, tmp_path, capfdbinary
):
    """Rows count by their tokens; how many are computed together changes nothing."""
    rows = write_rows(UNEVEN * 3)
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loss, accuracy = plain_loop(model, tokenizer, rows)
    path = write_evaluation(
        tmp_path / "run",
        tiny_model,
        rows,
        {"dtype": dtype},
        metrics=["loss", "perplexity", "accuracy", "token_accuracy"],
        batch_size=batch_size,
    )
    metrics = evaluate_here(path, capfdbinary).metrics
    assert metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["accuracy"] == metrics["token_accuracy"] == pytest.approx(accuracy)


def test_a_row_has_scores_of_its_own(tiny_model, tokenizer, write_rows, tmp_path, capfdbinary):
    """Each line of predictions.jsonl says what its row is worth, and the whole is their mean by tokens."""
    rows = write_rows(UNEVEN)
    path = write_evaluation(tmp_path / "run", tiny_model, rows, metrics=["loss", "exact_match", "rougeL", "chrf"])
    found = evaluate_here(path, capfdbinary)
    assert len(found.predictions) == len(UNEVEN)
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for row, line in zip(UNEVEN, found.predictions, strict=True):
        alone, _ = plain_loop(model, tokenizer, write_rows([row], "alone.jsonl"))
        assert line["scores"]["loss"] == pytest.approx(alone, abs=1e-4)
        assert {"where", "prompt", "expected", "predicted", "correct"} <= line.keys()
        assert line["scores"].keys() == {"loss", "exact_match", "rougeL", "chrf"}


def test_what_is_left_can_be_read_by_people_and_programs(tiny_model, write_rows, tmp_path, capfdbinary):
    """The report names what was scored, with which versions, and how sure each number is."""
    rows = write_rows(UNEVEN)
    path = write_evaluation(tmp_path / "run", tiny_model, rows, metrics=["exact_match", "perplexity", "json_match"])
    found = evaluate_here(path, capfdbinary)
    report = found.report
    assert report["model"] == str(tiny_model)
    assert report["rows"] == found.metrics["rows"] == len(UNEVEN)
    assert report["data_sha256"] == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert report["metrics"] == {name: value for name, value in found.metrics.items() if name != "rows"}
    assert {"torch", "transformers", "sacrebleu"} <= report["versions"].keys()
    assert report["config"]["evaluation"]["max_new_tokens"] == 8
    [model] = report["models"]
    perplexity = model["metrics"]["perplexity"]
    assert perplexity["low"] < perplexity["value"] < perplexity["high"]
    assert perplexity["lower_is_better"]
    assert report["comparisons"] == []
    artifacts = {artifact["kind"]: artifact["path"] for artifact in found.told.of("artifact")}
    assert artifacts.keys() == {"predictions", "report", "report_page"}
    assert found.result["report"] == artifacts["report"]
    assert found.told.said("expected answers are no JSON")


def test_progress_ends_at_its_total(tiny_model, write_rows, tmp_path, capfdbinary):
    """Steps are rows, over everything that is done with them, and they only grow."""
    path = write_evaluation(tmp_path / "run", tiny_model, write_rows(UNEVEN), metrics=["loss", "exact_match"])
    told = [event for event in evaluate_here(path, capfdbinary).told.of("progress") if event["phase"] == "evaluating"]
    steps = [event["step"] for event in told]
    assert steps == sorted(steps)
    assert {event["total_steps"] for event in told} == {2 * len(UNEVEN)}
    assert steps[-1] == 2 * len(UNEVEN)
    assert told[-1]["eta_seconds"] == 0
    assert list(dict.fromkeys(event["part"] for event in told)) == ["model: answers", "model: probabilities"]


def test_progress_is_told_within_a_batch(tiny_model, tokenizer):
    """A batch of long answers takes minutes: what is begun counts by its length."""
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_model)
    model.generation_config.eos_token_id = None  # so that no answer ends
    told: list[int] = []
    answers = answer(model, tokenizer, [[5, 6, 7]] * 8, batch_size=4, max_new_tokens=12, progress=told.append)
    assert len(answers) == 8
    assert told == sorted(told)
    assert told[-1] == 8
    assert {1, 2, 3} <= set(told)


class Page(HTMLParser):
    """What a browser makes of a page: its elements, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.in_missing = False
        self.without_missing = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self.in_missing = tag == "del"

    def handle_endtag(self, tag):
        self.in_missing = False

    def handle_data(self, data):
        self.text += data
        self.without_missing += "" if self.in_missing else data


def test_markup_in_rows_and_answers_is_text(tmp_path, tiny_model, write_rows, capfdbinary):
    """Nothing of the data, or of what a model says, becomes an element or an attribute of the page."""
    hostile = '<script>alert(1)</script><img src=x onerror="alert(2)">&lt;b&gt; </div></article> \'"'
    rows = write_rows([chat(f"{hostile} {number}", f"{hostile} answer") for number in range(3)], "rows<b>&.jsonl")
    path = write_evaluation(tmp_path / "run", tiny_model, rows, metrics=["exact_match", "rougeL"])
    found = evaluate_here(path, capfdbinary)
    page = Page(found.page)
    assert not {"script", "img", "iframe", "link", "b<"} & set(page.elements)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert hostile in page.text
    assert "rows<b>&.jsonl" in page.text
    assert "://" not in found.page, "it needs no other address"


@pytest.mark.parametrize("said", ["<script>alert(1)</script>", "</div><style>*{display:none}</style>", "a & b < c"])
def test_an_answer_with_markup_is_shown_as_text(said):
    """Also where it is marked word by word against what was expected."""
    from tunesmith_workers.evaluation.page import _said
    from tunesmith_workers.evaluation.samples import ModelAnswer

    page = Page(_said(f"<i>{said}</i>, and more", ModelAnswer("model<u>", f"{said} or less", {"exact_match": 0.0})))
    assert set(page.elements) == {"div", "b", "span", "ins", "del"}
    assert "model<u>" in page.text
    assert f"{said} or less" in page.without_missing


def test_the_page_shows_where_answers_differ(tmp_path, tiny_model, write_rows, capfdbinary):
    """Word by word, in either colour scheme, with no script."""
    path = write_evaluation(tmp_path / "run", tiny_model, write_rows(UNEVEN), metrics=["exact_match"])
    page = evaluate_here(path, capfdbinary).page
    assert "<ins>" in page
    assert "prefers-color-scheme: dark" in page
    assert "default-src 'none'" in page
    assert "Worst rows by exact_match" in page


def test_the_recipe_offers_what_the_worker_knows():
    """No metric more and none less."""
    assert read_recipe(RECIPES / "evaluate").schema["evaluation.metrics"].choices == tuple(KINDS)


def test_wrong_metrics_are_refused_before_anything_is_loaded(tmp_path, write_rows, capfdbinary):
    """In a config by hand; over HTTP the request is refused already."""
    path = write_evaluation(tmp_path / "run", "/no/model", write_rows(UNEVEN), metrics=["los", "exact-match"])
    with pytest.raises(BadConfig) as refused:
        evaluate_here(path, capfdbinary)
    assert "los; did you mean loss" in refused.value.text
    assert "exact-match; did you mean exact_match" in refused.value.text


def test_a_conversation_without_an_answer_is_named(tmp_path, tiny_model, write_rows, capfdbinary):
    """There is nothing to compare with."""
    rows = write_rows([*COLOURS[:2], {"messages": [{"role": "user", "content": "hello?"}]}])
    path = write_evaluation(tmp_path / "run", tiny_model, rows, metrics=["exact_match"])
    with pytest.raises(BadRows) as refused:
        evaluate_here(path, capfdbinary)
    assert "rows.jsonl:3" in refused.value.where


def test_an_evaluation_is_stopped_at_once(tmp_path, tiny_model, write_rows):
    """In the middle of its answers: it leaves with 143, and leaves no report that could be taken for whole."""
    path = write_evaluation(
        tmp_path / "run",
        tiny_model,
        write_rows(COLOURS * 100),
        metrics=["exact_match"],
        batch_size=1,
        max_new_tokens=200,
    )
    started = subprocess.Popen(
        ["bash", str(RECIPES / "evaluate" / "run.sh"), str(path)],
        env=environment(path.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = b""
    with started as process:
        for line in process.stdout:
            output += line
            if b'"part":"model: answers"' in line:
                os.kill(process.pid, signal.SIGTERM)
                break
        output += process.stdout.read()
        assert process.wait(timeout=100) == 128 + signal.SIGTERM, output
    assert not Told(output).of("result")
    assert not (path.parent / "output" / "report.json").exists()
