"""Calling a worker program for an answer: whatever the program does, the caller learns it, and nothing is left running."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from support.leftovers import nothing_left_open
from tunesmith.errors import InvalidInput, OutOfSpace, WorkerFailed
from tunesmith.runner import WorkerCalls
from tunesmith.runner.calls.conversation import Conversation, NoAnswer, Refused, end_worker, open_worker
from tunesmith.runner.local.identity import identify

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def program(folder: Path, script: str) -> str:
    """A program that stands where the interpreter would: it is started with ``-m MODULE``."""
    path = folder / "program"
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return str(path)


def noted(path: Path) -> int | None:
    """The number in a file, once it is there whole."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text.endswith("\n") else None


async def written(path: Path) -> int:
    with anyio.fail_after(60):
        while (pid := noted(path)) is None:  # noqa: ASYNC110  # a file sends no event
            await anyio.sleep(0.01)
    return pid


async def gone(pid: int) -> None:
    with anyio.fail_after(60):
        while identify(pid) is not None:  # noqa: ASYNC110  # neither does the end of somebody else's child
            await anyio.sleep(0.01)


async def test_the_request_arrives_and_the_answer_comes_back(tmp_path):
    """Text around the result is not in its way; the request is one line of JSON."""
    echo = program(tmp_path, 'read -r line; echo loading; echo "{\\"tunesmith\\":\\"result\\",\\"heard\\":$line}"')
    assert await WorkerCalls(python=echo).call("any", {"names": ["a\n", "ü"]}) == {"heard": {"names": ["a\n", "ü"]}}


async def test_a_bug_of_the_program_is_not_blamed_on_the_request(tmp_path):
    """What it did not foresee is told with its last words, as a failure of the service."""
    event = '{"tunesmith":"message","level":"error","text":"KeyError: x","cause":"unexpected"}'
    buggy = program(tmp_path, f"echo Traceback of the bug; echo '{event}'; exit 1")
    with pytest.raises(WorkerFailed, match="Traceback of the bug"):
        await WorkerCalls(python=buggy).call("any", {})


async def test_an_answer_of_many_chunks_is_whole(tmp_path):
    long = program(
        tmp_path,
        'printf \'{"tunesmith":"result","text":"%0.sx\' ; head -c 3000000 /dev/zero | tr \'\\0\' y; echo \'"}\'',
    )
    answer = await WorkerCalls(python=long).call("any", {})
    assert answer["text"] == "x" + "y" * 3_000_000


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        ("", InvalidInput),
        (',"cause":"out_of_space"', OutOfSpace),
        (',"cause":"package_missing"', WorkerFailed),
    ],
)
async def test_a_refusal_is_passed_on_in_the_words_of_the_program(tmp_path, cause, error):
    event = (
        '{"tunesmith":"message","level":"error","text":"no row is left","where":"a.jsonl:7","mend":"add one"' + cause
    )
    refusing = program(tmp_path, f"echo '{event}}}'; exit 1")
    with pytest.raises(error) as caught:
        await WorkerCalls(python=refusing).call("any", {})
    assert (caught.value.message, caught.value.where, caught.value.mend) == ("no row is left", "a.jsonl:7", "add one")


@pytest.mark.parametrize("script", ["echo last words >&2; exit 3", "echo last words; kill -9 $$", "echo last words"])
async def test_an_end_without_an_answer_is_told_with_the_last_words(tmp_path, script):
    with pytest.raises(WorkerFailed, match="last words"):
        await WorkerCalls(python=program(tmp_path, script)).call("any", {})


async def test_a_missing_package_is_told():
    """What a person sees who did not install the extra that a worker needs."""
    with pytest.raises(WorkerFailed, match="No module named") as caught:
        await WorkerCalls().call("tunesmith_workers.nothing_of_that_name", {})
    assert "install the extra" in str(caught.value)


