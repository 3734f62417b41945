"""Greedy answers to many prompts: batches of similar length, padded on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from tunesmith_workers.models.structure import pad_token_for


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """The model's most likely continuation of each prompt, in the order of the prompts.

    Args:
        model: any causal language model of transformers.
        tokenizer: its tokenizer.
        prompts: token ids.
        batch_size: how many are answered together.
        max_new_tokens: where an answer that does not end is cut.
        progress: told how many answers there are so far, after each token; one that is begun counts by its length.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    answers, done = [""] * len(prompts), 0
    for batch in batches:
        after_each_token = _AfterEachToken(progress, done, len(batch), max_new_tokens)
        texts = _generate(model, tokenizer, [prompts[i] for i in batch], max_new_tokens, after_each_token)
        for i, text in zip(batch, texts, strict=True):
            answers[i] = text
        done += len(batch)
        progress(done)
    return answers


class _AfterEachToken(StoppingCriteria):
    """Stops nothing: it is what `generate` calls after each token."""

    def __init__(self, progress: Callable[[int], None], done: int, rows: int, most: int) -> None:
        self._progress = progress
        self._done = done
        self._rows = rows
        self._most = most
        self._tokens = 0

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002  # the signature of a criterion
        self._tokens += 1
        self._progress(self._done + self._rows * min(self._tokens, self._most) // self._most)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, after_each_token: _AfterEachToken
) -> list[str]:
    filler = pad_token_for(model, tokenizer.pad_token_id)
    ids, mask = _padded_left(prompts, filler, model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        stopping_criteria=StoppingCriteriaList([after_each_token]),
        # A model's own defaults for sampling mean nothing here, and would only be warned about.
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts: list[str] = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def _padded_left(rows: Sequence[Sequence[int]], filler: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([[filler] * (length - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
