"""``/v1/fine_tuning/alpha/graders``: trying a grader on an answer, and checking one, before it is used in a training."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import post
from litestar.params import JSONBody

from tunesmith.api.leaving import while_connected
from tunesmith.api.openai.errors import WRITES
from tunesmith.api.services import HttpRequest, services_of

LongText = Annotated[str, msgspec.Meta(max_length=200_000)]


class GraderRun(msgspec.Struct, frozen=True, kw_only=True):
    """A grader, and what it is tried on."""

    grader: dict[str, Any]
    """As docs/graders.md has it; OpenAI's own types are read as they are."""
    model_sample: LongText
    """The answer that is graded."""
    item: Any = None
    """The row that it belongs to, for templates that name `item`."""
    reference_answer: Any = None
    """The older way to give the one field `item.reference_answer`."""


class GraderCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A grader that is checked only."""

    grader: dict[str, Any]
    """As docs/graders.md has it."""


class GraderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """How it came to its reward."""

    name: str
    """Of the grader."""
    type: str
    """Of the grader."""
    errors: dict[str, Any]
    """Which kinds of trouble there were, each true or false."""
    messages: list[str]
    """The same in words, with the place in the grader."""
    execution_time: float
    """In seconds."""
    scores: dict[str, float | None]
    """Of a `multi` grader: those of its parts."""
    token_usage: int | None = None
    """Of all models that were asked."""
    sampled_model_name: str | None = None
    """The model that was asked, where it is one."""


class GraderRunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a grader says of an answer."""

    reward: float
    """0 where there is no score; `metadata.errors` says why."""
    sub_rewards: dict[str, float | None]
    """Of a `multi` grader: those of its parts, by name."""
    metadata: GraderMetadata
    """How it came to it."""
    model_grader_token_usage_per_model: dict[str, int]
    """Tokens by the model that was asked."""


class CheckedGrader(msgspec.Struct, frozen=True, kw_only=True):
    """A grader that can be used."""

    grader: dict[str, Any]
    """As it was sent."""


@post("/fine_tuning/alpha/graders/run", opt=WRITES, tags=["OpenAI"], status_code=200)
async def run_grader(request: HttpRequest, data: JSONBody[GraderRun]) -> GraderRunResult:
    """What a grader says of one answer. Models that judge are loaded as for a chat."""
    item = data.item
    if item is None and data.reference_answer is not None:
        item = {"reference_answer": data.reference_answer}
    graders = services_of(request).openai.graders
    graded = await while_connected(request, graders.run(data.grader, data.model_sample, item))
    models = list(graded.tokens)
    return GraderRunResult(
        reward=graded.result.reward or 0.0,
        sub_rewards=graded.result.sub_rewards,
        metadata=GraderMetadata(
            name=graded.name,
            type=graded.type,
            errors=graded.result.errors or {},
            messages=graded.result.messages,
            execution_time=round(graded.seconds, 3),
            scores=graded.result.sub_rewards,
            token_usage=sum(graded.tokens.values()) if models else None,
            sampled_model_name=models[0] if len(models) == 1 else None,
        ),
        model_grader_token_usage_per_model=graded.tokens,
    )


@post("/fine_tuning/alpha/graders/validate", opt=WRITES, tags=["OpenAI"], status_code=200)
async def validate_grader(request: HttpRequest, data: JSONBody[GraderCheck]) -> CheckedGrader:
    """Whether a grader can be used; `400` names every fault with its place in it."""
    await while_connected(request, services_of(request).openai.graders.check(data.grader))
    return CheckedGrader(grader=data.grader)


HANDLERS: list[Any] = [run_grader, validate_grader]
