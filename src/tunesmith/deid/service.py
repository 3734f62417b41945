"""Keeps one worker process that de-identifies: started when first asked, ended when idle, replaced when it dies.

One request is with the worker at a time; the others wait here. Texts pass through and are neither kept nor logged.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import msgspec
import structlog

from tunesmith.contract.calls import PACKAGE_MISSING, UNEXPECTED, Refusal
from tunesmith.errors import Fault, InvalidInput, TooLarge, Unavailable, WorkerFailed
from tunesmith.runner.calls.conversation import Conversation, NoAnswer, Refused, end_worker, open_worker
from tunesmith.runner.local.descriptors import AS_INHERITED, ChildDescriptors

Locale = Literal["zh-CN", "en-US"]

_MODULE = "tunesmith_workers.deid.serve"
_MOST_TEXTS = 1000
_MOST_CHARACTERS = 500_000
_MOST_WAITING = 64
# A third of what an ordinary machine manages of Chinese text, which takes longest.
_CHARACTERS_IN_A_SECOND = 5000
_log = structlog.get_logger()


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts, and how to treat them."""

    texts: tuple[str, ...]
    policy_id: str = "default"
    locale: Locale | None = None
    seed: int | None = None


class Deidentified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the texts, in their order."""

    texts: list[str]
    counts: dict[str, int]
    mapping: list[dict[str, str]]
    """For each text, what stood there and what stands there now."""
    policy_id: str
    policy_version: str


class PolicyOverview(msgspec.Struct, frozen=True, kw_only=True):
    """A policy file, and what is wrong with it."""

    id: str
    source: Literal["shipped", "state"]
    version: str | None = None
    summary: str = ""
    locale: Locale | None = None
    kinds: dict[str, str] = {}
    """Each kind with its action."""
    faults: tuple[Fault, ...] = ()


class DeidService:
    """The door to the worker. ``run`` must run for as long as it is used."""

    def __init__(
        self,
        policies: Path,
        *,
        idle_seconds: float = 300.0,
        seconds: float = 30.0,
        python: str = sys.executable,
        variables: Sequence[str] = (),
        descriptors: ChildDescriptors = AS_INHERITED,
    ) -> None:
        """
        Args:
            policies: the folder of the operator's policies.
            idle_seconds: how long the worker lives when nobody asks.
            seconds: how long a request may take, beside what its length allows it. Some texts take a recogniser for ever,
                and whoever sends one must not keep the others waiting.
            python: what runs the worker.
            variables: those of the server that the worker is given beside the ordinary ones.
            descriptors: how many files the worker may open.
        """
        self._descriptors = descriptors
        self._policies = policies
        self._idle_seconds = idle_seconds
        self._seconds = seconds
        self._python = python
        self._variables = tuple(variables)
        self._turn = anyio.Lock()
        self._waiting = 0
        self._worker: Conversation | None = None
        self._asked = 0
        self._last_used = time.monotonic()

    @property
    def pid(self) -> int | None:
        """The worker's process id, while there is one."""
        return self._worker.process.pid if self._worker is not None else None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """End the worker when nobody has asked for a while, and with the server."""
        task_status.started()
        try:
            while True:
                await anyio.sleep(max(0.05, self._last_used + self._idle_seconds - time.monotonic()))
                if time.monotonic() - self._last_used >= self._idle_seconds and not self._turn.locked():
                    async with self._turn:
                        await self._end_idle()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end("stopping")

    async def texts(self, request: TextRequest) -> Deidentified:
        """The texts without what the policy treats.

        Raises:
            TooLarge: too many texts, or too long ones.
            InvalidInput: an unknown policy, with the nearest name, or a broken one with all that is wrong.
            InvalidInput: the texts took too long; the worker was ended, and the next request gets a new one.
            Unavailable: the packages are not installed, or too many requests are waiting.
            WorkerFailed: the worker died, twice.
        """
        length = sum(map(len, request.texts))
        if len(request.texts) > _MOST_TEXTS or length > _MOST_CHARACTERS:
            raise TooLarge(
                f"{len(request.texts)} texts with {length} characters: at most {_MOST_TEXTS} with {_MOST_CHARACTERS} in one request",
                where="text",
                mend="send them in several requests, or de-identify the file while it is processed",
            )
        asked = {"ask": "texts", "policy_id": request.policy_id, "locale": request.locale, "seed": request.seed}
        return msgspec.convert(await self._ask({**asked, "text": request.texts}), Deidentified)

    async def policies(self) -> list[PolicyOverview]:
        """Every policy, shipped ones and those of the state folder, with what is wrong with a broken one."""
        return msgspec.convert((await self._ask({"ask": "policies"}))["policies"], list[PolicyOverview])

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._waiting >= _MOST_WAITING:
            raise Unavailable(
                "too many texts are waiting to be de-identified", where="deidentify", mend="try again in a moment"
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._answer({**request, "policies_dir": str(self._policies.absolute())})
        finally:
            self._waiting -= 1
            self._last_used = time.monotonic()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._reply(request)
        except _Died:
            # It may have been killed long before this request, or by something else on the machine.
            try:
                return await self._reply(request)
            except _Died as died:
                raise WorkerFailed(
                    f"the process that de-identifies ended with {died} in the middle of the request, twice",
                    mend="send less text at a time; if it has too little memory, free some",
                ) from None

    async def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self._worker
        if worker is None:
            opened = await open_worker(
                self._python,
                _MODULE,
                stderr=subprocess.DEVNULL,
                variables=self._variables,
                descriptors=self._descriptors,
            )
            worker = self._worker = Conversation(opened)
            _log.info("deid_started", pid=worker.process.pid)
        characters = sum(map(len, request.get("text", ())))
        seconds = self._seconds + characters / _CHARACTERS_IN_A_SECOND
        try:
            with anyio.fail_after(seconds):
                self._asked += 1
                return await worker.ask(request, self._asked)
        except Refused as refused:
            raise _error_of(refused.refusal) from None
        except NoAnswer:
            raise _Died(await self._end("died")) from None
        except TimeoutError:
            await self._end("too slow")
            raise InvalidInput(
                f"{characters} characters were not de-identified within {seconds:g} s",
                where="text",
                mend="send fewer or shorter texts at a time; text without words takes longest",
            ) from None
        except BaseException:
            # Nobody waits for the answer any more: what it still says would be taken for the next one's.
            await self._end("abandoned")
            raise

    async def _end_idle(self) -> None:
        try:
            await self._end("idle")
        except Exception:  # noqa: BLE001  # what is wrong with one worker must not keep the next from being looked after
            _log.exception("deid_not_ended")

    async def _end(self, reason: str) -> int | None:
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        await end_worker(worker.process)
        _log.info("deid_ended", pid=worker.process.pid, reason=reason)
        return worker.process.returncode


class _Died(Exception):
    """The worker ended before it answered; with its exit code."""


def _error_of(refusal: Refusal) -> Exception:
    text, where, mend = refusal.text, refusal.where, refusal.mend
    if refusal.cause == PACKAGE_MISSING:
        return Unavailable(text, where=where, mend=mend)
    if refusal.cause == UNEXPECTED:
        return WorkerFailed(f"de-identifying failed: {text}", mend="please report this; the text itself is not needed")
    faults = msgspec.convert(refusal.faults, tuple[Fault, ...])
    if faults:
        return InvalidInput(text.partition(": ")[0], where=where, mend=mend, faults=faults)
    return InvalidInput(text, where=where, mend=mend)
