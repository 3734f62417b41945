"""The engine as a process: what OpenAI's clients send is answered in OpenAI's shapes, and what cannot be answered is refused."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import jsonschema_rs
import pytest
from serving_parts import Served, serving

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["green", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tiny_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with serving(tiny_model, log, "--max-model-len", "256", "--max-num-seqs", "4", "--max-queue", "8") as served:
        yield served


def events(response: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def content(response: httpx.Response) -> str:
    return response.json()["choices"][0]["message"]["content"]


def test_an_answer_has_openai_s_shape(engine):
    answer = engine.chat().json()
    (choice,) = answer["choices"]
    assert (answer["object"], answer["model"], choice["index"], choice["finish_reason"]) == (
        "chat.completion",
        "tiny",
        0,
        "length",
    )
    assert choice["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 8


def test_a_stream_says_the_same_and_ends_with_usage(engine):
    whole = engine.chat(max_tokens=30)
    streamed = events(engine.chat(max_tokens=30, stream=True, stream_options={"include_usage": True}))
    assert streamed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed[:-1]) == content(whole)
    assert [e["choices"][0]["finish_reason"] for e in streamed[:-1]][-1] == "length"
    assert streamed[-1]["choices"] == []
    assert streamed[-1]["usage"]["completion_tokens"] == 30
    assert {e["object"] for e in streamed} == {"chat.completion.chunk"}


def test_a_seed_gives_the_same_answers_and_n_gives_different_ones(engine):
    one, other = (
        [choice["message"]["content"] for choice in engine.chat(temperature=1, seed=5, n=3).json()["choices"]]
        for _ in range(2)
    )
    assert one == other
    assert len(set(one)) == 3
    assert one != [choice["message"]["content"] for choice in engine.chat(temperature=1, seed=6, n=3).json()["choices"]]


def test_company_does_not_change_what_a_seed_gives(engine):
    alone = content(engine.chat(temperature=1, seed=5, max_tokens=40))
    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(engine.chat, temperature=1, seed=seed, max_tokens=40) for seed in (5, 6, 7, 5)]
        found = [content(one.result()) for one in asked]
    assert found[0] == found[3] == alone


def test_stop_texts_end_an_answer_and_are_not_told(engine):
    text = content(engine.chat(max_tokens=30))
    stop = text[5:8]
    answer = engine.chat(max_tokens=30, stop=[stop, "never"]).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (text[: text.index(stop)], "stop")
    streamed = events(engine.chat(max_tokens=30, stop=stop, stream=True))
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == text[: text.index(stop)]


def test_log_probabilities_are_told_for_each_token(engine):
    (choice,) = engine.chat(logprobs=True, top_logprobs=3).json()["choices"]
    told = choice["logprobs"]["content"]
    assert len(told) == 8
    for token in told:
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0]["logprob"] == pytest.approx(token["logprob"])  # greedy: it was the likeliest
        assert token["logprob"] <= 0
        assert bytes(token["bytes"]).decode() == token["token"]
    assert engine.chat().json()["choices"][0]["logprobs"] is None


def test_penalties_and_biases_change_what_is_said(engine):
    plain = engine.chat(max_tokens=60, return_token_ids=True).json()["choices"][0]["token_ids"]
    assert len(set(plain)) < 60  # it says some tokens again
    varied = engine.chat(max_tokens=60, frequency_penalty=2, presence_penalty=2, return_token_ids=True).json()
    assert len(set(varied["choices"][0]["token_ids"])) > len(set(plain))
    forced = engine.chat(logit_bias={"65": 100}, return_token_ids=True).json()["choices"][0]["token_ids"]
    assert set(forced) == {65}


@pytest.mark.parametrize(
    "fields", [{"top_p": 1e-9}, {"top_k": 1}, {"temperature": 1e-6}], ids=["top_p", "top_k", "temperature"]
)
def test_what_leaves_one_choice_is_greedy(engine, fields):
    assert content(engine.chat(**({"temperature": 1.5} | fields))) == content(engine.chat())


def test_json_fits_its_schema_whatever_the_model_would_say(engine):
    for seed in range(4):
        response = engine.chat(
            temperature=1.5,
            seed=seed,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        )
        assert response.json()["choices"][0]["finish_reason"] == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads(content(response)))


def test_json_mode_gives_an_object(engine):
    response = engine.chat(
        max_tokens=200, temperature=1, seed=1, response_format={"type": "json_object"}, logit_bias={"95": -100}
    )
    text = content(response)
    assert text.lstrip().startswith("{")
    if response.json()["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


REFUSED = {
    "no messages": ({"messages": []}, 400, "messages"),
    "unknown role": ({"messages": [{"role": "boss", "content": "x"}]}, 400, "messages"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "messages.0.content",
    ),
    "negative temperature": ({"temperature": -1}, 400, "temperature"),
    "n of 0": ({"n": 0}, 400, "n"),
    "n of a million": ({"n": 1_000_000}, 400, "n"),
    "text for a number": ({"max_tokens": "many"}, 400, "max_tokens"),
    "unknown model": ({"model": "other"}, 404, "model"),
    "no such token": ({"logit_bias": {"99999": 1}}, 400, "logit_bias"),
    "an empty stop": ({"stop": ""}, 400, "stop"),
    "no schema": ({"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema"),
    "nonsense for a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}},
        400,
        "response_format.json_schema.schema",
    ),
    "too many tokens": ({"max_tokens": 100_000}, 400, "max_tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_by_its_field(engine, name):
    fields, status, param = REFUSED[name]
    response = engine.chat(**fields)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff\xfe", b'{"messages": 1}', b"[" * 100_000],
    ids=["empty", "list", "cut", "bytes", "number", "deep"],
)
def test_what_is_no_request_is_a_400(engine, body):
    assert engine.client.post("/v1/chat/completions", content=body).status_code == 400
    assert engine.chat().is_success


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine):
    response = engine.chat("grass " * 300, max_tokens=None)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "256" in error["message"]
    prompt = int(error["message"].split("has ")[1].split()[0])
    assert prompt > 256


def test_a_full_queue_says_when_to_come_back(engine):
    """Four are answered at once and eight may wait: of twenty some are refused, and those who wait are answered."""
    with concurrent.futures.ThreadPoolExecutor(20) as clients:
        with engine.stopped():  # so that all of them are there when it goes on
            asked = [clients.submit(engine.chat, f"{number}", max_tokens=150, ignore_eos=True) for number in range(20)]
            time.sleep(1)
        responses = [one.result() for one in asked]
    refused = [response for response in responses if response.status_code == 429]
    assert refused
    assert sum(response.is_success for response in responses) + len(refused) == 20
    assert sum(response.is_success for response in responses) >= 8
    assert all(response.headers["retry-after"].isdecimal() for response in refused)
    assert engine.chat(n=9).status_code == 429  # more than may ever wait


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_stops_its_generation(engine, stream):
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 240,
            "ignore_eos": True,
            "n": 2,
            "stream": stream,
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", engine.client.base_url.port)) as connection:
        connection.sendall(head + body)
        engine.until(lambda health: health["running"] == 2)
    left = time.monotonic()
    engine.until(lambda health: health["running"] == 0)
    assert time.monotonic() - left < 2


def test_adapters_come_and_go_while_it_serves(engine, adapters):
    base = content(engine.chat())
    for number, folder in enumerate(adapters[:2]):
        asked = {"lora_name": f"run-{number}", "lora_path": str(folder)}
        assert engine.client.post("/v1/load_lora_adapter", json=asked).is_success
        assert engine.client.post("/v1/load_lora_adapter", json=asked).is_success  # it is there already
    listed = {model["id"]: model["parent"] for model in engine.client.get("/v1/models").json()["data"]}
    assert listed == {"tiny": None, "run-0": "tiny", "run-1": "tiny"}
    with concurrent.futures.ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(engine.chat, model=name) for name in ("tiny", "run-0", "run-1")]
        together = [content(one.result()) for one in asked]
    assert together[0] == base
    assert len(set(together)) == 3
    assert together == [content(engine.chat(model=name)) for name in ("tiny", "run-0", "run-1")]
    for number in range(2):
        assert engine.client.post("/v1/unload_lora_adapter", json={"lora_name": f"run-{number}"}).is_success
    assert engine.chat(model="run-0").status_code == 404
    assert content(engine.chat()) == base


def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(engine, changed_adapter, tmp_path):
    for folder, words in (
        (changed_adapter(use_dora=True), "use_dora"),
        (tmp_path / "nowhere", "adapter_config.json"),
    ):
        response = engine.client.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(folder)})
        assert response.status_code == 400
        assert words in response.json()["error"]["message"]
    assert engine.client.post("/v1/unload_lora_adapter", json={"lora_name": "x"}).status_code == 404


def test_an_answer_to_an_adapter_that_goes_ends_with_an_error(engine, adapters):
    asked = {"lora_name": "going", "lora_path": str(adapters[0])}
    engine.client.post("/v1/load_lora_adapter", json=asked)
    with concurrent.futures.ThreadPoolExecutor(2) as clients:
        answer = clients.submit(engine.chat, model="going", max_tokens=200, ignore_eos=True, n=8)
        engine.until(lambda health: health["running"] > 0)
        with engine.stopped():  # so that it is not done before it is asked
            unloaded = clients.submit(engine.client.post, "/v1/unload_lora_adapter", json=asked)
            time.sleep(0.2)
        assert unloaded.result().is_success
        assert answer.result().status_code == 500
    assert "unloaded" in answer.result().json()["error"]["message"]


def test_it_ends_when_it_is_asked_to(tiny_model, tmp_path):
    with serving(tiny_model, tmp_path / "log") as served:
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) in (0, -signal.SIGTERM, 143)


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(tiny_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = subprocess.run(
            [sys.executable, "-m", "tunesmith_workers.programs.serve", "--model", str(tiny_model), "--port", str(port)],
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert finished.returncode == 1
    assert b"loading_model" not in finished.stdout
    assert f"port {port} cannot be used".encode() in finished.stdout


def test_a_model_that_is_not_there_is_told_in_the_line_format(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-m", "tunesmith_workers.programs.serve", "--model", str(tmp_path / "none"), "--port", "0"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 1
    assert b'"level":"error"' in finished.stdout
    assert b"does not exist" in finished.stdout


def test_an_adapter_alone_is_served_as_one_model(adapters, tmp_path):
    with serving(adapters[0], tmp_path / "log") as served:
        assert isinstance(served, Served)
        assert served.chat().is_success
