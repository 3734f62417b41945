"""Writes the parity certificate of a model that is about to be complete: what the model in memory says to fixed conversations.

What it is and how it is compared: ``tunesmith.contract.parity``. The answers are transformers' own ``generate``; where frozen
weights were prepacked or norms fused for the training, they still are, which is within the margin. A certificate is worth less than
the training: whatever goes wrong is told, and the folder has none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.contract.manifest import Origin
from tunesmith.contract.parity import (
    MARGIN,
    MOST_RIVALS,
    PARITY,
    Certificate,
    Conversation,
    Message,
    Rival,
    Said,
    encode_certificate,
)
from tunesmith_workers.models.loading import load_generation_config
from tunesmith_workers.models.structure import set_attention
from tunesmith_workers.process.events import emit_message, log

_MOST_TOKENS = 16
_SECONDS = 5.0
"""After which an answer is long enough: a large model on a CPU must not keep the training from its end."""
_USER, _SYSTEM = "user", "system"
_CONVERSATIONS = (
    ("English", ((_USER, "What is the capital of France?"),)),
    ("Chinese", ((_USER, "请用一句话介绍北京。"),)),
    ("with a system message", ((_SYSTEM, "Answer in one word."), (_USER, "Which colour has grass?"))),
)
_SMALL = 1_000_000_000
"""Parameters. Below that a token is hundreds of short operations: on a busy machine threads wait for each other at each, and two of
them were measured to take four times as long as one."""
_CLOCK = "strftime_now"


class _NoCertificate(Exception):
    """Why there cannot be one."""


def certify(folder: Path, model: Any, tokenizer: Any, origin: Origin, *, attention: str | None = None) -> None:
    """Write ``parity.json`` beside the weights, tokenizer and generation config that are in ``folder`` already.

    Args:
        folder: where the model, or the adapter, was saved.
        model: the same in memory, with its adapter.
        tokenizer: the one that was saved.
        origin: has the hashes of template and tokenizer.
        attention: the implementation that was asked for; None: transformers' default.
    """
    started = time.monotonic()
    try:
        certificate = certificate_of(folder, model, tokenizer, origin, attention)
        (folder / PARITY).write_bytes(encode_certificate(certificate))
    except Exception as error:  # noqa: BLE001  # a model may do anything; it is saved all the same
        (folder / PARITY).unlink(missing_ok=True)
        emit_message(
            f"no parity certificate: {' '.join(str(error).split())[:400] or type(error).__name__}; whoever serves this model "
            "cannot see whether it is served as it was trained",
            level="warning",
        )
        return
    said = [token for one in certificate.conversations for token in one.answer]
    decided = sum(not token.rivals for token in said)
    log(
        f"parity certificate: {len(certificate.conversations)} conversations, {len(said)} tokens of answers ({decided} of them "
        f"decided) in {certificate.dtype}, in {time.monotonic() - started:.1f} s"
    )


def certificate_of(folder: Path, model: Any, tokenizer: Any, origin: Origin, attention: str | None) -> Certificate:
    """What the model says, computed now."""
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise _NoCertificate("the model has no chat template")
    if _CLOCK in template:
        raise _NoCertificate("the chat template writes the date into prompts, so they differ from day to day")
    answers = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters are within its layers
    ends = load_generation_config(str(folder)).eos_token_id
    with _as_served(answers, attention), torch.no_grad():
        found = [
            _conversation(name, messages, answers, tokenizer, [ends] if isinstance(ends, int) else list(ends or ()))
            for name, messages in _CONVERSATIONS
        ]
    conversations = tuple(one for one in found if one is not None)
    if not conversations:
        raise _NoCertificate("the chat template refuses every conversation")
    return Certificate(
        template_sha256=str(origin.template_sha256),
        tokenizer_sha256=str(origin.tokenizer_sha256),
        dtype=_dtype(answers),
        conversations=conversations,
    )


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


@contextmanager
def _as_served(model: Any, attention: str | None) -> Iterator[None]:
    """While the model attends as others will have it attend, and drops nothing: a training may have left it otherwise."""
    trains, threads = model.training, torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < _SMALL:
        torch.set_num_threads(1)
    before = set_attention(model, attention or ("sdpa" if getattr(model, "_supports_sdpa", False) else "eager"))
    model.eval()
    try:
        yield
    finally:
        set_attention(model, before)
        model.train(trains)
        torch.set_num_threads(threads)


def _conversation(
    name: str, messages: tuple[tuple[str, str], ...], model: Any, tokenizer: Any, ends: list[int]
) -> Conversation | None:
    """None where the template refuses it: not every one knows system messages."""
    asked = [{"role": role, "content": content} for role, content in messages]
    try:
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # noqa: BLE001  # a template may raise anything
        log(f"the parity certificate leaves out the conversation {name!r}: {error}")
        return None
    prompt: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = _greedy(model, prompt, ends, tokenizer.pad_token_id)
    return Conversation(
        name=name,
        messages=tuple(Message(role=role, content=content) for role, content in messages),
        prompt=tuple(prompt),
        answer=tuple(answer),
        ended=bool(answer) and answer[-1].token in ends,
    )


def _greedy(model: Any, prompt: list[int], ends: list[int], pad: int | None) -> list[Said]:
    """The beginning of the answer, each token with what else might have been said."""
    ids = torch.tensor([prompt], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=_MOST_TOKENS,
        max_time=_SECONDS,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        # A model's own defaults for sampling mean nothing here, and would only be warned about.
        temperature=None,
        top_p=None,
        top_k=None,
        repetition_penalty=1.0,
        eos_token_id=ends or None,
        pad_token_id=pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    answer: list[Said] = []
    for token, logits in zip(output.sequences[0, len(prompt) :].tolist(), output.logits, strict=True):
        said = _said(token, logits[0].float())
        if said is None:
            break
        answer.append(said)
    return answer


def _said(token: int, logits: Tensor) -> Said | None:
    """The token that was said, with its rivals among the logits, (vocabulary,); None where there is no telling: it was chosen by
    more than the weights, such as a ban on some tokens, or by nothing, among too many.
    """
    values, tokens = (found.tolist() for found in logits.topk(min(MOST_RIVALS + 2, len(logits))))
    best = values[0]
    others = [(other, best - value) for other, value in zip(tokens, values, strict=True) if other != token]
    rivals = [Rival(token=other, behind=round(behind, 4)) for other, behind in others if not behind >= MARGIN]
    lead = others[0][1]
    # In bfloat16 several may be the largest.
    if float(logits[token]) != best or not math.isfinite(lead) or len(rivals) > MOST_RIVALS:
        return None
    return Said(token=token, lead=round(lead, 4), rivals=tuple(rivals))
