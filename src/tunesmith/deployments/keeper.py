"""Carrying the engine of one deployment: started or adopted, watched, started again when it ends, until it is to be no more.

What is recorded is what was seen: running only after a health check and once its answers were compared with those of the trained
model, unhealthy after a check that failed or answers that differ. Which deployments there are, and who asks for their end, is decided in ``service``.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.deployments.book import DeploymentBook
from tunesmith.deployments.endings import Ending, ending_of, with_last_lines
from tunesmith.deployments.engines import Engines
from tunesmith.deployments.health import HEALTHY, HealthCheck, Verdict
from tunesmith.deployments.parity import ParityCheck, together
from tunesmith.deployments.ports import Ports, is_free
from tunesmith.errors import Conflict
from tunesmith.files import NO_ROOM, raise_shortage
from tunesmith.paths import AttemptPaths, StatePaths
from tunesmith.records import Clock, Deployment, DeploymentStatus, Parity, ServedAdapter
from tunesmith.runner import Executor

_log = structlog.get_logger()
_POLL_SECONDS = 2.0
_FIRST_POLL_SECONDS = 0.25
"""As long as it loads its model: somebody waits for it."""
_LONGEST_BACKOFF_SECONDS = 60.0
_WELL_SECONDS = 600.0
"""After so long in health, an engine that ends is started again as if it were the first time."""
_STOP_RETRY_SECONDS = 1.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often things are tried."""

    start_deadline_seconds: float
    """From the start of an engine to its first successful health check."""
    max_restarts: int
    stop_grace_seconds: float


class _Watched:
    """What is seen of one engine while it lives. Nothing of it outlives the server."""

    def __init__(self, seconds_ago: float) -> None:
        self.began = time.monotonic() - seconds_ago
        self.well_since = math.inf
        self.too_late = False

    @property
    def was_well_for_long(self) -> bool:
        return time.monotonic() - self.well_since >= _WELL_SECONDS


