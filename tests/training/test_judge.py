"""Judges: what they are asked, how their replies are read, and one behind a real address that is slow, busy, wrong or silent."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from evaluation_parts import evaluate_here, write_evaluation
from training_parts import COLOURS, RECIPES, Told, environment

from support.server import ServerProcess, start_run, wait_for_run
from tunesmith_workers.evaluation.judge_address import ask_address
from tunesmith_workers.evaluation.judge_words import PROMPT, checked_prompt, filled, score_in
from tunesmith_workers.evaluation.judging import check_judge
from tunesmith_workers.process.config import Judge
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]

Answer = Callable[["Asked"], tuple[int, dict[str, str], bytes]]


class Asked(msgspec.Struct):
    """One request, and how many there were before it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]


class JudgeServer:
    """Keeps what it was asked, and how many requests it had at once."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


def reply(text: str | None) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@contextmanager
def judging(answer: Answer) -> Iterator[JudgeServer]:
    server = JudgeServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with server.lock:
                asked = Asked(self.path, headers, body, len(server.asked))
                server.asked.append(asked)
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            status, more, content = answer(asked)
            with server.lock:
                server.at_once -= 1
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}/v1"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield server
        listening.shutdown()


def ask(server: JudgeServer, prompts: int = 3, **options: Any) -> list[str | None]:
    judge = Judge(url=server.url, url_model="judge", **options)
    return ask_address(judge, [f"prompt {number}" for number in range(prompts)], lambda _: None)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It says the same.\nScore: 8", 8),
        ("Score: **9**", 9),
        ("score = 7.5", 7.5),
        ("Rating: 3/10", 3),
        ("I give it 4/10.", 4),
        ("6 out of 10", 6),
        ("[[5]]", 5),
        ("10", 10),
        (" **2**. ", 2),
        ('{"reason": "short", "score": 6}', 6),
        ("Score: 2? No. On reflection:\nScore: 7", 7),
        ("<think>Score: 1 or so</think>Score: 9", 9),
        ("<think>Score: 1", None),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: 100", None),
        ("Score: 1000000", None),
        ("I cannot grade 3 answers.", None),
        ("", None),
        ("Score: eight", None),
        ("Score 8", 8),
        ("score: 3 mistakes were made, so Score: 4", 4),
    ],
)
def test_scores_are_read_from_what_judges_write(text, score):
    """The last one counts; what is no number from 1 to 10 is none."""
    assert score_in(text) == score


def test_the_prompt_holds_all_three_texts_as_they_are():
    """Places in the texts themselves are left alone."""
    text = filled(PROMPT, question="{answer}", reference="{question} 100 %", answer="{reference} {0}")
    assert "{answer}" in text
    assert "{question} 100 %" in text
    assert "{reference} {0}" in text
    with pytest.raises(BadConfig, match="no place for the answer"):
        checked_prompt("grade this")


def test_a_reply_for_every_prompt_in_its_place():
    """Whichever comes first, a few at a time, with the key in the header and nowhere else."""
    with judging(lambda asked: reply(f"about {asked.prompt}")) as server:
        replies = ask(server, 20, concurrency=3)
    assert replies == [f"about prompt {number}" for number in range(20)]
    assert server.most_at_once <= 3
    first = server.asked[0]
    assert first.path == "/v1/chat/completions"
    assert (first.body["model"], first.body["temperature"]) == ("judge", 0)
    assert "authorization" not in first.headers


def test_a_busy_or_broken_server_is_asked_again():
    """429 with the pause that it asks for, and 5xx."""

    def answer(asked: Asked):
        return (
            (429, {"retry-after": "0"}, b"")
            if asked.number < 3
            else (503, {"retry-after": "0"}, b"")
            if asked.number < 4
            else reply("Score: 5")
        )

    with judging(answer) as server:
        assert ask(server, 3, concurrency=2) == ["Score: 5"] * 3
    assert len(server.asked) == 7


def test_a_prompt_that_is_never_answered_is_counted():
    """The others go on."""

    def answer(asked: Asked):
        return (500, {"retry-after": "0"}, b"") if asked.prompt.endswith("1") else reply("Score: 5")

    with judging(answer) as server:
        assert ask(server, 3, concurrency=1) == ["Score: 5", None, "Score: 5"]
    assert len(server.asked) == 2 + 5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: (401, {}, b"no such key"), "refuses with status 401: no such key"),
        (lambda _: (404, {}, b""), "refuses with status 404"),
        (lambda _: (302, {"location": "http://127.0.0.1:1/"}, b""), "refuses with status 302"),
        (lambda _: (200, {}, b"<html>"), "does not answer as OpenAI's chat completions do"),
        (lambda _: (200, {}, b"x" * (5 * 1024 * 1024)), "sends more than"),
        (lambda _: (500, {"retry-after": "0"}, b""), "has answered none of 3 prompts: status 500"),
    ],
)
def test_a_judge_that_is_out_of_order_ends_the_evaluation(answer, words):
    """With its own words, instead of thousands of rows without a score."""
    with judging(answer) as server, pytest.raises(ModelUnavailable) as refused:
        ask(server, 3, concurrency=1)
    assert words in refused.value.text
    assert refused.value.where == "evaluation.judge.url"


def test_a_judge_that_does_not_answer_is_not_waited_for():
    """Each reply has a deadline."""
    over = threading.Event()

    def answer(asked: Asked):
        if asked.number == 0:
            over.wait(60)
        return reply("Score: 5")

    with judging(answer) as server:
        assert ask(server, 2, timeout_seconds=1, concurrency=2) == ["Score: 5"] * 2
        over.set()


def test_the_key_comes_from_a_variable_of_its_own(monkeypatch):
    """No request can have another secret of the server sent somewhere, and no message quotes the key."""
    monkeypatch.setenv("JUDGE_API_KEY", "sesame")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with judging(lambda _: reply("Score: 5")) as server:
        ask(server, 1, key_variable="JUDGE_API_KEY")
        assert server.asked[0].headers["authorization"] == "Bearer sesame"
        for name, words in (("HF_TOKEN", "must begin with JUDGE_"), ("JUDGE_OTHER", "JUDGE_OTHER is not set")):
            with pytest.raises(BadConfig, match=words):
                ask(server, 1, key_variable=name)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("judge", "where"),
    [
        (Judge(model="m", url="http://h/v1"), "evaluation.judge"),
        (Judge(url="http://h/v1", prompt="x"), "evaluation.judge.prompt"),
        (Judge(url="http://h/v1"), "evaluation.judge.url_model"),
        (Judge(url="ftp://h/v1", url_model="m"), "evaluation.judge.url"),
        (Judge(url="http://[::1/v1", url_model="m"), "evaluation.judge.url"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(judge, where):
    """Naming the option."""
    with pytest.raises(BadConfig) as refused:
        ask_address(check_judge(judge), ["prompt"], lambda _: None)
    assert refused.value.where == where


def test_judge_score_is_the_mean_of_what_was_graded(tiny_model, write_rows, tmp_path, capfdbinary):
    """Asked about question, reference and answer of each row; what cannot be read is counted and said."""

    def answer(asked: Asked):
        return reply("I would rather not." if "the colour of sky?" in asked.prompt else "Fine.\nScore: 4")

    with judging(answer) as server:
        judge = {"url": server.url, "url_model": "grader"}
        path = write_evaluation(
            tmp_path / "run", tiny_model, write_rows(COLOURS[:4]), metrics=["judge_score"], judge=judge
        )
        found = evaluate_here(path, capfdbinary)
    assert found.metrics["judge_score"] == 4.0
    assert found.metrics["judge_unparsed"] == 0.25
    assert found.told.said("the judge gave no score for 1 of 4 answers (0 without a reply)")
    grass = next(asked.prompt for asked in server.asked if "the colour of grass?" in asked.prompt)
    assert "===== REFERENCE ANSWER =====\ngreen\n" in grass
    assert found.predictions[0]["predicted"] in grass
    assert found.predictions[0]["scores"] == {"judge_score": 4.0, "judge_unparsed": 0.0}
    assert found.predictions[1]["judge"] == "I would rather not."


def test_a_judge_grades_all_models_and_compares_them(tiny_model, write_rows, tmp_path, capfdbinary):
    """A model of ours may be the judge: this one has nothing to say that could be read as a score."""
    other = tmp_path / "other"
    other.symlink_to(tiny_model)
    path = write_evaluation(
        tmp_path / "run",
        tiny_model,
        write_rows(COLOURS[:3]),
        compare=[str(other)],
        judge={"model": str(tiny_model), "reply_tokens": 4},
    )
    found = evaluate_here(path, capfdbinary)
    assert found.metrics.keys() == {"exact_match", "judge_unparsed", "rows"}
    assert found.metrics["judge_unparsed"] == 1.0
    assert {one["metric"] for one in found.report["comparisons"]} == {"exact_match", "judge_score", "judge_unparsed"}
    assert found.told.said("the judge gave no score for 6 of 6 answers")
    total = 3 * 2 * 2
    assert found.told.of("progress")[-2]["step"] == found.told.of("progress")[-2]["total_steps"] == total


def test_waiting_for_a_judge_is_stopped_at_once(tiny_model, write_rows, tmp_path):
    """Also in the middle of replies that do not come."""
    over, came = threading.Event(), threading.Event()

    def answer(_: Asked):
        came.set()
        over.wait(100)
        return reply("Score: 5")

    with judging(answer) as server:
        judge = {"url": server.url, "url_model": "grader", "timeout_seconds": 90}
        path = write_evaluation(tmp_path / "run", tiny_model, write_rows(COLOURS[:8]), judge=judge)
        with subprocess.Popen(
            ["bash", str(RECIPES / "evaluate" / "run.sh"), str(path)],
            env=environment(path.parent),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert came.wait(100)
            os.kill(process.pid, signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        over.set()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert not Told(output).of("result")
    assert not Path(path.parent / "output" / "report.json").exists()


@pytest.mark.parametrize("allowed", ["1", "0"])
def test_a_private_network_is_reached_where_the_operator_allows_it(monkeypatch, allowed):
    """As a run of the service sees it; by hand, loopback is what everybody uses."""
    monkeypatch.setenv("TUNESMITH_RUN_ID", "run_1")
    monkeypatch.setenv("TUNESMITH_ALLOW_PRIVATE_URLS", allowed)
    with judging(lambda _: reply("Score: 5")) as server:
        if allowed == "1":
            assert ask(server, 1) == ["Score: 5"]
            return
        with pytest.raises(BadConfig, match=r"leads to 127\.0\.0\.1, where nothing may be sent"):
            ask(server, 1)
        assert server.asked == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "http://[fd00:ec2::254]/v1", "http://2852039166/v1"])
def test_metadata_services_are_never_reached(url):
    """Not even by hand, however the address is written."""
    with pytest.raises(BadConfig, match="where nothing may be sent"):
        ask_address(Judge(url=url, url_model="m"), ["prompt"], lambda _: None)


def test_a_judge_beside_the_service(tiny_model, write_rows, tmp_path):
    """Over HTTP from end to end: refused by default, reached where private addresses are allowed; the key is in no file."""
    env = {
        **environment(tmp_path),
        "TUNESMITH_ALLOWED_ROOTS": f"{tmp_path}:{tiny_model.parent}",
        "JUDGE_API_KEY": "sesame",
    }
    env["TUNESMITH_RUN_ENVIRONMENT"] = "JUDGE_API_KEY"
    del env["TUNESMITH_RUN_DIR"], env["TUNESMITH_OUTPUT_DIR"]
    rows = write_rows(COLOURS[:4])
    with judging(lambda _: reply("Score: 6")) as judge:
        wishes = {
            "metrics": ["judge_score"],
            "max_new_tokens": 4,
            "judge": {"url": judge.url, "url_model": "grader", "key_variable": "JUDGE_API_KEY"},
        }
        request = {
            "recipe": "evaluate",
            "model": str(tiny_model),
            "dataset": {"name": str(rows)},
            "hyperparams": wishes,
        }
        with ServerProcess.start(tmp_path / "strict", RECIPES, env) as server, server.client() as client:
            experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
            refused = client.post(f"/v1/experiments/{experiment}/runs", json=request)
            assert refused.status_code == 422
            assert "evaluation.judge.url" in refused.text
        env["TUNESMITH_ALLOW_PRIVATE_URLS"] = "true"
        with ServerProcess.start(tmp_path / "open", RECIPES, env) as server, server.client() as client:
            run_id = start_run(client, **request)
            done = wait_for_run(client, run_id, seconds=120)
    assert done["status"] == "succeeded", done
    assert done["metrics"]["judge_score"] == 6.0
    assert {asked.headers["authorization"] for asked in judge.asked} == {"Bearer sesame"}
    assert not [path for path in (tmp_path / "open").rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
