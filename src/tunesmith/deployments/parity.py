"""Whether an engine serves what was trained: it is asked the conversations of each parity certificate, once when it has become
healthy, and its answers are compared with those of the trained model. What a certificate is: ``contract.parity``.

Nothing here ends an engine or records anything. An engine may answer anything, in any length; a folder may come from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.contract.parity import Answered, Certificate, Conversation, differences, margin_of, read_certificate
from tunesmith.deployments.engines import name_of
from tunesmith.deployments.health import Answer, Loopback
from tunesmith.errors import Unavailable
from tunesmith.files import read_regular
from tunesmith.records import Deployment, Parity, ServedAdapter

_log = structlog.get_logger()
_CHAT_PATH = "/v1/chat/completions"
_MODELS_PATH = "/v1/models"
_UNLOAD_PATH = "/v1/unload_lora_adapter"
_SECONDS = 30.0
"""For everything that an engine serves together."""
_SHORT_SECONDS = 5.0
_LONGEST_ANSWER = 256 * 1024
"""Bytes; the prompt of the largest certificate has fewer as a list of numbers."""
_BUSY = 429
_BUSY_SECONDS = 0.5
_CHANGES_LOGITS = ("--quantization", "--kv-cache-dtype")
"""Options with which an engine may answer differently although it serves the right weights: only its prompts are compared."""
_LONGEST_TOLD = 200


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How what is served compares with what was trained."""

    parity: Parity
    reason: str = ""
    """In what it differs."""


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None


class _Completion(msgspec.Struct):
    prompt_token_ids: list[int] | None = None
    choices: list[_Choice] = []


class _Model(msgspec.Struct):
    dtype: str | None = None
    """Told by the built-in engine."""


class _Models(msgspec.Struct):
    data: list[_Model] = []


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_models = msgspec.json.Decoder(_Models).decode


class _Unknown(Exception):
    """Why it cannot be said."""


def everything_of(one: Deployment) -> tuple[ServedAdapter, ...]:
    """The model that the engine loads, as if it were an adapter, and the adapters."""
    return (ServedAdapter(name=name_of(one.path), path=one.path), *one.adapters)


def together(compared: Iterable[Compared]) -> Compared:
    """One verdict on all: they differ where one does; they are the same where those are that have a certificate."""
    known = [one for one in compared if one.parity is not Parity.NONE]
    differing = [one.reason for one in known if one.parity is Parity.DIFFERS]
    if differing:
        return Compared(parity=Parity.DIFFERS, reason="; ".join(differing))
    return Compared(parity=Parity.OK if known else Parity.NONE)


