"""The parity certificate: what a trained model itself says to a few fixed conversations, so that whoever serves it can be held to
that. Here is what is written, what an engine answered, and in what the two differ. Nothing is computed or asked here.

Greedy answers can only be compared where the model was decided. Kernels that add up in another order change a logit of float32 by
hundredths at most. In bfloat16 two neighbouring numbers around 20 are 0.125 apart, and dozens of layers round as many times: logits
of two honest programs differ by several such steps. Where other logits are as close to the largest as that, any of these tokens is
right, and all that follows depends on which was taken. So each token of an answer is recorded with its lead, the distance between
the two largest logits, and with its rivals, the tokens that are closer than the largest margin. An engine is compared up to the
first token where it took a rival that is within the margin of the precision that the answer was computed in, or of the engine's
own if that is coarser. Any other token is a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Final

import msgspec

PARITY: Final = "parity.json"
LARGEST_CERTIFICATE: Final = 64 * 1024
"""Bytes; ours have some three thousand."""
FLOAT32_MARGIN: Final = 0.05
MARGIN: Final = 0.75
"""In bfloat16, and in whatever precision is not known."""
MOST_RIVALS: Final = 20
"""A model that finds more tokens than this equally likely has no answer: it is recorded up to there."""
_SHOWN = 5
"""Tokens, of prompts that differ."""

Token = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, as chat templates read it."""

    role: str
    content: str


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """Another token that might have been said."""

    token: Token
    behind: float
    """How far its logit was below the largest."""


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One token of an answer: the one with the largest logit."""

    token: Token
    lead: float
    """How far its logit was above the next one."""
    rivals: Annotated[tuple[Rival, ...], msgspec.Meta(max_length=MOST_RIVALS)] = ()
    """All that were less than ``MARGIN`` behind."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, and what the trained model said."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)]
    prompt: Annotated[tuple[Token, ...], msgspec.Meta(min_length=1)]
    """The token ids that the chat template makes of it, with the beginning of the answer."""
    answer: Annotated[tuple[Said, ...], msgspec.Meta(max_length=1000)] = ()
    """The beginning of the greedy answer."""
    ended: bool = False
    """Whether the last token is the end of the answer; not every engine lists that among its tokens."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``parity.json``."""

    template_sha256: str | None
    tokenizer_sha256: str
    """Both as in the manifest."""
    dtype: str
    """The precision that the answers were computed in, such as bfloat16."""
    conversations: Annotated[tuple[Conversation, ...], msgspec.Meta(min_length=1, max_length=8)]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine said to a conversation, in token ids."""

    prompt: Sequence[int]
    answer: Sequence[int]


decode_certificate = msgspec.json.Decoder(Certificate).decode
"""Made when this is imported; see ``manifest``."""


def encode_certificate(certificate: Certificate) -> bytes:
    """As it is written; more of it than ``LARGEST_CERTIFICATE`` is not read."""
    return msgspec.json.encode(certificate) + b"\n"


def read_certificate(folder: Path, read: Callable[[Path, int], bytes]) -> Certificate | None:
    """The certificate of a model or adapter; None where it has none. ``read`` takes a path and how many bytes it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not one.
    """
    try:
        return decode_certificate(read(folder / PARITY, LARGEST_CERTIFICATE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ValueError(str(error)) from error


def margin_of(dtype: str | None) -> float:
    """How far logits of two honest programs may be apart in this precision; None: it is not known which."""
    return FLOAT32_MARGIN if dtype == "float32" else MARGIN


def differences(expected: Conversation, came: Answered, margin: float) -> list[str]:
    """In what an engine differs from the trained model, in words; empty where it does not."""
    found = (_of_prompt(expected, came), _of_answer(expected, came, margin))
    return [difference for difference in found if difference is not None][:1]  # another prompt has another answer


def _of_prompt(expected: Conversation, came: Answered) -> str | None:
    for place, (token, other) in enumerate(zip_longest(expected.prompt, came.prompt)):
        if token != other:
            return (
                f"the prompt of the conversation {expected.name!r} has other tokens from number {place + 1} on: expected "
                f"{_shown(expected.prompt, place)} ({len(expected.prompt)} in all), got {_shown(came.prompt, place)} "
                f"({len(came.prompt)})"
            )
    return None


def _shown(tokens: Sequence[int], place: int) -> str:
    return " ".join(map(str, tokens[place : place + _SHOWN])) or "none"


def _of_answer(expected: Conversation, came: Answered, margin: float) -> str | None:
    for place, said in enumerate(expected.answer):
        is_last = place == len(expected.answer) - 1
        other = came.answer[place] if place < len(came.answer) else None
        if other == said.token or (other is None and is_last and expected.ended):
            continue
        close = [rival.token for rival in said.rivals if rival.behind < margin]
        if margin > MARGIN or other in close:
            return None  # it may say so, and what follows depends on it
        decided = f"or one of {len(close)} close to it" if close else f"which was {said.lead:.2f} ahead of any other"
        got = "nothing" if other is None else f"token {other}"
        return (
            f"the answer to the conversation {expected.name!r} differs at its token {place + 1}: expected token {said.token}, "
            f"{decided}, got {got}"
        )
    return None
