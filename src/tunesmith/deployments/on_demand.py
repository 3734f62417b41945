"""Engines for models that are asked for without a deployment: started when they are needed, kept warm, let go of by least
recent use. Adapters of one base share its engine. What prompts become of all this is the inference door's business.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import anyio
import msgspec
import structlog

from tunesmith.deployments.engines import name_of
from tunesmith.deployments.health import Loopback
from tunesmith.deployments.parity import ParityCheck
from tunesmith.deployments.request import DeploymentRequest
from tunesmith.deployments.service import DeploymentService
from tunesmith.errors import Conflict, Unavailable
from tunesmith.records import Deployment, DeploymentStatus, Parity, ServedAdapter
from tunesmith.references import ModelKind, ResolvedModel

_log = structlog.get_logger()
_LOAD_PATH = "/v1/load_lora_adapter"
_LOAD_SECONDS = 300.0
_LIST_SECONDS = 5.0
_MOST_FAILED = 20
_LONGEST_TOLD = 500
_MOST_ADAPTERS = 16
"""In one engine. Each takes memory, and time of every step in which several answer."""


class _Served(msgspec.Struct):
    """One model of an engine's list."""

    id: str


class _ServedList(msgspec.Struct):
    data: tuple[_Served, ...] = ()


_decode_served = msgspec.json.Decoder(_ServedList).decode


