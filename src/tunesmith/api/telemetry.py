"""Prometheus text: what is counted about requests, and what is read off the rooms when somebody asks."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from tunesmith.api.rooms import Rooms

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestTimes:
    """Durations by route and status, in buckets."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, str, int], list[int]] = {}
        self.sums: dict[tuple[str, str, int], float] = {}

    def add(self, key: tuple[str, str, int], seconds: float) -> None:
        buckets = self.buckets.get(key)
        if buckets is None:
            buckets = self.buckets[key] = [0] * (len(_BOUNDS) + 1)
            self.sums[key] = 0.0
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self.sums[key] += seconds


class RequestTimer:
    """Middleware: times a request until its last byte is handed to the server."""

    def __init__(self, app: ASGIApp, times: RequestTimes) -> None:
        self._app = app
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            template = scope.get("path_template") or "unmatched"
            self._times.add((str(scope["method"]), template, status), time.perf_counter() - began)


def render(rooms: Rooms, times: RequestTimes) -> tuple[bytes, str]:
    """The text and its media type."""
    import prometheus_client  # noqa: PLC0415  # 50 ms of start-up that only a scraped server needs

    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collected(rooms, times))
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


class _Collected:
    def __init__(self, rooms: Rooms, times: RequestTimes) -> None:
        self._rooms = rooms
        self._times = times

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily  # noqa: PLC0415  # see above

        runs = GaugeMetricFamily("tunesmith_runs", "Runs by state.", labels=["state"])
        for state, count in self._rooms.runs.book.counts().items():
            runs.add_metric([str(state)], count)
        yield runs
        yield GaugeMetricFamily("tunesmith_queue_length", "Runs waiting.", value=self._rooms.scheduler.queue_length)
        slots = GaugeMetricFamily("tunesmith_slots", "Slots by kind and use.", labels=["kind", "use"])
        taken = self._rooms.slots
        for kind, used, total in (
            ("cpu", taken.cpu_runs, taken.max_cpu_runs),
            ("gpu", len(taken.leased_gpus), len(taken.gpus)),
        ):
            slots.add_metric([kind, "taken"], used)
            slots.add_metric([kind, "free"], max(0, total - used))
        yield slots
        requests = HistogramMetricFamily(
            "tunesmith_request_seconds", "Request times.", labels=["method", "route", "status"]
        )
        for (method, route, status), buckets in list(self._times.buckets.items()):
            key = (method, route, status)
            requests.add_metric([method, route, str(status)], _cumulated(buckets), self._times.sums[key])
        yield requests


def _cumulated(buckets: list[int]) -> list[tuple[str, Any]]:
    total, found = 0, []
    for bound, count in zip([*map(str, _BOUNDS), "+Inf"], buckets, strict=True):
        total += count
        found.append((bound, total))
    return found
