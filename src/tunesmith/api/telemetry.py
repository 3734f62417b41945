"""Prometheus text: what is counted about requests, and what is read off the services when somebody asks.

Everything is read on the event loop, where nothing changes meanwhile; only the text is made in a thread.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from tunesmith.api.services import Services

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestTimes:
    """Durations by route and status, in buckets; and how many requests are being answered."""

    def __init__(self) -> None:
        self.now = 0
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
        self._times.now += 1
        status = 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            self._times.now -= 1
            template = scope.get("path_template") or "unmatched"
            self._times.add((str(scope["method"]), template, status), time.perf_counter() - began)


class Observed(NamedTuple):
    """What is told, as it was in one moment."""

    runs: dict[str, int]
    queue_length: int
    slots: tuple[tuple[str, int, int], ...]
    """Kind, taken and all."""
    deliveries: dict[str, int]
    """How many there are in each state."""
    requests_now: int
    requests: list[tuple[tuple[str, str, int], list[int], float]]
    """Method, route and status; how many by duration; and the sum of the durations."""


def observe(services: Services, times: RequestTimes) -> Observed:
    """Look at everything, on the event loop."""
    taken = services.slots
    return Observed(
        runs={str(state): count for state, count in services.runs.book.counts().items()},
        queue_length=services.scheduler.queue_length,
        slots=(
            ("cpu", taken.cpu_runs, taken.max_cpu_runs),
            ("gpu", len(taken.leased_gpus), len(taken.gpus)),
        ),
        deliveries={str(state): count for state, count in services.callbacks.counts().items()},
        requests_now=times.now,
        requests=[(key, list(buckets), times.sums[key]) for key, buckets in times.buckets.items()],
    )


def render(observed: Observed) -> tuple[bytes, str]:
    """The text and its media type."""
    import prometheus_client  # noqa: PLC0415  # 50 ms of start-up that only a scraped server needs

    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collected(observed))
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST


class _Collected:
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily  # noqa: PLC0415  # see above

        observed = self._observed
        runs = GaugeMetricFamily("tunesmith_runs", "Runs by state.", labels=["state"])
        for state, count in observed.runs.items():
            runs.add_metric([state], count)
        yield runs
        yield GaugeMetricFamily("tunesmith_queue_length", "Runs waiting.", value=observed.queue_length)
        slots = GaugeMetricFamily("tunesmith_slots", "Slots by kind and use.", labels=["kind", "use"])
        for kind, used, total in observed.slots:
            slots.add_metric([kind, "taken"], used)
            slots.add_metric([kind, "free"], max(0, total - used))
        yield slots
        deliveries = GaugeMetricFamily("tunesmith_deliveries", "Callback deliveries by state.", labels=["state"])
        for state, count in observed.deliveries.items():
            deliveries.add_metric([state], count)
        yield deliveries
        yield GaugeMetricFamily("tunesmith_requests_now", "Requests being answered.", value=observed.requests_now)
        requests = HistogramMetricFamily(
            "tunesmith_request_seconds", "Request times.", labels=["method", "route", "status"]
        )
        for (method, route, status), buckets, seconds in observed.requests:
            requests.add_metric([method, route, str(status)], _cumulated(buckets), seconds)
        yield requests


def _cumulated(buckets: list[int]) -> list[tuple[str, Any]]:
    total, found = 0, []
    for bound, count in zip([*map(str, _BOUNDS), "+Inf"], buckets, strict=True):
        total += count
        found.append((bound, total))
    return found
