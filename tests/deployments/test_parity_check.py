"""Comparing an engine with a parity certificate: whatever it answers, and however it does, the check ends in time and says so."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
from engine_parts import Engines, deploy, whole_model

from support.deployed import once, shown
from tunesmith.contract.parity import PARITY, Certificate, Conversation, Message, Rival, Said, encode_certificate
from tunesmith.deployments import ParityCheck
from tunesmith.deployments.engines import name_of
from tunesmith.net.loopback import LoopbackClient
from tunesmith.records import Deployment, EngineKind, Parity, ServedAdapter, utc_now

PROMPT, ANSWER = [1, 2, 3], [10, 11]
CERTIFICATE = Certificate(
    template_sha256="t",
    tokenizer_sha256="k",
    dtype="float32",
    conversations=tuple(
        Conversation(
            name=name,
            messages=(Message(role="user", content=name),),
            prompt=tuple(PROMPT),
            answer=(Said(token=10, lead=2.0), Said(token=11, lead=0.3, rivals=(Rival(token=21, behind=0.3),))),
        )
        for name in ("one", "two", "three")
    ),
)


def completion(prompt=PROMPT, answer=ANSWER) -> bytes:
    return json.dumps({"choices": [{"index": 0, "token_ids": answer}], "prompt_token_ids": prompt}).encode()


class Engine:
    """Answers every chat with ``body``, and remembers what it was asked."""

    def __init__(self) -> None:
        self.body: bytes = completion()
        self.statuses: list[int] = []
        """Of the next answers; 200 after them."""
        self.models: bytes = b'{"data": [{"id": "m"}]}'
        self.stalls = threading.Event()
        self.released = threading.Event()
        self.asked: list[dict] = []
        self.port = 0


@pytest.fixture
def engine() -> Iterator[Engine]:
    behaving = Engine()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # the library's name
            self._answer(200, behaving.models)

        def do_POST(self):  # the library's name
            behaving.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if behaving.stalls.is_set():
                behaving.released.wait(60)
            self._answer(behaving.statuses.pop() if behaving.statuses else 200, behaving.body)

        def _answer(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        behaving.port = server.server_address[1]
        yield behaving
        behaving.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = whole_model(tmp_path / "model")
    (folder / PARITY).write_bytes(encode_certificate(CERTIFICATE))
    return folder


def deployment(engine: Engine, path: Path | str, **fields) -> Deployment:
    return Deployment(
        id="dep_1",
        model_path=str(path),
        created_at=utc_now(),
        path=str(path),
        served_name=name_of(str(path)),
        engine=EngineKind.TRANSFORMERS,
        port=engine.port,
        command=(),
        **fields,
    )


def checked(one: Deployment, *, seconds: float = 20.0) -> dict:
    """What the check finds, by name."""

    async def check():
        loopback = LoopbackClient()
        try:
            with anyio.fail_after(30):
                return await ParityCheck(loopback, seconds=seconds).of(one)
        finally:
            await loopback.aclose()

    return anyio.run(check)


def of_model(engine: Engine, folder: Path, **fields):
    return checked(deployment(engine, folder, **fields))[name_of(str(folder))]


def test_the_same_answers(engine, folder):
    """Each conversation is asked once, greedily, with its token ids and with nothing of a model's own defaults."""
    assert of_model(engine, folder).parity is Parity.OK
    assert len(engine.asked) == 3
    assert {one["messages"][0]["content"] for one in engine.asked} == {"one", "two", "three"}
    for one in engine.asked:
        assert (one["model"], one["max_tokens"], one["temperature"]) == (name_of(str(folder)), 2, 0)
        assert (one["return_token_ids"], one["repetition_penalty"]) == (True, 1)


def test_other_answers_are_told_with_conversation_and_tokens(engine, folder):
    engine.body = completion(answer=[99, 11])
    found = of_model(engine, folder)
    assert found.parity is Parity.DIFFERS
    assert f"{folder} is not served as it was trained" in found.reason
    assert "the conversation 'one' differs at its token 1: expected token 10" in found.reason
    assert "got token 99" in found.reason


@pytest.mark.parametrize(
    ("told", "arguments", "parity"),
    [
        (b"{}", (), Parity.OK),
        (b'{"data": [{"dtype": "bfloat16"}]}', (), Parity.OK),
        (b'{"data": [{"dtype": "float32"}]}', (), Parity.DIFFERS),
        (b"{}", ("--dtype", "float32"), Parity.DIFFERS),
        (b'{"data": [{"dtype": "float32"}]}', ("--dtype", "half"), Parity.OK),
        (b"[" * 60_000, ("--dtype",), Parity.OK),
    ],
)
def test_a_close_rival_is_right_in_a_coarse_precision(engine, folder, told, arguments, parity):
    """Which the built-in engine tells, or an option; where nobody does, it may be any."""
    engine.models, engine.body = told, completion(answer=[10, 21])
    assert of_model(engine, folder, arguments=arguments).parity is parity


