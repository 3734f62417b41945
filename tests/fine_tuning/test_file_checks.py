"""Looking at the rows of files: one that cannot be looked at keeps no other waiting, and is told so."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import anyio
import pytest

import tunesmith.openai.file_checks as subject
from fine_tuning.job_parts import rows
from support.app import eventually
from tunesmith.app import open_services
from tunesmith.datasets import Details
from tunesmith.openai.file_checks import FileChecks
from tunesmith.runner import WorkerCalls
from tunesmith.settings import Settings

_DIES_OF_ONE_FILE = f"""#!/usr/bin/env bash
exec 3<&0
read -r request
case "$(head -c 200 "$(sed 's/.*"file":"\\([^"]*\\)".*/\\1/' <<<"$request")")" in *poison*) kill -9 $$;; esac
exec {sys.executable} "$@" < <(printf "%s\\n" "$request"; exec cat <&3 2>&-)
"""


class ShortOfDescriptors:
    """Worker programs that cannot be started, the first times."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def call(self, module, request, *, seconds=1.0):
        self.times -= 1
        if self.times >= 0:
            raise OSError(24, "Too many open files")
        return {"total": 2, "error_count": 0, "errors": [], "stats": {"shapes": {"messages": 2}}}


@pytest.mark.anyio
async def test_a_shortage_delays_looks_and_ends_nothing(tmp_path, monkeypatch):
    """The task that looks at files is one of those that the server does not live without."""
    monkeypatch.setattr(subject, "_RETRY_SECONDS", 0.01)
    (tmp_path / "recipes").mkdir()
    app = open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path / "recipes"))
    uploads, files = app.services.uploads, app.services.single_files
    checks = FileChecks(uploads, ShortOfDescriptors(5), tmp_path)

    async def chunks() -> AsyncIterator[bytes]:
        yield rows(2)

    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: checks.run(task_status=task_status))
        for name in ("one.jsonl", "two.jsonl"):
            put = await files.put(name, chunks(), lambda _: Details(purpose="fine-tune"))
            checks.ask(put.upload.id)
        for upload_id in list(uploads.sorted_ids):
            assert (await checks.verdict(upload_id)).rows == 2
        tasks.cancel_scope.cancel()
    for journal in app.journals:
        await journal.close()


@pytest.mark.anyio
async def test_a_file_at_which_the_worker_dies_keeps_no_other_waiting(tmp_path, monkeypatch):
    """As one does that the machine has no memory for."""
    monkeypatch.setattr(subject, "_RETRY_SECONDS", 0.05)
    python = tmp_path / "python"
    python.write_text(_DIES_OF_ONE_FILE)
    python.chmod(0o700)
    (tmp_path / "recipes").mkdir()
    app = open_services(Settings(state_dir=tmp_path / "state", recipes_dir=tmp_path / "recipes"))
    uploads = app.services.uploads
    checks = FileChecks(uploads, WorkerCalls(python=str(python)), tmp_path)

    async def put(content: bytes) -> str:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        put = await app.services.single_files.put("r.jsonl", chunks(), lambda _: Details(purpose="fine-tune"))
        checks.ask(put.upload.id)
        return put.upload.id

    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: checks.run(task_status=task_status))
        poison = await put(b'{"poison": 1}\n')
        good = await put(rows(2))
        await eventually(lambda: uploads.get(good).check is not None)
        await eventually(lambda: uploads.get(poison).check is not None)
        assert not (await checks.verdict(poison)).ok
        assert "memory" in uploads.get(poison).check.told[0]
        assert uploads.get(good).check.ok
        tasks.cancel_scope.cancel()
    for journal in app.journals:
        await journal.close()