class Keeper:
    """Carries engines, each in a task of its own."""

    def __init__(
        self,
        *,
        book: DeploymentBook,
        executor: Executor,
        engines: Engines,
        ports: Ports,
        health: HealthCheck,
        parity: ParityCheck,
        paths: StatePaths,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._book = book
        self._executor = executor
        self._engines = engines
        self._ports = ports
        self._health = health
        self._parity = parity
        self._paths = paths
        self._clock = clock
        self._limits = limits

    async def carry(self, deployment_id: str, *, adopts: bool) -> None:
        """Until it has ended. ``adopts`` when an engine of it may be there already: it is taken over, not started."""
        while not (one := self._book.get(deployment_id)).has_ended:
            if one.removed_at is not None:
                await self._stop_for_good(one)
                continue
            watched = _Watched(self._age(one) if adopts else 0.0)
            if adopts and one.process is None and await self._executor.abandon(self._attempt(one), one.id):
                one = await self._another_attempt(one)  # the intent was journaled, the process never began
                adopts = False
            ending = await self._one_engine(one, watched, adopts=adopts)
            adopts = False
            await self._after(ending, watched)

    def _attempt(self, one: Deployment) -> AttemptPaths:
        return self._paths.deployment(one.id).attempt(one.attempt)

    def _age(self, one: Deployment) -> float:
        """How long its engine has been loading. A clock that was set in between makes it anything: then it is new."""
        seconds = (self._clock() - (one.started_at or self._clock())).total_seconds()
        return seconds if 0 <= seconds <= self._limits.start_deadline_seconds else 0.0

    async def _one_engine(self, one: Deployment, watched: _Watched, *, adopts: bool) -> Ending:
        """From its start, or its adoption, to its end."""
        if not adopts:
            refusal = await self._start(one)
            if refusal is not None:
                return refusal
        started = await self._executor.started(self._attempt(one), one.id)
        if started is None:
            return Ending(deployment_id=one.id, reason="the process did not begin in time")
        if one.process is None:
            one = await self._book.change(
                one.id, "started", process=started.program, started_at=started.at or self._clock()
            )
        _log.info("engine_adopted" if adopts else "engine_started", deployment_id=one.id, port=one.port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, one, watched)
            exit_ = await self._executor.wait(self._attempt(one), one.id)
            tasks.cancel_scope.cancel()
        return ending_of(self._book.get(one.id), exit_)

    async def _start(self, one: Deployment) -> Ending | None:
        """Why it could not be started."""
        if self._book.get(one.id).removed_at is not None:
            return Ending(deployment_id=one.id, reason="it was removed")
        folder = self._paths.deployment(one.id)
        try:
            await anyio.to_thread.run_sync(lambda: folder.folder.mkdir(mode=0o700, parents=True, exist_ok=True))
            launch = self._engines.launch(
                one, str(folder.folder.resolve()), str(folder.folder.resolve() / folder.log.name)
            )
            await self._executor.start(self._attempt(one), launch)
        except OSError as error:
            raise_shortage(error)
            if error.errno in NO_ROOM:
                raise
            return Ending(deployment_id=one.id, reason=f"the engine could not be started: {error.strerror or error}")
        return None

    async def _watch(self, one: Deployment, watched: _Watched) -> None:
        """Health, again and again until cancelled. Ends an engine that does not get well in time."""
        while True:
            healthy = await self._is_well(one)
            watched.well_since = min(watched.well_since, time.monotonic()) if healthy else math.inf
            one = self._book.get(one.id)
            late = one.healthy_at is None and time.monotonic() - watched.began > self._limits.start_deadline_seconds
            if one.removed_at is None and late:
                watched.too_late = True
                await self._executor.stop(self._attempt(one), one.id, grace_seconds=self._limits.stop_grace_seconds)
            await anyio.sleep(_FIRST_POLL_SECONDS if one.healthy_at is None else _POLL_SECONDS)

    async def _is_well(self, one: Deployment) -> bool:
        try:
            healthy = (await self.check(one)).healthy
            now = self._book.get(one.id)
            if healthy and now.parity is None and now.removed_at is None:
                await self._compare(now)
            return healthy
        except Exception:  # noqa: BLE001  # a check that goes wrong, or cannot be recorded, does not end the engine
            _log.exception("deployment_not_checked", deployment_id=one.id)
            return False

    async def check(self, one: Deployment) -> Verdict:
        """One health check, recorded unless another engine has taken the place of this one by then, or it is healthy and its
        answers are still to be compared.
        """
        verdict = await self._health.of(one)
        if not verdict.healthy or self._book.get(one.id).parity is not None:
            await self._record(one, verdict)
        return verdict

    async def _compare(self, one: Deployment) -> None:
        """Whether it serves what was trained: once for each engine. Of several adapters that were loaded because somebody asked,
        one that differs is unloaded, and whoever asks for it again is told why.
        """
        found = await self._parity.of(one)
        changes: dict[str, Any] = {}
        if one.on_demand:
            differing = [it for it in one.adapters if found[it.name].parity is Parity.DIFFERS]
            for adapter in differing:
                await self._parity.unload(one, adapter.name)
                del found[adapter.name]
            if differing:
                changes["adapters"] = tuple(it for it in one.adapters if it not in differing)
        verdict = together(found.values())
        await self._record(one, HEALTHY, parity=verdict.parity, parity_reason=verdict.reason, **changes)

    async def _record(self, one: Deployment, verdict: Verdict, **compared: Any) -> None:
        now = self._book.get(one.id)
        status, reason = _status_after(msgspec.structs.replace(now, **compared), verdict)
        if (status, reason) == (now.status, now.reason) and not compared:
            return
        try:
            await self._book.change(
                one.id,
                str(status),
                only_if=lambda it: (
                    (it.attempt, it.status, it.removed_at) == (one.attempt, now.status, None) and it.process is not None
                ),
                status=status,
                reason=reason,
                healthy_at=self._clock() if verdict.healthy and now.healthy_at is None else now.healthy_at,
                **compared,
            )
        except Conflict:
            _log.debug("health_check_outdated", deployment_id=one.id)

    async def _after(self, ending: Ending, watched: _Watched) -> None:
        """Another attempt after a pause, or the end."""
        one = self._book.get(ending.deployment_id)
        if one.removed_at is not None:
            return
        taken = not watched.too_late and not is_free(one.port)  # nothing of ours is left
        reason = f"port {one.port} was taken by another process" if taken else ending.reason
        if watched.too_late:
            reason = f"the engine was not healthy within {self._limits.start_deadline_seconds:g} seconds, and was ended"
        restarts = 0 if watched.was_well_for_long else one.restarts
        # Whoever waits for it should learn of a model that cannot be loaded now, not after the last try.
        hopeless = watched.too_late or (one.on_demand and one.healthy_at is None and not taken)
        if hopeless or restarts >= self._limits.max_restarts:
            told = await anyio.to_thread.run_sync(with_last_lines, reason, self._paths.deployment(one.id).log)
            _log.warning("deployment_failed", deployment_id=one.id, reason=reason)
            await self._end(one, DeploymentStatus.FAILED, told)
            return
        pause = min(2.0**restarts, _LONGEST_BACKOFF_SECONDS)
        _log.warning("engine_ended", deployment_id=one.id, reason=reason, next_try_seconds=pause)
        one = await self._another_attempt(one, restarts=restarts + 1, reason=f"{reason}; it is started again")
        with anyio.move_on_after(pause):
            await self._book.wait(one.id, lambda it: it.removed_at is not None)

    async def _another_attempt(self, one: Deployment, **changes: Any) -> Deployment:
        """Journal the intent to start another engine: on its port, or on another if that is taken by now."""
        port = one.port if is_free(one.port) else self._ports.reserve()
        there = await anyio.to_thread.run_sync(_adapters_to_serve, one)
        next_one = msgspec.structs.replace(one, port=port, adapters=there)
        try:
            return await self._book.change(
                one.id,
                "restarting",
                status=DeploymentStatus.STARTING,
                attempt=one.attempt + 1,
                process=None,
                healthy_at=None,
                parity=None,
                parity_reason="",
                port=port,
                adapters=there,
                command=self._engines.command(next_one),
                **changes,
            )
        finally:
            if self._book.get(one.id).port != one.port:
                self._ports.release(one.port)
            elif port != one.port:
                self._ports.release(port)

    async def _stop_for_good(self, one: Deployment) -> None:
        """Whatever of it is there still."""
        await self._executor.abandon(self._attempt(one), one.id)
        await self._executor.stop(self._attempt(one), one.id, grace_seconds=self._limits.stop_grace_seconds)
        await self._end(one, DeploymentStatus.STOPPED, "")

    async def _end(self, one: Deployment, status: DeploymentStatus, reason: str) -> None:
        await self._book.change(
            one.id, str(status), status=status, reason=reason, process=None, stopped_at=self._clock()
        )

    async def stop(self, deployment_id: str, *, force: bool) -> None:
        """End the engine of one that is recorded as removed; returns when it has ended. Tries again for as long as it takes."""
        grace = 0.0 if force else self._limits.stop_grace_seconds
        while not (one := self._book.get(deployment_id)).has_ended:
            try:
                await self._executor.stop(self._attempt(one), one.id, grace_seconds=grace)
            except Exception:  # noqa: BLE001  # one that is not stopped now has to be stopped later
                _log.exception("engine_not_stopped_yet", deployment_id=deployment_id)
            with anyio.move_on_after(_STOP_RETRY_SECONDS):
                await self._book.wait(deployment_id, lambda it: it.has_ended)


def _adapters_to_serve(one: Deployment) -> tuple[ServedAdapter, ...]:
    """Of those that were loaded because somebody asked, the ones that are still there: one that is gone must not keep the
    others from being served. What a deployment is made of has to be there.
    """
    return tuple(adapter for adapter in one.adapters if not one.on_demand or Path(adapter.path).is_dir())


def _status_after(one: Deployment, verdict: Verdict) -> tuple[DeploymentStatus, str]:
    if one.status.final:
        return one.status, one.reason
    if verdict.healthy and one.parity is Parity.DIFFERS:
        return DeploymentStatus.UNHEALTHY, one.parity_reason
    if verdict.healthy:
        return DeploymentStatus.RUNNING, ""
    if one.status is DeploymentStatus.STARTING and not verdict.port_taken:
        return one.status, one.reason  # it loads its model
    return DeploymentStatus.UNHEALTHY, verdict.reason
