"""The deployments on record: lookups, pages, changes one after the other, and waiting for one. Starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import msgspec

from tunesmith.errors import Conflict, NotFound
from tunesmith.journal import Entry, Journal, newest_first, page_of
from tunesmith.recipes.suggest import nearest, shortened
from tunesmith.records import Deployment, DeploymentStatus, IdempotentCall


class DeploymentSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every deployment."""

    model_path: str
    path: str
    name: str | None = None
    tags: tuple[str, ...] = ()
    status: DeploymentStatus = DeploymentStatus.STARTING
    stopped_at: datetime | None = None
    removed_at: datetime | None = None
    idempotency: IdempotentCall | None = None

    @property
    def has_ended(self) -> bool:
        return self.status.final and self.stopped_at is not None


class DeploymentPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    deployments: list[Deployment]
    cursor: str | None


class DeploymentBook:
    """All deployments, the removed ones among them, and the only way to change one."""

    def __init__(self, journal: Journal[Deployment, DeploymentSummary]) -> None:
        self._journal = journal
        self._order: list[str] = []
        self._by_name: dict[str, str] = {}
        """Of those that are not removed."""
        self._live: dict[str, Deployment] = {}
        """Those that have not ended, decoded: these are asked for all the time."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed: dict[str, asyncio.Event] = {}
        for deployment_id, summary in journal.summaries.items():
            self._order.append(deployment_id)
            if summary.name is not None and summary.removed_at is None:
                self._by_name[summary.name] = deployment_id
            if not summary.has_ended:
                found = journal.get(deployment_id)
                assert found is not None
                self._live[deployment_id] = found
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, one: Deployment, previous: DeploymentSummary | None) -> None:
        if previous is None:
            self._order.append(one.id)
        if one.name is not None and one.removed_at is None:
            self._by_name[one.name] = one.id
        elif one.name is not None and self._by_name.get(one.name) == one.id:
            del self._by_name[one.name]
        if one.has_ended:
            self._live.pop(one.id, None)
            self._locks.pop(one.id, None)
        else:
            self._live[one.id] = one
        changed = self._changed.pop(one.id, None)
        if changed is not None:
            changed.set()

    def get(self, deployment_id: str) -> Deployment:
        """Also one that was removed. Raises NotFound."""
        found = self._live.get(deployment_id) or self._journal.get(deployment_id)
        if found is None:
            raise self._unknown(deployment_id)
        return found

    def find(self, reference: str) -> Deployment:
        """By its id or name, unless it was removed. Raises NotFound."""
        found = self.known(reference)
        if found is None:
            raise self._unknown(reference)
        return found

    def known(self, reference: str) -> Deployment | None:
        """As ``find``; None when there is none. Also from threads."""
        deployment_id = reference if reference in self._journal else self._by_name.get(reference)
        if deployment_id is None or self._journal.summaries[deployment_id].removed_at is not None:
            return None
        return self.get(deployment_id)

    def __contains__(self, reference: str) -> bool:
        """Whether it is an id, or the name of one that was not removed."""
        return reference in self._journal or reference in self._by_name

    def live(self) -> list[Deployment]:
        """Those that have not ended, oldest first; those that are being removed among them."""
        return sorted(self._live.values(), key=lambda one: one.created_at)

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        models: Collection[str] = (),
        tags: Collection[str] = (),
        statuses: Collection[DeploymentStatus] = (),
    ) -> DeploymentPage:
        """Up to ``limit`` that are not removed, newest first. A filter lets any of its values through; an empty one everything."""
        page = page_of(
            self._journal,
            self._order,
            newest_first(self._order, cursor),
            limit=limit,
            keep=lambda one: (
                one.removed_at is None
                and (not models or one.model_path in models or one.path in models)
                and (not tags or any(tag in tags for tag in one.tags))
                and (not statuses or one.status in statuses)
            ),
        )
        return DeploymentPage([self.get(one) for one in page.ids], page.cursor)

    async def add(self, deployment: Deployment) -> Deployment:
        await self._journal.append("created", deployment)
        return deployment

    async def change(
        self, deployment_id: str, event: str, *, only_if: Callable[[Deployment], bool] = lambda _: True, **changes: Any
    ) -> Deployment:
        """Change these fields. ``only_if`` is for whoever decided by what it was: it may have changed meanwhile.

        Raises:
            Conflict: ``only_if`` does not hold any more.
        """
        async with self._locks.setdefault(deployment_id, asyncio.Lock()):
            before = self.get(deployment_id)
            if not only_if(before):
                raise Conflict(f"deployment {deployment_id} is {before.status} by now", where="deployment_id")
            after = msgspec.structs.replace(before, **changes)
            if after != before:
                await self._journal.append(event, after)
            return after

    async def wait(self, deployment_id: str, until: Callable[[Deployment], bool]) -> Deployment:
        """Return the deployment as soon as ``until`` is true of it."""
        while not until(found := self.get(deployment_id)):
            await self._changed.setdefault(deployment_id, asyncio.Event()).wait()
        return found

    def _unknown(self, reference: str) -> NotFound:
        close = nearest(reference, self._by_name)
        return NotFound(
            f"there is no deployment {shortened(reference)!r}",
            where="deployment_id",
            mend=(f"did you mean {close}? " if close else "") + "GET /api/v1/deployments lists them",
        )
