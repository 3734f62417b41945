"""The worker behind de-identification: one process, replaced when it dies, gone when idle, never in anybody's way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from support.app import eventually
from support.leftovers import nothing_left_open
from tunesmith.deid import DeidService, TextRequest
from tunesmith.errors import InvalidInput, TooLarge, Unavailable, WorkerFailed

pytestmark = pytest.mark.anyio

ASK = TextRequest(texts=("我叫张伟",), seed=1)


@asynccontextmanager
async def running(folder: Path, **options) -> AsyncIterator[DeidService]:
    # A busy machine takes its time to load the dictionaries: what is patient here is only the test.
    service = DeidService(folder / "policies", **{"seconds": 100.0, **options})
    async with nothing_left_open(), anyio.create_task_group() as tasks:
        await tasks.start(service.run)
        yield service
        tasks.cancel_scope.cancel()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def worked(pid: int) -> int:
    """Ticks of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_one_process_for_all_and_none_after(tmp_path):
    """It is started by the first request, serves many at once one after the other, and ends with the service."""
    async with running(tmp_path) as service:
        assert service.pid is None
        first = await service.texts(ASK)
        pid = service.pid
        answers = {}

        async def ask(number: int) -> None:
            answers[number] = await service.texts(TextRequest(texts=(f"手机1381234{number:04d}",), seed=1))

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(ask, number)
        assert service.pid == pid
        assert [list(answers[number].mapping[0]) for number in range(40)] == [
            [f"1381234{number:04d}"] for number in range(40)
        ]
        assert (await service.texts(ASK)) == first
    assert not alive(pid)


async def test_killed_in_the_middle_it_is_replaced(tmp_path):
    """The request that it was killed in is begun again in a new process; its caller sees nothing of it."""
    async with running(tmp_path) as service:
        await service.texts(ASK)
        pid = service.pid
        long = TextRequest(texts=("请联系张伟，手机13812345678。" * 2_000,), policy_id="redact")

        async def kill() -> None:
            start = worked(pid)
            await eventually(lambda: worked(pid) > start)  # it has begun, and is far from done
            os.kill(pid, signal.SIGKILL)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill)
            done = await service.texts(long)
        assert done.texts == ["请联系<PERSON>，手机<PHONE>。" * 2_000]
        assert service.pid != pid


async def test_a_process_that_cannot_live_is_not_tried_for_ever(tmp_path):
    """Twice, and then the caller is told how it ended."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho started >> "{tmp_path}/starts"\nread -r request\nexit 3\n')
    python.chmod(0o755)
    async with running(tmp_path, python=str(python)) as service:
        with pytest.raises(WorkerFailed, match="ended with 3 in the middle of the request, twice"):
            await service.texts(ASK)
        assert (tmp_path / "starts").read_text() == "started\n" * 2
        assert service.pid is None


async def test_killed_between_requests_nobody_notices(tmp_path):
    """A new process takes the next one."""
    async with running(tmp_path) as service:
        before = await service.texts(ASK)
        pid = service.pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not alive(pid))
        assert await service.texts(ASK) == before


async def test_it_ends_when_idle(tmp_path):
    """And is started again when asked again."""
    async with running(tmp_path, idle_seconds=0.3) as service:
        await service.policies()
        pid = service.pid
        await eventually(lambda: service.pid is None and not alive(pid))
        await service.policies()
        assert service.pid not in (None, pid)


async def test_a_request_has_limited_time(tmp_path):
    """Then the process is ended, and the next request gets a new one."""
    async with running(tmp_path, seconds=0.05) as service:
        with pytest.raises(InvalidInput, match=r"not de-identified within 0\.05") as refused:
            await service.texts(ASK)
        assert refused.value.where == "text"
        assert service.pid is None


async def test_a_text_that_takes_for_ever_does_not_keep_the_others_waiting(tmp_path):
    """The worker is ended with it; who asks meanwhile is answered by the next one."""
    async with (
        running(tmp_path, seconds=20.0, python=worker_that_hangs(tmp_path)) as service,
        anyio.create_task_group() as tasks,
    ):
        await service.texts(ASK)
        first = service.pid
        answered = anyio.Event()

        async def ask_meanwhile() -> None:
            assert (await service.texts(ASK)).texts == ["done"]
            answered.set()

        async def ask_for_ever() -> None:
            tasks.start_soon(ask_meanwhile)
            with pytest.raises(InvalidInput, match="7 characters were not de-identified within"):
                await service.texts(TextRequest(texts=("endless",)))

        await ask_for_ever()
        await answered.wait()
        assert service.pid not in (None, first)
        assert not alive(first)


async def test_a_longer_text_may_take_longer(tmp_path):
    """A second for each 5,000 characters, so that half a million of them are not given up too early."""
    async with running(tmp_path, seconds=0.2, python=worker_that_hangs(tmp_path)) as service:
        with pytest.raises(InvalidInput, match=r"10000 characters were not de-identified within 2\.2 s"):
            await service.texts(TextRequest(texts=("endless" + "x" * 9993,)))


def worker_that_hangs(folder: Path) -> str:
    """Stands in for Python: a worker that answers at once, and never when a text begins with `endless`."""
    worker = folder / "worker"
    worker.write_text(
        f"#!{sys.executable}\n"
        "import json, sys, time\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    while asked['text'][0].startswith('endless'):\n"
        "        time.sleep(1)\n"
        "    answer = {'texts': ['done'], 'counts': {}, 'mapping': [], 'policy_id': 'a', 'policy_version': '1'}\n"
        "    print(json.dumps({'tunesmith': 'result', 'call': asked['call'], **answer}), flush=True)\n"
    )
    worker.chmod(0o755)
    return str(worker)


async def test_a_caller_who_leaves_spoils_nothing(tmp_path):
    """What was meant for them is never taken for another's answer."""
    async with running(tmp_path) as service:
        await service.policies()
        with anyio.move_on_after(0.01):
            await service.texts(ASK)
        other = await service.texts(TextRequest(texts=("手机13812345678",), policy_id="redact"))
        assert other.texts == ["手机<PHONE>"]


