"""De-identification at the door: texts in, texts without personal data out, and the policies there are."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import get, post
from litestar.params import JSONBody

from tunesmith.api.access import NEEDS_READ
from tunesmith.api.lists import NameCursor, page_by_name
from tunesmith.api.runs import Limit
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.deid import PolicyOverview, TextRequest

Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class DeidentifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to read and treat the texts."""

    locale: Literal["zh-CN", "en-US"] | None = None
    """How to read what each country reads differently; without it, each text by its script."""
    format: Literal["text"] = "text"
    return_mapping: bool = False
    """Whether the answer tells what stood where. It then holds the personal data itself."""
    seed: Seed | None = None
    """The same seed gives the same replacements; without it (and without a salt in the policy) they differ each time."""


class DeidentifyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts to de-identify, at most 1,000 with 500,000 characters."""

    text: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    policy_id: str = "default"
    options: DeidentifyOptions = DeidentifyOptions()


class DeidentifyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The texts in their order."""

    deidentified: list[str]
    policy_id: str
    policy_version: str
    counts: dict[str, int]
    """How many findings of each kind were treated."""
    mapping: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    """When asked for: for each text, ``{original: replacement}``."""


class PolicyList(msgspec.Struct, frozen=True, kw_only=True):
    """By name; one in the state folder stands for a shipped one of the same name."""

    policies: list[PolicyOverview]
    cursor: str | None


@post("/api/v1/deidentify:test", opt=NEEDS_READ, tags=["De-identification"], status_code=200)
async def deidentify(request: HttpRequest, data: JSONBody[DeidentifyRequest]) -> DeidentifyAnswer:
    """Put something else in place of personal data, as a policy says. Nothing is kept, and no text is logged."""
    return await _deidentified(request, data)


@post("/v1/deidentify:test", opt=NEEDS_READ, include_in_schema=False, status_code=200)
async def deidentify_alias(request: HttpRequest, data: JSONBody[DeidentifyRequest]) -> DeidentifyAnswer:
    return await _deidentified(request, data)


@get("/api/v1/deidentify/policies", opt=NEEDS_READ, tags=["De-identification"])
async def list_policies(request: HttpRequest, limit: Limit = 1000, cursor: NameCursor = None) -> PolicyList:
    """Every policy with what it does, and what is wrong with a broken one."""
    found = await services_of(request).deid.policies()
    page, following = page_by_name(found, lambda policy: policy.id, limit=limit, cursor=cursor)
    return PolicyList(policies=page, cursor=following)


async def _deidentified(request: HttpRequest, data: DeidentifyRequest) -> DeidentifyAnswer:
    options = data.options
    done = await services_of(request).deid.texts(
        TextRequest(texts=data.text, policy_id=data.policy_id, locale=options.locale, seed=options.seed)
    )
    return DeidentifyAnswer(
        deidentified=done.texts,
        policy_id=done.policy_id,
        policy_version=done.policy_version,
        counts=done.counts,
        mapping=done.mapping if options.return_mapping else msgspec.UNSET,
    )


HANDLERS = [deidentify, deidentify_alias, list_policies]
