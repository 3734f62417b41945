"""The callbacks door: how to verify what is sent, what was sent, and sending it again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import anyio.to_thread
import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.runs import Cursor, Limit
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.callbacks import shown_url
from tunesmith.errors import Forbidden, InvalidInput
from tunesmith.records import CallbackEvent, Delivery, DeliveryAttempt, DeliveryState, Endpoint, Scope

_SIGNED_CONTENT = "{webhook-id}.{webhook-timestamp}.{body}"
Subject = Annotated[
    str | None, QueryParameter(max_length=100, description="Only what tells of the run or batch with this id.")
]
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Signing(msgspec.Struct, frozen=True, kw_only=True):
    """How a receiver makes sure that a delivery is ours, as the Standard Webhooks text defines it."""

    standard: str
    headers: tuple[str, ...]
    algorithm: str
    signed_content: str
    """What the HMAC is taken of, with the raw body."""
    secret: str | None
    """The base64 after `whsec_` is the key. Null unless asked for with an admin key."""


class CallbacksView(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's `callback` can ask for, how deliveries are signed and tried again, and how many there are."""

    signing: Signing
    events: tuple[CallbackEvent, ...]
    webhook_url: str | None
    """The endpoint in the settings, without the values of its query; null for none."""
    retry_after_seconds: tuple[float, ...]
    """How long after the one before each try is made."""
    deliveries: dict[DeliveryState, int]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one URL."""

    delivery_id: str
    """Also its `webhook-id`, the same on every try."""
    subject_id: str
    """What it tells of: a run, or a batch."""
    run_id: str | None
    """The same where it is a run; else null."""
    endpoint: Endpoint
    """Who asked for it: the run's `callback`, or the setting `webhook_url`."""
    kind: CallbackEvent
    key: str
    url: str
    """Without user, password and the values of its query."""
    state: DeliveryState
    created_at: datetime
    next_at: datetime | None
    """When it is tried next, unless it waits for one before it."""
    attempts_total: int
    last_status: int | None
    last_error: str | None


class DeliveryDetail(DeliveryView, frozen=True, kw_only=True):
    """A delivery with its body and its tries."""

    body: str
    """Exactly what is sent; empty if what it is made of is not there any more."""
    attempts: tuple[DeliveryAttempt, ...]
    """The latest 50, oldest first."""


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; ask with ``cursor`` for the next page, until it is null."""

    deliveries: list[DeliveryView]
    cursor: str | None


@get("/v1/callbacks", opt=NEEDS_READ, tags=["Callbacks"])
async def show_callbacks(request: HttpRequest) -> CallbacksView:
    """How to verify deliveries. The secret is shown to admin keys only."""
    services = services_of(request)
    signer = services.callbacks.signer
    may_know = _is_admin(services, request.headers.get("authorization"))
    return CallbacksView(
        signing=Signing(
            standard="https://www.standardwebhooks.com",
            headers=_HEADERS,
            algorithm="v1: base64 of HMAC-SHA256",
            signed_content=_SIGNED_CONTENT,
            secret=await anyio.to_thread.run_sync(lambda: signer.secret) if may_know else None,
        ),
        events=tuple(CallbackEvent),
        webhook_url=shown_url(services.settings.webhook_url) or None,
        retry_after_seconds=services.callbacks.schedule,
        deliveries=services.callbacks.counts(),
    )


@get("/v1/runs/{run_id:str}/deliveries", opt=NEEDS_READ, tags=["Callbacks"], sync_to_thread=False)
def list_deliveries(
    request: HttpRequest, run_id: FromPath[str], limit: Limit = 50, cursor: Cursor = None
) -> DeliveryList:
    """What the run's callback and the endpoint in the settings were told of it, or are going to be told."""
    services = services_of(request)
    services.runs.book.get(run_id)
    page = services.callbacks.page(run_id, limit=limit, cursor=cursor)
    return DeliveryList(deliveries=[_view(delivery) for delivery in page.deliveries], cursor=page.cursor)


@get("/v1/deliveries", opt=NEEDS_READ, tags=["Callbacks"], sync_to_thread=False)
def list_all_deliveries(
    request: HttpRequest, limit: Limit = 50, cursor: Cursor = None, subject_id: Subject = None
) -> DeliveryList:
    """What callbacks and the endpoint in the settings were told, or are going to be told, of any run or batch."""
    page = services_of(request).callbacks.page(subject_id, limit=limit, cursor=cursor)
    return DeliveryList(deliveries=[_view(delivery) for delivery in page.deliveries], cursor=page.cursor)


@get("/v1/deliveries/{delivery_id:str}", opt=NEEDS_READ, tags=["Callbacks"])
async def show_delivery(request: HttpRequest, delivery_id: FromPath[str]) -> DeliveryDetail:
    """One delivery with its body and every try."""
    services = services_of(request)
    return await _detail(services, services.callbacks.get(delivery_id))


@post("/v1/deliveries/{delivery_id:str}/resend", opt=NEEDS_WRITE, tags=["Callbacks"], status_code=202)
async def resend_delivery(request: HttpRequest, delivery_id: FromPath[str]) -> DeliveryDetail:
    """Send it again, with the same id and body, from the start of the schedule; also one that has arrived already."""
    services = services_of(request)
    return await _detail(services, await services.callbacks.resend(delivery_id))


def _is_admin(services: Services, authorization: str | None) -> bool:
    try:
        services.keys.check(authorization, Scope.ADMIN)
    except Forbidden:
        return False
    return True


def _view(delivery: Delivery) -> DeliveryView:
    last = delivery.attempts[-1] if delivery.attempts else None
    return DeliveryView(
        delivery_id=delivery.id,
        subject_id=delivery.subject_id,
        run_id=delivery.subject_id if delivery.subject_id.startswith("run_") else None,
        endpoint=delivery.endpoint,
        kind=delivery.kind,
        key=delivery.key,
        url=shown_url(delivery.url),
        state=delivery.state,
        created_at=delivery.created_at,
        next_at=delivery.next_at,
        attempts_total=last.number if last else 0,
        last_status=last.status if last else None,
        last_error=last.error if last else None,
    )


async def _detail(services: Services, delivery: Delivery) -> DeliveryDetail:
    try:
        body = (await services.callbacks.body(delivery)).decode()
    except (OSError, InvalidInput):  # its tries say why
        body = ""
    return DeliveryDetail(**msgspec.structs.asdict(_view(delivery)), body=body, attempts=delivery.attempts)


HANDLERS = [show_callbacks, list_deliveries, list_all_deliveries, show_delivery, resend_delivery]
