"""Everything that one model is loaded for: its answers, and its probabilities of the given ones. It is let go of again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import torch

from tunesmith_workers.evaluation.metrics import Needs
from tunesmith_workers.evaluation.progress import Progress
from tunesmith_workers.evaluation.questions import Question, prompt_for
from tunesmith_workers.evaluation.token_scores import TokenScores, fitting, score_tokens
from tunesmith_workers.examples.rendering import Renderer
from tunesmith_workers.models.chat_templates import choose_template
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.process.config import DType, EvaluateConfig
from tunesmith_workers.process.faults import WorkerFault, is_out_of_memory
from tunesmith_workers.rollout.generation import answer
from tunesmith_workers.weights.inference import load_for_inference


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What one model made of the rows."""

    label: str
    base: str
    prompts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    """Empty when no metric needs them."""
    tokens: TokenScores | None = None


def hear(
    base: str,
    label: str,
    questions: Sequence[Question],
    config: EvaluateConfig,
    wanted: frozenset[Needs],
    progress: Progress,
) -> Heard:
    """Ask one model about all rows.

    Raises:
        WorkerFault: the model cannot be loaded, or does not fit in memory with a batch.
    """
    tokenizer = load_tokenizer(base)
    choose_template(tokenizer, config.data.chat_template)
    heard = Heard(label=label, base=base)
    with memory_explained():
        if wanted & {"answers", "judge"}:
            heard = _answers(heard, tokenizer, questions, config, progress)
        if "tokens" in wanted:
            heard = msgspec.structs.replace(heard, tokens=_tokens(heard, tokenizer, questions, config, progress))
    return heard


def load_next(base: str, label: str, dtype: DType, config: EvaluateConfig, progress: Progress) -> Any:
    """Load a model once nothing is left of the one before. Raises WorkerFault."""
    progress.load(label)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return load_for_inference(base, dtype, config.model.attention)


def _answers(
    heard: Heard, tokenizer: Any, questions: Sequence[Question], config: EvaluateConfig, progress: Progress
) -> Heard:
    prompts = [prompt_for(question, tokenizer) for question in questions]
    model = load_next(heard.base, heard.label, config.model.dtype, config, progress)
    progress.begin(f"{heard.label}: answers")
    answers = answer(
        model,
        tokenizer,
        [tokens for _, tokens in prompts],
        batch_size=config.evaluation.batch_size,
        max_new_tokens=config.evaluation.max_new_tokens,
        progress=progress.done,
    )
    progress.end(len(questions))
    return msgspec.structs.replace(heard, prompts=tuple(text for text, _ in prompts), answers=tuple(answers))


def _tokens(
    heard: Heard, tokenizer: Any, questions: Sequence[Question], config: EvaluateConfig, progress: Progress
) -> TokenScores:
    rendered = fitting(Renderer(tokenizer).render([question.row for question in questions]), config.data.max_length)
    places = {question.where: place for place, question in enumerate(questions)}
    # In bfloat16 a loss depends on how many rows are computed together, by some tenths of a percent: it would be no measure.
    dtype: DType = "float32" if config.model.dtype == "auto" else config.model.dtype
    model = load_next(heard.base, heard.label, dtype, config, progress)
    progress.begin(f"{heard.label}: probabilities")
    scores = score_tokens(
        model,
        rendered,
        places,
        pad_token=tokenizer.pad_token_id,
        batch_size=config.evaluation.batch_size,
        progress=progress.done,
    )
    progress.end(len(questions))
    return scores


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Have a lack of memory told in the options of an evaluation."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WorkerFault(
            f"out of memory: {error}".splitlines()[0],
            where="evaluation.batch_size",
            mend="halve it, lower data.max_length, or set model.dtype to bfloat16: loss and perplexity are otherwise "
            "computed in float32",
        ) from error
