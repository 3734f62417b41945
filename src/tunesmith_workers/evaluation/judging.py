"""Has a judge grade answers: another model of ours, or one behind an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tunesmith_workers.evaluation.judge_address import ask_address, headers_for
from tunesmith_workers.evaluation.judge_words import checked_prompt, filled, score_in
from tunesmith_workers.evaluation.measured import Measured, mean_of
from tunesmith_workers.evaluation.one_model import ModelOutputs, load_next, memory_explained, warn_of_long_prompts
from tunesmith_workers.evaluation.progress import Progress
from tunesmith_workers.evaluation.questions import Question
from tunesmith_workers.models.chat_templates import require_template
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.process.config import EvaluateConfig, Judge
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.rollout.generation import answer


class Grades(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge said of one model's answers, in the order of the rows."""

    replies: tuple[str | None, ...]
    scores: tuple[float | None, ...]


def check_judge(judge: Judge) -> Judge | None:
    """The judge that a config names, if it names one. Looks before hours of answers whether it could be asked.

    Raises:
        BadConfig: it names two, its prompt has no place for the answer, or its address cannot be asked.
    """
    if not (judge.model or judge.url):
        return None
    if judge.model and judge.url:
        raise BadConfig("names two judges", where="evaluation.judge", mend="set model or url, not both")
    checked_prompt(judge.prompt)
    if judge.url:
        headers_for(judge)
    return judge


def judge_all(
    judge: Judge,
    outputs: Sequence[ModelOutputs],
    questions: Sequence[Question],
    config: EvaluateConfig,
    progress: Progress,
) -> list[Grades]:
    """Grade every answer of every model, a judge of ours being loaded once.

    Raises:
        WorkerFault: the judge cannot be loaded or reached.
    """
    prompt = checked_prompt(judge.prompt)
    prompts = [
        filled(prompt, question=question.text, reference=question.expected, answer=said)
        for one in outputs
        for question, said in zip(questions, one.answers, strict=True)
    ]
    with memory_explained():
        replies = _ask_model(judge, prompts, config, progress) if judge.model else _ask_url(judge, prompts, progress)
    scores = [None if reply is None else score_in(reply) for reply in replies]
    _tell(scores, replies)
    starts = range(0, len(prompts), len(questions))
    return [
        Grades(
            replies=tuple(replies[start : start + len(questions)]),
            scores=tuple(scores[start : start + len(questions)]),
        )
        for start in starts
    ]


def judge_metrics(grades: Grades) -> list[Measured]:
    """The mean score of the answers that were graded, and the share of those that were not."""
    missing = [float(score is None) for score in grades.scores]
    return [mean_of("judge_score", grades.scores), mean_of("judge_unparsed", missing)]


def _ask_url(judge: Judge, prompts: Sequence[str], progress: Progress) -> list[str | None]:
    progress.begin("the judge")
    replies = ask_address(judge, prompts, progress.done)
    progress.end(len(prompts))
    return replies


def _ask_model(judge: Judge, prompts: Sequence[str], config: EvaluateConfig, progress: Progress) -> list[str | None]:
    assert judge.model is not None
    tokenizer: Any = load_tokenizer(judge.model)
    require_template(tokenizer)
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    model = load_next(judge.model, "the judge", config.model.dtype, config, progress)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
    warn_of_long_prompts(model, tokens, judge.reply_tokens, "the judge")
    progress.begin("the judge")
    replies = answer(
        model,
        tokenizer,
        tokens,
        batch_size=config.evaluation.batch_size,
        max_new_tokens=judge.reply_tokens,
        progress=progress.done,
    )
    progress.end(len(prompts))
    return list(replies)


def _tell(scores: Sequence[float | None], replies: Sequence[str | None]) -> None:
    silent, missing = list(replies).count(None), list(scores).count(None)
    if missing:
        emit_message(
            f"the judge gave no score for {missing} of {len(scores)} answers ({silent} without a reply); "
            "judge_score is the mean of the others",
            level="warning",
        )