class ParityCheck:
    """Asks engines."""

    def __init__(self, loopback: Loopback, *, seconds: float = _SECONDS) -> None:
        """``seconds`` is how long a check may take."""
        self._loopback = loopback
        self._seconds = seconds

    async def of(self, one: Deployment, served: Iterable[ServedAdapter] | None = None) -> dict[str, Compared]:
        """By name, how these compare, or all that the engine of a deployment serves. What is not compared in time counts as
        having no certificate, with a warning in the log.
        """
        asked = everything_of(one) if served is None else tuple(served)
        found = {each.name: Compared(parity=Parity.NONE) for each in asked}
        with anyio.move_on_after(self._seconds) as scope:
            for each in asked:
                found[each.name] = await self._known(one, each)
        if scope.cancelled_caught:
            _log.warning("parity_unknown", deployment_id=one.id, reason=f"no answers within {self._seconds:g} seconds")
        return found

    async def unload(self, one: Deployment, name: str) -> None:
        """Have the engine serve an adapter no longer. An engine that does not listen goes on, and nobody is sent there."""
        try:
            await self._loopback.post_json(one.port, _UNLOAD_PATH, {"lora_name": name}, seconds=_SHORT_SECONDS)
        except Unavailable as error:
            _log.warning("adapter_not_unloaded", deployment_id=one.id, adapter=name, reason=str(error))

    async def _known(self, one: Deployment, served: ServedAdapter) -> Compared:
        try:
            return await self._compared(one, served)
        except _Unknown as unknown:
            _log.warning("parity_unknown", deployment_id=one.id, model=served.path, reason=str(unknown))
            return Compared(parity=Parity.NONE)

    async def _compared(self, one: Deployment, served: ServedAdapter) -> Compared:
        certificate = await _certificate_in(served.path)
        if certificate is None:
            return Compared(parity=Parity.NONE)
        margin = max(margin_of(certificate.dtype), await self._margin(one))
        found: list[str] = []
        unknown: list[str] = []

        async def ask(conversation: Conversation) -> None:
            try:
                found.extend(differences(conversation, await self._ask(one.port, served.name, conversation), margin))
            except _Unknown as error:
                unknown.append(str(error))

        async with anyio.create_task_group() as tasks:
            for conversation in certificate.conversations:
                tasks.start_soon(ask, conversation)
        if found:
            reason = f"{served.path} is not served as it was trained: {'; '.join(sorted(found))}"
            _log.warning("parity_differs", deployment_id=one.id, reason=reason)
            return Compared(parity=Parity.DIFFERS, reason=reason)
        if unknown:
            raise _Unknown(unknown[0])
        _log.info("parity_ok", deployment_id=one.id, model=served.path)
        return Compared(parity=Parity.OK)

    async def _margin(self, one: Deployment) -> float:
        """How far the engine's logits may be from those of the trained model, by the precision that it computes in."""
        words = one.arguments
        if any(word in words for word in _CHANGES_LOGITS):
            return math.inf
        if "--dtype" in words[:-1] and (named := words[words.index("--dtype") + 1]) != "auto":
            return margin_of(named)
        try:
            answer = await self._loopback.get(one.port, _MODELS_PATH, seconds=_SHORT_SECONDS)
            told = _decode_models(answer.body).data
        except (Unavailable, msgspec.DecodeError, ValueError, RecursionError):
            return margin_of(None)
        return margin_of(told[0].dtype if told else None)

    async def _ask(self, port: int, name: str, asked: Conversation) -> Answered:
        """What the engine says to a conversation."""
        content = {
            "model": name,
            "messages": asked.messages,
            "max_tokens": max(len(asked.answer), 1),
            "temperature": 0,
            "repetition_penalty": 1,  # vLLM takes what a request does not say from the model's generation config
            "return_token_ids": True,
        }
        answer = await self._posted(port, content)
        while answer.status == _BUSY:
            await anyio.sleep(_BUSY_SECONDS)  # until the deadline of all
            answer = await self._posted(port, content)
        if not answer.ok:
            said = answer.body[:_LONGEST_TOLD].decode(errors="replace")
            raise _Unknown(f"the engine answers {answer.status} to the conversation {asked.name!r}: {said}")
        return _read(answer.body)

    async def _posted(self, port: int, content: object) -> Answer:
        try:
            return await self._loopback.post_json(
                port, _CHAT_PATH, content, seconds=self._seconds, most=_LONGEST_ANSWER
            )
        except Unavailable as error:
            raise _Unknown(str(error)) from error


def _read(body: bytes) -> Answered:
    try:
        found = _decode_completion(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _Unknown(f"the engine's answer cannot be read: {str(error)[:_LONGEST_TOLD]}") from error
    if found.prompt_token_ids is None or not found.choices or found.choices[0].token_ids is None:
        raise _Unknown("the engine does not tell token ids: it does not know return_token_ids")
    return Answered(prompt=found.prompt_token_ids, answer=found.choices[0].token_ids)


async def _certificate_in(path: str) -> Certificate | None:
    folder = Path(path)
    if not folder.is_absolute():
        return None  # a hub id
    try:
        return await anyio.to_thread.run_sync(read_certificate, folder, read_regular, abandon_on_cancel=True)
    except (OSError, ValueError) as error:
        raise _Unknown(f"parity.json cannot be read: {str(error)[:_LONGEST_TOLD]}") from error