@pytest.mark.parametrize("texts", [("x",) * 1001, ("x" * 500_001,), ("x" * 300_000,) * 2])
async def test_too_much_is_refused_before_a_process_starts(tmp_path, texts):
    """With the limits, and what to do instead."""
    async with running(tmp_path) as service:
        with pytest.raises(TooLarge, match="at most 1000 with 500000"):
            await service.texts(TextRequest(texts=texts))
        assert service.pid is None


@pytest.mark.parametrize("package", ["presidio_analyzer", "jieba", "faker"])
async def test_without_the_packages_the_mend_is_said(tmp_path, package):
    """A Python where one of them cannot be imported: the command that installs them, and policies can be listed still."""
    python = tmp_path / "python"
    code = f"import sys, runpy; sys.modules[{package!r}] = None; sys.argv = sys.argv[2:]; runpy.run_module(sys.argv[0], run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    python.chmod(0o755)
    async with running(tmp_path, python=str(python)) as service:
        with pytest.raises(Unavailable, match=package) as refused:
            await service.texts(ASK)
        assert "pip install 'tunesmith[deid]'" in str(refused.value.mend)
        assert {policy.id for policy in await service.policies()} == {"default", "mask", "redact"}


async def test_policies_of_the_operator(tmp_path):
    """They are read anew for every request; a broken one is told with all that is wrong, and never shows its salt."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "own.yaml").write_text("id: own\nversion: 2\nsalt: hidden\nkinds: {PERSON: {action: redact}}\n")
    (folder / "broken.yaml").write_text("id: broken\nversion: 1\nkinds: {PERSN: {action: redact}}\n")
    async with running(tmp_path) as service:
        listed = {policy.id: policy for policy in await service.policies()}
        assert listed["own"].kinds == {"PERSON": "redact"}
        assert "hidden" not in repr(listed)
        assert [fault.mend for fault in listed["broken"].faults] == ["did you mean PERSON?"]
        with pytest.raises(InvalidInput) as refused:
            await service.texts(TextRequest(texts=("x",), policy_id="broken"))
        assert [fault.where for fault in refused.value.faults] == ["kinds.PERSN"]
        done = await service.texts(TextRequest(texts=("我叫张伟",), policy_id="own"))
        assert (done.texts, done.policy_version) == (["我叫<PERSON>"], "2")
        (folder / "own.yaml").write_text("id: own\nversion: 3\nkinds: {PHONE: {action: redact}}\n")
        done = await service.texts(TextRequest(texts=("我叫张伟",), policy_id="own"))
        assert (done.texts, done.policy_version) == (["我叫张伟"], "3")
