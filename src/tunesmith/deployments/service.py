"""Deployments: created, found, checked and removed. How an engine is carried is in ``keeper``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
import structlog

from tunesmith.deployments.book import DeploymentBook
from tunesmith.deployments.engines import Engines
from tunesmith.deployments.gpus import GpuLeases, lease
from tunesmith.deployments.keeper import Keeper
from tunesmith.deployments.ports import Ports
from tunesmith.deployments.request import DeploymentRequest, Plan, Planner
from tunesmith.errors import Conflict, NotFound, OutOfSpace, TunesmithError, Unavailable
from tunesmith.files import NO_ROOM
from tunesmith.paths import StatePaths
from tunesmith.records import Clock, Deployment, IdempotentCall, new_id
from tunesmith.references import ResolvedModel

_log = structlog.get_logger()
_CHECKED_AT_ONCE = 16
_CHECK_SECONDS = 4.0
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_REMOVE_SECONDS = 30.0
"""Beyond the grace period: what is not gone by then goes on being ended, but nobody waits for it any longer."""


class DeploymentService:
    """Every deployment, and the tasks that carry them."""

    def __init__(
        self,
        *,
        book: DeploymentBook,
        planner: Planner,
        engines: Engines,
        keeper: Keeper,
        ports: Ports,
        leases: GpuLeases,
        paths: StatePaths,
        clock: Clock,
        max_deployments: int,
        stop_grace_seconds: float,
        released: Callable[[], None] = lambda: None,
    ) -> None:
        """``released`` is told when a GPU may have become free."""
        self.book = book
        self._planner = planner
        self._engines = engines
        self._keeper = keeper
        self._ports = ports
        self._leases = leases
        self._paths = paths
        self._clock = clock
        self._most = max_deployments
        self._grace = stop_grace_seconds
        self._released = released
        self._adding = asyncio.Lock()
        """Held while a name, a port and a GPU are taken: two at once must not both find them free."""
        self._carried: dict[str, anyio.Event] = {}
        """Those that have a task, with what tells that it has given back what they held."""
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until cancelled. Reports started once every deployment that has not ended has its port, its GPU and its task.

        Cancelling leaves the engines alone: the next server adopts them.
        """
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for one in self.book.live():
                    self._ports.adopt(one.port)
                    if one.gpus:
                        self._leases.adopt(one.id, one.gpus)
                    self._take_up(tasks, one.id, adopts=True)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    async def create(
        self,
        request: DeploymentRequest,
        idempotency: IdempotentCall | None = None,
        *,
        on_demand: bool = False,
        resolved: ResolvedModel | None = None,
    ) -> Deployment:
        """A new deployment, on record and about to be started. ``resolved`` is its model, if that is known already.

        Raises:
            InvalidInput, MissingReference, Forbidden: the request cannot be served like this.
            Conflict: the name is taken, its GPU is in use, or there are too many deployments.
            Unavailable: no port is free, or the service is stopping.
            OutOfSpace: the disk is full.
        """
        plan = await anyio.to_thread.run_sync(self._planner.plan, request, resolved)
        # Shielded, so that what was taken is given back or on record, also when whoever asked for it has gone.
        return await asyncio.shield(self._add(request, plan, idempotency, on_demand=on_demand))

    async def _add(
        self, request: DeploymentRequest, plan: Plan, idempotency: IdempotentCall | None, *, on_demand: bool
    ) -> Deployment:
        async with self._adding:
            tasks = self._up()
            self._refuse_more(request.name)
            deployment_id = new_id("dep")
            gpus = lease(self._leases, deployment_id, plan.preferred_gpu)
            port: int | None = None
            try:
                port = self._ports.reserve()
                one = self._made(deployment_id, request, plan, port, gpus, idempotency, on_demand=on_demand)
                await anyio.to_thread.run_sync(self._make_folder, deployment_id)
                await self.book.add(one)
            except BaseException:
                self._give_back(deployment_id, port)
                raise
            self._take_up(tasks, deployment_id, adopts=False)
            return one

    def _take_up(self, tasks: anyio.abc.TaskGroup, deployment_id: str, *, adopts: bool) -> None:
        self._carried[deployment_id] = anyio.Event()
        tasks.start_soon(self._carry, deployment_id, adopts)

    def _made(
        self,
        deployment_id: str,
        request: DeploymentRequest,
        plan: Plan,
        port: int,
        gpus: tuple[str, ...],
        idempotency: IdempotentCall | None,
        *,
        on_demand: bool,
    ) -> Deployment:
        one = Deployment(
            id=deployment_id,
            name=request.name,
            model_path=request.model_path,
            model_version=request.model_version or "",
            tags=request.tags,
            extra_args=request.extra_args or "",
            arguments=plan.arguments,
            preferred_gpu=plan.preferred_gpu,
            health_path=plan.health_path,
            path=plan.path,
            served_name=plan.served_name,
            adapters=plan.adapters,
            engine=plan.engine,
            gpus=gpus,
            port=port,
            command=(),
            on_demand=on_demand,
            created_at=self._clock(),
            idempotency=idempotency,
        )
        return msgspec.structs.replace(one, command=self._engines.command(one))

    def _make_folder(self, deployment_id: str) -> None:
        folder = self._paths.deployment(deployment_id).folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise OutOfSpace("no room for the folder of a deployment", where=str(folder)) from error
            raise

    def _up(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise Unavailable("the service is not ready to serve models", mend="try again once it is up")
        return self._tasks

    def _refuse_more(self, name: str | None) -> None:
        if name is not None and name in self.book:
            raise Conflict(
                f"{name!r} names a deployment already", where="name", mend="choose another, or delete that one"
            )
        if len(self.book.live()) >= self._most:
            raise Conflict(
                f"there are {self._most} deployments, as many as max_deployments allows",
                where="max_deployments",
                mend="delete one that nobody needs, or raise the setting",
            )

    async def checked(self, reference: str) -> Deployment:
        """A deployment by its id or name, after one health check. Raises NotFound."""
        one = self.book.find(reference)
        await self._check(one)
        return self.book.get(one.id)

    async def check_all(self) -> None:
        """Check every one whose engine is there, some at once, within a few seconds."""
        limiter = anyio.CapacityLimiter(_CHECKED_AT_ONCE)

        async def check(one: Deployment) -> None:
            async with limiter:
                await self._check(one)

        with anyio.move_on_after(_CHECK_SECONDS):
            async with anyio.create_task_group() as tasks:
                for one in self.book.live():
                    tasks.start_soon(check, one)

    async def _check(self, one: Deployment) -> None:
        if one.process is None or one.status.final or one.removed_at is not None:
            return
        try:
            await self._keeper.check(one)
        except (TunesmithError, OSError) as error:  # what is known of it is told all the same
            _log.warning("deployment_not_checked", deployment_id=one.id, reason=str(error))

    async def remove(self, reference: str, *, force: bool = False) -> Deployment:
        """End it, and wait until nothing of it is left; its record stays. ``force`` kills without asking.

        Raises:
            NotFound: there is none.
            OutOfSpace: the wish could not be written down; it goes on.
            Unavailable: it does not end, not even when it is killed; this goes on being tried.
        """
        one = self._removable(reference)
        tasks = self._up()
        if one.removed_at is None:
            one = await asyncio.shield(self.book.change(one.id, "removed", removed_at=self._clock()))
        if not one.has_ended:
            tasks.start_soon(self._stop, one.id, force)
        given_back = self._carried.get(one.id)
        if given_back is not None:
            with anyio.move_on_after(self._grace + _REMOVE_SECONDS) as scope:
                await given_back.wait()
            if scope.cancelled_caught:
                raise Unavailable(
                    f"deployment {one.id} does not end, not even when it is killed",
                    where="deployment_id",
                    mend="its process waits for a disk or a driver; ending it is tried again and again",
                )
        return self.book.get(one.id)

    def _removable(self, reference: str) -> Deployment:
        """Also one that is being removed: asking again with force kills it."""
        try:
            return self.book.find(reference)
        except NotFound:
            if reference in self.book and not (one := self.book.get(reference)).has_ended:
                return one
            raise

    async def _stop(self, deployment_id: str, force: bool) -> None:  # noqa: FBT001  # a task's arguments have no names
        try:
            await self._keeper.stop(deployment_id, force=force)
        except Exception:  # noqa: BLE001  # the task that carries it ends it; this must not reach the others
            _log.exception("deployment_not_stopped", deployment_id=deployment_id)

    async def _carry(self, deployment_id: str, adopts: bool) -> None:  # noqa: FBT001  # a task's arguments have no names
        """See it through, whatever happens: one deployment's trouble is not another's."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._keeper.carry(deployment_id, adopts=adopts)
                break
            except Unavailable as error:
                _log.error("deployment_not_carried_on", deployment_id=deployment_id, reason=str(error))
                return  # only a new server can write again
            except (TunesmithError, OSError) as error:
                _log.warning("deployment_waits", deployment_id=deployment_id, reason=str(error))
            except Exception:  # noqa: BLE001  # whatever it is, it must not reach the other deployments
                _log.exception("deployment_taken_up_again", deployment_id=deployment_id)
            adopts = True
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
        self._give_back(deployment_id, self.book.get(deployment_id).port)
        self._carried.pop(deployment_id).set()

    def _give_back(self, deployment_id: str, port: int | None) -> None:
        self._leases.release(deployment_id)
        if port is not None:
            self._ports.release(port)
        self._released()
