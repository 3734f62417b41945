"""Answers that must be JSON, or JSON of a schema: which tokens may come next, by llguidance."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith_workers.process.faults import BadConfig, PackageMissing

_SHORT_WHITESPACE = {"whitespace_pattern": r"[ \n\r\t]{0,32}"}
"""JSON allows any amount between two words; a small model would fill an answer with it."""


class Grammars:
    """Makes grammars for one tokenizer. The first takes about a second."""

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        """``ends`` are the tokens that end an answer."""
        self._tokenizer, self._ends = tokenizer, list(ends)
        self._lock = threading.Lock()
        self._vocabulary: Any = None

    def of_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """Of answers that a JSON schema accepts. Called from threads.

        Raises:
            BadConfig: the schema makes no sense, or asks for what cannot be held to.
            PackageMissing: llguidance is not installed.
        """
        try:
            from llguidance import LLMatcher  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise PackageMissing(
                "answers in JSON need llguidance, which is not installed", mend="pip install 'tunesmith[serve]'"
            ) from error
        try:
            text = LLMatcher.grammar_from_json_schema(dict(schema), defaults=_SHORT_WHITESPACE)  # type: ignore[arg-type]  # a typed dict with all of its keys
        except ValueError as error:
            raise _unusable(str(error)) from error
        vocabulary = self._wrapped()
        matcher = LLMatcher(vocabulary, text)
        if matcher.is_error():
            raise _unusable(matcher.get_error())
        return Grammar(matcher, vocabulary.vocab_size)

    def _wrapped(self) -> Any:
        from llguidance.hf import from_tokenizer  # noqa: PLC0415  # an extra

        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = from_tokenizer(self._tokenizer, eos_token=self._ends or None)
            return self._vocabulary


class Grammar:
    """Where one answer is in its grammar."""

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher, self._size = matcher, size
        self._bits = torch.zeros((size + 31) // 32, dtype=torch.int32)

    def copy(self) -> Grammar:
        """For another answer, from the same place on."""
        return Grammar(self._matcher.deep_copy(), self._size)

    @property
    def ended(self) -> bool:
        """Whether nothing may follow any more."""
        return bool(self._matcher.is_stopped())

    def allowed(self, vocabulary: int) -> Tensor:
        """Which tokens may come next, (vocabulary,) of bool."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.data_ptr(), self._bits.numel() * 4)
        spread = (self._bits[:, None] >> torch.arange(32, dtype=torch.int32)).bitwise_and_(1).flatten().bool()
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        known = min(vocabulary, self._size)
        allowed[:known] = spread[:known]
        return allowed

    def accept(self, token: int) -> bool:
        """Go on by one token; whether the grammar could."""
        return bool(self._matcher.consume_token(token))


def _unusable(text: str) -> BadConfig:
    return BadConfig(
        f"the schema cannot be held to: {text}",
        where="response_format.json_schema.schema",
        mend="use a valid JSON schema",
    )
