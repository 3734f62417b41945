"""Which calls are of the OpenAI-shaped door: their errors, lists and parameters are as OpenAI's clients expect them."""

from __future__ import annotations

from typing import Any

from litestar.routes import HTTPRoute

from tunesmith.api.openai.errors import OPENAI
from tunesmith.api.openai.handlers import HANDLERS


def operations() -> set[str]:
    """By the names that the OpenAPI document has for them."""
    return {
        handler.handler_name
        for router in HANDLERS
        for route in router.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if handler.opt.get(OPENAI)
    }


def is_error(answer: Any) -> bool:
    """Whether an answer has the form of OpenAI's errors, and nothing else."""
    if not answer.headers["content-type"].startswith("application/json"):
        return False
    body = answer.json()
    return list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