class Endpoint:
    """Where a model is served right now."""

    def __init__(self, deployment: Deployment, path: str, use: Use) -> None:
        self.port = deployment.port
        self.deployment_id = deployment.id
        self.model_name = name_of(path)
        """What requests to the port call the model."""
        self._path, self._use = path, use

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While something of it is answered: neither the engine nor its adapter is let go of."""
        with self._use.of(self.deployment_id), self._use.of(_model_in(self.deployment_id, self._path)):
            yield


class Use:
    """Which engines, and which models in them, answer somebody, and when each last did."""

    def __init__(self) -> None:
        self._answering: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        self._answering[name] += 1
        try:
            yield
        finally:
            self._answering[name] -= 1
            self._last[name] = time.monotonic()

    def least_recent(self, among: Iterable[str]) -> str | None:
        """What nobody has used for longest; None when each of them answers somebody."""
        return min(filter(self.is_idle, among), key=lambda name: self._last.get(name, 0.0), default=None)

    def is_idle(self, name: str) -> bool:
        return self._answering[name] <= 0

    def forget(self, name: str) -> None:
        """It is gone, and what was in it."""
        for known in [known for known in self._last if known == name or known.startswith(_model_in(name, ""))]:
            self._last.pop(known, None)
            self._answering.pop(known, None)


class OnDemandEngines:
    """Finds or starts what serves a model."""

    def __init__(
        self, deployments: DeploymentService, loopback: Loopback, parity: ParityCheck, *, warm_models: int
    ) -> None:
        self._deployments = deployments
        self._book = deployments.book
        self._loopback = loopback
        self._parity = parity
        self._warm_models = warm_models
        self._use = Use()
        self._starting = asyncio.Lock()
        """Held while an engine is let go of and another is put on record: two calls must not both start one."""
        self._loading = asyncio.Lock()
        """Held while an adapter is loaded."""

    async def engine_for(self, resolved: ResolvedModel, *, seconds: float) -> Endpoint:
        """Where this model is served: by a deployment, or by an engine that is started now and kept.

        Raises:
            Unavailable: it could not be started, with the reason; or not in so many seconds, and then it goes on loading; or
                every warm engine is answering somebody.
        """
        try:
            with anyio.fail_after(seconds):
                one = self._named(resolved) or self._deployed(resolved.path)
                if one is None:
                    one = await self._on_demand(resolved)
                elif one.status is not DeploymentStatus.RUNNING:
                    one = await self._running(one.id)
        except TimeoutError:
            raise Unavailable(
                f"the model was not ready within {seconds:g} seconds; it goes on loading",
                where="model",
                mend="try again in a moment",
            ) from None
        with self._use.of(one.id):
            return Endpoint(one, resolved.path, self._use)

    def _named(self, resolved: ResolvedModel) -> Deployment | None:
        """The deployment that was asked for by its own id or name: no other will do, although it may serve the same."""
        if resolved.kind is not ModelKind.DEPLOYMENT:
            return None
        one = self._book.known(resolved.alias_of or resolved.reference)
        if one is not None and (one.status.final or one.status is DeploymentStatus.UNHEALTHY):
            raise _not_served(one)
        return one

    def _deployed(self, path: str) -> Deployment | None:
        """What serves this folder or hub id now; else a deployment that is about to, unless it has failed before."""
        serving = [one for one in self._book.live() if one.removed_at is None and _serves(one, path)]
        running = [one for one in serving if one.status is DeploymentStatus.RUNNING]
        loading = [one for one in serving if not one.on_demand and one.healthy_at is None and not one.restarts]
        return next(iter(sorted(running, key=lambda one: one.on_demand) or loading), None)

    async def _on_demand(self, resolved: ResolvedModel) -> Deployment:
        base = resolved.base or resolved.path
        one = self._warm(base)
        if one is None or self._is_stuck(one):
            async with self._starting:
                one = self._warm(base)
                if one is not None and self._is_stuck(one):
                    await self._let_go(one, force=True)
                    one = None
                one = one or await self._start(base)
        with self._use.of(one.id):
            one = await self._running(one.id)
            if resolved.adapter:
                async with self._loading:
                    one = await self._with_adapter(self._book.get(one.id), resolved)
        return one

    def _warm(self, base: str) -> Deployment | None:
        return next((one for one in self._all() if one.path == base), None)

    def _is_stuck(self, one: Deployment) -> bool:
        """Whether it does not answer, and nobody waits for what it may still say. One that answers wrongly would do so again."""
        answers_wrongly = one.parity is Parity.DIFFERS
        return one.status is DeploymentStatus.UNHEALTHY and not answers_wrongly and self._use.is_idle(one.id)

    def _all(self) -> list[Deployment]:
        """Those that were started for somebody who asked, and are not to end."""
        return [one for one in self._book.live() if one.on_demand and one.removed_at is None]

    async def _start(self, base: str) -> Deployment:
        await self._forget_failed(base)
        while len(self._all()) >= self._warm_models:
            await self._let_one_go(
                f"each of the {self._warm_models} engines that are kept for models without a deployment is answering somebody"
            )
        try:
            return await self._created(base)
        except Conflict as error:  # no GPU is free, or there are too many deployments: one of ours may go for it
            await self._let_one_go(error.message)
        try:
            return await self._created(base)
        except Conflict as error:
            raise Unavailable(error.message, where="model", mend=error.mend) from error

    async def _created(self, base: str) -> Deployment:
        model = ResolvedModel(
            reference=base,
            kind=ModelKind.PATH,
            path=base,
            adapter=False,
            explanation="It is the base that was asked for.",
        )
        request = DeploymentRequest(model_path=base, engine="transformers")
        return await self._deployments.create(request, on_demand=True, resolved=model)

    async def _let_one_go(self, why_not: str) -> None:
        oldest = self._use.least_recent(one.id for one in self._all())
        if oldest is None:
            raise Unavailable(why_not, where="model", mend="try again in a moment, or raise warm_models")
        await self._let_go(self._book.get(oldest), force=False)

    async def _let_go(self, one: Deployment, *, force: bool) -> None:
        _log.info("engine_let_go", deployment_id=one.id, model=one.path, status=str(one.status))
        await self._deployments.remove(one.id, force=force)
        self._use.forget(one.id)

    async def _forget_failed(self, base: str) -> None:
        """What is left of earlier tries: whoever asked was told why."""
        page = self._book.page(limit=_MOST_FAILED, models=(base,), statuses=(DeploymentStatus.FAILED,))
        for one in page.deployments:
            if one.on_demand:
                await self._deployments.remove(one.id)

    async def _running(self, deployment_id: str) -> Deployment:
        one = await self._book.wait(
            deployment_id,
            lambda it: (
                it.status is DeploymentStatus.RUNNING
                or it.status.final
                or it.removed_at is not None
                or it.parity is Parity.DIFFERS
            ),
        )
        if one.status is DeploymentStatus.RUNNING and one.removed_at is None:
            return one
        raise _not_served(one)

    async def _with_adapter(self, one: Deployment, resolved: ResolvedModel) -> Deployment:
        """Load an adapter into the engine of its base, and put it on record so that the next engine loads it, too."""
        path = resolved.path
        if _serves(one, path):
            return one
        one = await self._with_room(one)
        adapter = ServedAdapter(name=name_of(path), path=path, rank=resolved.rank)
        answer = await self._loopback.post_json(
            one.port, _LOAD_PATH, {"lora_name": adapter.name, "lora_path": path}, seconds=_LOAD_SECONDS
        )
        # An engine that had it already when this was last written down says so by refusing.
        if not answer.ok and not await self._lists(one, adapter.name):
            said = answer.body[:_LONGEST_TOLD].decode(errors="replace")
            raise Unavailable(
                f"the adapter cannot be served: its engine answers {answer.status}: {said}",
                where="model",
                mend=f"read the engine's log: tunesmith deployments logs {one.id}",
            )
        parity = await self._parity_of(one, adapter)
        try:
            return await self._book.change(
                one.id,
                "adapter_loaded",
                only_if=lambda it: it.attempt == one.attempt and it.removed_at is None,
                adapters=(*one.adapters, adapter),
                parity=parity if parity is Parity.OK else one.parity,
            )
        except Conflict as error:
            raise Unavailable(
                "the engine ended while it loaded the adapter", where="model", mend="try again"
            ) from error

    async def _with_room(self, one: Deployment) -> Deployment:
        """Have the engine let go of the adapter that nobody has used for longest, if it has as many as it should."""
        if len(one.adapters) < _MOST_ADAPTERS:
            return one
        by_use = {_model_in(one.id, adapter.path): adapter for adapter in one.adapters}
        oldest = self._use.least_recent(by_use)
        if oldest is None:
            raise Unavailable(
                f"each of the {_MOST_ADAPTERS} adapters that its engine holds is answering somebody",
                where="model",
                mend="try again in a moment, or deploy it",
            )
        await self._parity.unload(one, by_use[oldest].name)
        self._use.forget(oldest)
        kept = tuple(adapter for adapter in one.adapters if adapter != by_use[oldest])
        return await self._book.change(one.id, "adapter_unloaded", adapters=kept)

    async def _parity_of(self, one: Deployment, adapter: ServedAdapter) -> Parity:
        """Whether an adapter that was just loaded is served as it was trained.

        Raises:
            Unavailable: it is not; the engine does not serve it any more.
        """
        found = (await self._parity.of(one, [adapter]))[adapter.name]
        if found.parity is Parity.DIFFERS:
            await self._parity.unload(one, adapter.name)
            raise Unavailable(
                f"the adapter cannot be served: {found.reason}",
                where="model",
                mend="restore its folder as the training left it, or train it again",
            )
        return found.parity

    async def _lists(self, one: Deployment, name: str) -> bool:
        try:
            answer = await self._loopback.get(one.port, "/v1/models", seconds=_LIST_SECONDS)
            return any(served.id == name for served in _decode_served(answer.body).data)
        except (Unavailable, msgspec.DecodeError):
            return False


def _not_served(one: Deployment) -> Unavailable:
    if one.parity is Parity.DIFFERS:
        return Unavailable(
            f"the model cannot be served: {one.reason}",
            where="model",
            mend=f"restore its folder as the training left it, then end its engine: tunesmith deployments delete {one.id}",
        )
    return Unavailable(
        f"the model cannot be served: {one.reason or 'its engine was asked to end'}",
        where="model",
        mend=f"read its engine's log: tunesmith deployments logs {one.id}",
    )


def _model_in(deployment_id: str, path: str) -> str:
    """What the use of a model in an engine is counted by."""
    return f"{deployment_id} {path}"


def _serves(one: Deployment, path: str) -> bool:
    return one.path == path or any(adapter.path == path for adapter in one.adapters)
