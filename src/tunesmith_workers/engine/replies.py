"""What the engine answers with: completions, chunks of a stream, log probabilities, usage and errors in OpenAI's shapes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tunesmith_workers.engine.chat import Refusal
from tunesmith_workers.engine.sampling import Drawn

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


class Reply:
    """The parts that all of one answer's objects have."""

    def __init__(self, model: str, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]) -> dict[str, Any]:
        """A ``chat.completion``."""
        return {**self._head("chat.completion"), "choices": list(choices), "usage": usage}

    def chunk(self, choices: Sequence[Mapping[str, Any]], **others: Any) -> bytes:
        """A ``chat.completion.chunk`` as a line of a stream."""
        content = {**self._head("chat.completion.chunk"), "choices": list(choices), **others}
        return b"data: " + encode(content) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
        }

    def logprobs(self, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
        """None where they were not asked for."""
        told = [one for one in drawn if one.logprob is not None]
        if not told:
            return None
        return {
            "content": [
                {**self._token(one.token, one.logprob), "top_logprobs": [self._token(*other) for other in one.top]}
                for one in told
            ],
            "refusal": None,
        }

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode(errors="replace"))}


def usage(prompt: int, completion: int, reused: int) -> dict[str, Any]:
    """Counts of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


def error_object(refusal: Refusal) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = (
        "invalid_request_error"
        if refusal.status < 429
        else "rate_limit_error"
        if refusal.status == 429
        else "server_error"
    )
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code}}
