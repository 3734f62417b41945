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
from tunesmith_workers.models.loading import load_tokenizer, longest_context
from tunesmith_workers.models.precision import precision_for
from tunesmith_workers.process.config import DType, EvaluateConfig
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import WorkerFault, is_out_of_memory
from tunesmith_workers.rollout.generation import answer
from tunesmith_workers.weights.inference import load_for_inference


class ModelOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """What one model made of the rows."""

    label: str
    base: str
    prompts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    """Empty when no metric needs them."""
    tokens: TokenScores | None = None


def run_model(
    base: str,
    label: str,
    questions: Sequence[Question],
    config: EvaluateConfig,
    wanted: frozenset[Needs],
    progress: Progress,
) -> ModelOutputs:
    """Ask one model about all rows.

    Raises:
        WorkerFault: the model cannot be loaded, or does not fit in memory with a batch.
    """
    tokenizer = load_tokenizer(base)
    choose_template(tokenizer, config.data.chat_template)
    outputs = ModelOutputs(label=label, base=base)
    asked, scored = config.model.dtype, _scored_in(config.model.dtype)
    model = None
    with memory_explained():
        if wanted & {"answers", "judge"}:
            prompts = [prompt_for(question, tokenizer) for question in questions]
            model = load_next(base, label, asked, config, progress)
            answers = _answers(model, tokenizer, [tokens for _, tokens in prompts], label, config, progress)
            outputs = msgspec.structs.replace(
                outputs, prompts=tuple(text for text, _ in prompts), answers=tuple(answers)
            )
        if "tokens" in wanted:
            if model is None or not _same_precision(asked, scored):
                model = None  # or both would be in memory
                model = load_next(base, label, scored, config, progress)
            tokens = _tokens(model, tokenizer, questions, label, config, progress)
            outputs = msgspec.structs.replace(outputs, tokens=tokens)
    return outputs


def load_next(base: str, label: str, dtype: DType, config: EvaluateConfig, progress: Progress) -> Any:
    """Load a model once nothing is left of the one before. Raises WorkerFault."""
    progress.load(label)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return load_for_inference(base, dtype, config.model.attention)


def warn_of_long_prompts(model: Any, prompts: Sequence[Sequence[int]], most_new: int, label: str) -> None:
    """Say how many prompts leave no room for an answer in what a model can read at once."""
    longest = longest_context(model.config)
    over = sum(len(prompt) + most_new > longest for prompt in prompts) if longest else 0
    if over:
        emit_message(
            f"{over} prompts with an answer of up to {most_new} tokens are longer than the {longest} tokens that {label} can "
            "read at once: their answers may be of no use",
            level="warning",
        )


def _scored_in(asked: DType) -> DType:
    # In bfloat16 a loss depends on how many rows are computed together, by some tenths of a percent: it would be no measure.
    return "float32" if asked == "auto" else asked


def _same_precision(one: DType, two: DType) -> bool:
    return precision_for(one, trains_weights=False) == precision_for(two, trains_weights=False)


def _answers(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], label: str, config: EvaluateConfig, progress: Progress
) -> list[str]:
    scoring = config.evaluation
    warn_of_long_prompts(model, prompts, scoring.max_new_tokens, label)
    progress.begin(f"{label}: answers")
    answers = answer(
        model,
        tokenizer,
        prompts,
        batch_size=scoring.batch_size,
        max_new_tokens=scoring.max_new_tokens,
        progress=progress.done,
    )
    progress.end(len(prompts))
    return answers


def _tokens(
    model: Any, tokenizer: Any, questions: Sequence[Question], label: str, config: EvaluateConfig, progress: Progress
) -> TokenScores:
    progress.begin(f"{label}: probabilities")
    rendered = fitting(Renderer(tokenizer).render([question.row for question in questions]), config.data.max_length)
    scores = score_tokens(
        model,
        rendered,
        {question.where: place for place, question in enumerate(questions)},
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
