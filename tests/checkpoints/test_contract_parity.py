"""The parity certificate: what of a folder is one, and in what an engine's answers differ from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tunesmith.contract.parity import (
    FLOAT32_MARGIN,
    LARGEST_CERTIFICATE,
    MARGIN,
    MOST_RIVALS,
    PARITY,
    Answered,
    Certificate,
    Conversation,
    Message,
    Rival,
    Said,
    differences,
    encode_certificate,
    margin_of,
    read_certificate,
)
from tunesmith.files import read_regular

ANSWER = (
    Said(token=10, lead=4.0),
    Said(token=11, lead=0.3, rivals=(Rival(token=21, behind=0.3),)),
    Said(token=12, lead=2.0),
)
ASKED = Conversation(
    name="English", messages=(Message(role="user", content="a?"),), prompt=(1, 2, 3), answer=ANSWER, ended=True
)
CERTIFICATE = Certificate(template_sha256="a" * 64, tokenizer_sha256="b" * 64, dtype="bfloat16", conversations=(ASKED,))


def compared(answer: list[int], *, prompt: tuple[int, ...] = (1, 2, 3), margin: float = MARGIN) -> list[str]:
    return differences(ASKED, Answered(prompt=prompt, answer=answer), margin)


def test_what_is_written_is_read(tmp_path):
    (tmp_path / PARITY).write_bytes(encode_certificate(CERTIFICATE))
    assert read_certificate(tmp_path, read_regular) == CERTIFICATE


def test_a_folder_without_one_has_none(tmp_path):
    assert read_certificate(tmp_path, read_regular) is None
    assert read_certificate(tmp_path / "gone", read_regular) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 60_000,
        encode_certificate(CERTIFICATE)[:-20],
        encode_certificate(msgspec.structs.replace(CERTIFICATE, conversations=())),
        encode_certificate(CERTIFICATE).replace(b'"token":10', b'"token":-10'),
        encode_certificate(CERTIFICATE).replace(b'"token":10', b'"token":1e300'),
    ],
)
def test_a_damaged_one_is_told_from_none(tmp_path, content):
    (tmp_path / PARITY).write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_certificate(tmp_path, read_regular)


def test_no_more_is_read_than_one_may_have(tmp_path):
    (tmp_path / PARITY).write_bytes(b" " * (LARGEST_CERTIFICATE + 1))
    with pytest.raises(OSError, match="longer than"):
        read_certificate(tmp_path, read_regular)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / PARITY).symlink_to(Path("/etc/hostname"))
    with pytest.raises(OSError, match=r".+"):
        read_certificate(tmp_path, read_regular)


def test_the_largest_of_ours_can_be_read(tmp_path):
    rivals = tuple(Rival(token=2**31 - 1, behind=0.7499) for _ in range(MOST_RIVALS))
    said = tuple(Said(token=2**31 - 1, lead=0.1234, rivals=rivals) for _ in range(16))
    largest = [msgspec.structs.replace(ASKED, prompt=(2**31 - 1,) * 200, answer=said)] * 3
    (tmp_path / PARITY).write_bytes(
        encode_certificate(msgspec.structs.replace(CERTIFICATE, conversations=tuple(largest)))
    )
    assert read_certificate(tmp_path, read_regular) is not None


def test_the_same_answer_does_not_differ():
    """Nor one that goes on, nor one without the token that ends it."""
    assert compared([10, 11, 12]) == compared([10, 11, 12, 99]) == compared([10, 11]) == []


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ((1, 7, 3), "from number 2 on: expected 2 3 (3 in all), got 7 3 (3)"),
        ((1, 2), "from number 3 on: expected 3 (3 in all), got none (2)"),
        ((1, 2, 3, 4), "from number 4 on: expected none (3 in all), got 4 (4)"),
        ((), "from number 1 on: expected 1 2 3 (3 in all), got none (0)"),
    ],
)
def test_another_prompt_is_told_with_the_place(prompt, words):
    """Of its answer nothing is said: that must be another one, too."""
    [difference] = compared([99], prompt=prompt)
    assert "the conversation 'English'" in difference
    assert words in difference


def test_another_answer_is_told_with_the_token():
    [difference] = compared([10, 11, 99])
    assert difference.startswith("the answer to the conversation 'English' differs at its token 3: expected token 12, ")
    assert difference.endswith("which was 2.00 ahead of any other, got token 99")
    assert "token 1: expected token 10" in compared([])[0]
    assert "got nothing" in compared([])[0]


def test_a_rival_may_be_said_where_roundings_decide():
    """What follows depends on it and counts for nothing; any other token still differs."""
    assert compared([10, 21, 99]) == []
    assert "token 2: expected token 11, or one of 1 close to it, got token 22" in compared([10, 22, 12])[0]
    assert "token 2" in compared([10, 21, 99], margin=FLOAT32_MARGIN)[0], "in float32 it was decided"


def test_an_engine_with_quantised_weights_is_held_to_its_prompts_only():
    assert compared([99], margin=float("inf")) == []
    assert compared([99], prompt=(1,), margin=float("inf")) != []


def test_a_precision_that_nobody_knows_has_the_wide_margin():
    assert margin_of("float32") < margin_of("bfloat16") == margin_of(None) == margin_of("nonsense")