async def test_a_call_that_takes_too_long_is_ended_with_its_children(tmp_path):
    # Long enough to start a child in, a hundred times over.
    slow = program(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; wait")
    async with nothing_left_open():
        with pytest.raises(WorkerFailed, match="no answer within"):
            await WorkerCalls(python=slow).call("any", {}, seconds=3)
        await gone(await written(tmp_path / "pid"))


async def test_a_caller_that_leaves_takes_the_program_along(tmp_path):
    """A client that hangs up cancels the call."""
    slow = program(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 1000")
    async with nothing_left_open():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(WorkerCalls(python=slow).call, "any", {})
            pid = await written(tmp_path / "pid")
            tasks.cancel_scope.cancel()
        await gone(pid)


async def test_no_more_than_the_allowed_number_run_at_once(tmp_path):
    """The second starts once the first has ended, not before."""
    counting = program(
        tmp_path,
        f'mkdir {tmp_path}/running || exit 9; sleep 0.2; rmdir {tmp_path}/running; echo \'{{"tunesmith":"result"}}\'',
    )
    calls = WorkerCalls(at_once=1, python=counting)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(calls.call, "any", {})
    assert not (tmp_path / "running").exists()


async def test_a_worker_leaves_when_its_caller_was_killed(tmp_path):
    """The server dies by kill -9: what it had called does not go on for nobody."""
    worker = "import os, time\nfrom tunesmith_workers.process.calls import answer_and_exit\n"
    worker += f"def work(request):\n    open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\n    time.sleep(1000)\n"
    (tmp_path / "slow_worker.py").write_text(worker + "answer_and_exit(work)\n")
    caller = (
        "import anyio\nfrom tunesmith.runner import WorkerCalls\nanyio.run(WorkerCalls().call, 'slow_worker', {})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    async with await anyio.open_process([sys.executable, "-c", caller], env=environment) as process:
        pid = await written(tmp_path / "pid")
        process.kill()
    await gone(pid)


KEPT = """
import os, sys, time
from tunesmith_workers.process.calls import keep_answering
from tunesmith_workers.process.faults import BadRows, PackageMissing

count = 0

def answer(request):
    global count
    count += 1
    print("a library says", request, end="")
    os.system("echo and so does its child")
    if request.get("sleep"):
        open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
        time.sleep(1000)
    if request.get("bug"):
        raise KeyError(request["bug"])
    if request.get("refuse"):
        raise BadRows("no row is left", where="a.jsonl:7", mend="add one")
    if request.get("package"):
        raise PackageMissing("needs a package")
    return {"count": count, "text": request["text"], "nothing": None}

keep_answering(answer)
"""


@asynccontextmanager
async def kept_worker(folder: Path) -> AsyncIterator[tuple[Conversation, list[bytes]]]:
    (folder / "kept.py").write_text(KEPT)
    python, log = program(folder, f"exec {sys.executable} {folder}/kept.py {folder}/pid 2>/dev/null"), []
    process = await open_worker(python, "any")
    try:
        with anyio.fail_after(60):
            yield Conversation(process, log.append), log
    finally:
        await end_worker(process)


async def test_a_worker_that_is_kept_is_asked_again_by_the_same_protocol(tmp_path):
    """What it answers is an event with the number of the request; what libraries print is not in the way of it."""
    async with kept_worker(tmp_path) as (talk, log):
        for number in range(1, 4):
            said = {"count": number, "text": "a\nü\r" * number, "nothing": None}
            assert await talk.ask({"text": "a\nü\r" * number}, number) == said
        large = "x" * 3_000_000
        assert (await talk.ask({"text": large}, 4))["text"] == large
        assert log == []


async def test_a_kept_worker_refuses_in_its_own_words_and_goes_on(tmp_path):
    """Each with its cause. What nobody has foreseen is told by type and place: its words may quote the request."""
    async with kept_worker(tmp_path) as (talk, _):
        with pytest.raises(Refused) as refused:
            await talk.ask({"refuse": True}, 1)
        told = refused.value.refusal
        assert (told.text, told.where, told.mend, told.cause) == ("no row is left", "a.jsonl:7", "add one", None)
        with pytest.raises(Refused) as refused:
            await talk.ask({"package": True}, 2)
        assert refused.value.refusal.cause == "package_missing"
        with pytest.raises(Refused) as refused:
            await talk.ask({"bug": "secret"}, 3)
        told = refused.value.refusal
        assert told.cause == "unexpected"
        assert told.text.startswith("KeyError at kept.py:")
        assert "secret" not in repr(told)
        assert (await talk.ask({"text": "on"}, 4))["count"] == 4


async def test_a_kept_worker_leaves_when_its_input_closes(tmp_path):
    """In the middle of its work, too; whoever waits for the answer learns that there is none."""
    async with kept_worker(tmp_path) as (talk, _), anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(NoAnswer):
                await talk.ask({"sleep": True}, 1)

        tasks.start_soon(ask)
        pid = await written(tmp_path / "pid")
        await talk.process.stdin.aclose()
        await gone(pid)


async def test_an_answer_to_another_request_is_not_taken(tmp_path):
    """A late answer to who has left is no answer to who asks now."""
    late = program(tmp_path, """read -r _; echo '{"tunesmith":"result","call":6,"of":"another"}'; cat >/dev/null""")
    process = await open_worker(late, "any")
    try:
        with anyio.move_on_after(1) as waiting:
            await Conversation(process).ask({}, 7)
        assert waiting.cancelled_caught
    finally:
        await end_worker(process)