def test_an_engine_that_quantises_is_held_to_its_prompts(engine, folder):
    engine.body = completion(answer=[99])
    assert of_model(engine, folder, arguments=("--quantization", "fp8")).parity is Parity.OK
    engine.body = completion(prompt=[1])
    assert of_model(engine, folder, arguments=("--quantization", "fp8")).parity is Parity.DIFFERS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"choices": [' + b'{"token_ids": [1]},' * 100_000,
        b" " * 50_000_000,
        b"{}",
        b'{"choices": [], "prompt_token_ids": [1, 2, 3]}',
        b'{"choices": [{"token_ids": null}], "prompt_token_ids": null}',
        b'{"choices": [{"token_ids": ["x"]}], "prompt_token_ids": "x"}',
        b'{"choices": [{"token_ids": [1e400]}], "prompt_token_ids": [' + b"9" * 5000 + b"]}",
        json.dumps({"choices": [{"message": {"content": "no ids"}}]}).encode(),
    ],
    ids=range(11),
)
def test_an_answer_that_is_none_harms_nothing(engine, folder, body):
    """An engine that does not know token ids, or lies, cannot be compared."""
    engine.body = body
    assert of_model(engine, folder).parity is Parity.NONE


def test_a_refusal_says_nothing_of_the_weights(engine, folder):
    engine.statuses = [400, 404, 500]
    assert of_model(engine, folder).parity is Parity.NONE


def test_a_busy_engine_is_asked_again(engine, folder):
    engine.statuses = [429, 429]
    assert of_model(engine, folder).parity is Parity.OK
    assert len(engine.asked) == 5


def test_one_difference_counts_though_others_are_not_known(engine, folder):
    engine.statuses, engine.body = [500], completion(prompt=[7])
    assert of_model(engine, folder).parity is Parity.DIFFERS


def test_an_engine_that_does_not_answer_has_its_deadline(engine, folder):
    engine.stalls.set()
    one = deployment(engine, folder)
    assert checked(one, seconds=0.3)[name_of(str(folder))].parity is Parity.NONE


def test_each_of_several_is_compared_under_its_name(engine, folder, tmp_path):
    """A base without a certificate, an adapter that is right, and a hub id, which is no folder."""
    base = whole_model(tmp_path / "base")
    adapter = ServedAdapter(name="mine", path=str(folder))
    found = checked(deployment(engine, base, adapters=(adapter,)))
    assert {name: one.parity for name, one in found.items()} == {name_of(str(base)): "none", "mine": "ok"}
    assert {one["model"] for one in engine.asked} == {"mine"}
    assert set(checked(deployment(engine, "org/model"))) == {name_of("org/model")}


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"x" * 70_000])
def test_a_damaged_certificate_asks_nothing(engine, folder, content):
    (folder / PARITY).write_bytes(content)
    assert of_model(engine, folder).parity is Parity.NONE
    assert engine.asked == []


def test_neither_a_link_nor_a_fifo_is_read(engine, folder, tmp_path):
    import os

    (tmp_path / "elsewhere").write_bytes((folder / PARITY).read_bytes())
    (folder / PARITY).unlink()
    (folder / PARITY).symlink_to(tmp_path / "elsewhere")
    assert of_model(engine, folder).parity is Parity.NONE
    (folder / PARITY).unlink()
    os.mkfifo(folder / PARITY)
    assert of_model(engine, folder).parity is Parity.NONE


def test_an_engine_of_vllm_s_kind_that_tells_no_ids_runs_all_the_same(client, engines: Engines, server):
    """The whole way: it is running, `none`, and the log of the service says why."""
    folder = engines.place.parent / "state/models/small"
    (folder / PARITY).write_bytes(encode_certificate(CERTIFICATE))
    made = deploy(client)
    assert (made["status"], made["parity"]) == ("starting", "none")
    found = once(client, made["deployment_id"], "running", "unhealthy")
    assert (found["status"], found["parity"]) == ("running", "none")
    assert "does not know return_token_ids" in server.log.read_text()
    assert [one["path"] for one in engines.asked] == ["/v1/chat/completions"] * 3, "once for each engine"
    shown(client, made["deployment_id"])
    assert len(engines.asked) == 3


def test_a_record_of_an_older_version_has_not_been_compared(engine, folder):
    """It is, at its next health check."""
    old = msgspec.to_builtins(deployment(engine, folder))
    assert "parity" not in old
    assert msgspec.convert(old, Deployment).parity is None
