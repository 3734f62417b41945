"""Scores a model on rows.

``exact_match`` asks the model for the last answer of each row and compares the text; ``loss``, ``perplexity`` and
``accuracy`` look at the probabilities of the given answers, token by token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from tunesmith_workers.examples.rendering import Rendered, Renderer
from tunesmith_workers.examples.rows import Row, read_rows
from tunesmith_workers.models.chat_templates import choose_template, require_template
from tunesmith_workers.process.config import EvaluateConfig, Folders
from tunesmith_workers.process.events import Paced, emit, emit_message, log
from tunesmith_workers.process.faults import BadRows

TOKEN_METRICS = frozenset({"loss", "perplexity", "accuracy"})


class Question(msgspec.Struct, frozen=True):
    """What the model is asked, and what it should say."""

    where: str
    prompt: str
    expected: str
    is_chat: bool


class Prediction(msgspec.Struct, frozen=True):
    """One line of predictions.jsonl."""

    where: str
    prompt: str
    expected: str
    predicted: str
    correct: bool


def evaluate(config: EvaluateConfig, folders: Folders) -> None:
    """Score as the config says.

    Raises:
        WorkerFault: the config, the rows or the model cannot be used.
    """
    from tunesmith_workers.models.loading import load_tokenizer  # noqa: PLC0415  # seconds of imports
    from tunesmith_workers.process.quiet import quiet  # noqa: PLC0415  # likewise
    from tunesmith_workers.weights.inference import load_for_inference  # noqa: PLC0415  # likewise

    quiet()
    emit("progress", phase="loading_model")
    tokenizer = load_tokenizer(config.base)
    choose_template(tokenizer, config.data.chat_template)
    rows = read_rows(config.data_file)[: config.evaluation.limit]
    model = load_for_inference(config.base, config.model.dtype, config.model.attention)
    emit_message(f"scoring {config.base} on {len(rows)} rows of {config.data_file}")
    metrics: dict[str, float] = {}
    if "exact_match" in config.evaluation.metrics:
        predictions = _predict(config, model, tokenizer, rows)
        metrics["exact_match"] = sum(prediction.correct for prediction in predictions) / len(predictions)
        _write_lines(folders, predictions)
    if TOKEN_METRICS.intersection(config.evaluation.metrics):
        found = _token_metrics(config, model, Renderer(tokenizer).render(rows), tokenizer.pad_token_id)
        metrics |= {name: value for name, value in found.items() if name in config.evaluation.metrics}
    _report(config, folders, metrics, len(rows))


def _predict(config: EvaluateConfig, model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[Prediction]:
    from tunesmith_workers.rollout.generation import answer  # noqa: PLC0415  # imports torch

    questions = [_question(row, tokenizer) for row in rows]
    prompts = [tokenizer(item.prompt, add_special_tokens=not item.is_chat)["input_ids"] for item in questions]
    answers = answer(
        model,
        tokenizer,
        prompts,
        batch_size=config.evaluation.batch_size,
        max_new_tokens=config.evaluation.max_new_tokens,
        progress=lambda done: emit("progress", phase="evaluating", step=done, total_steps=len(prompts)),
    )
    return [
        Prediction(
            where=question.where,
            prompt=question.prompt,
            expected=question.expected,
            predicted=text,
            correct=text.strip() == question.expected.strip(),
        )
        for question, text in zip(questions, answers, strict=True)
    ]


def _question(row: Row, tokenizer: Any) -> Question:
    if not row.messages:
        return Question(row.where, row.prompt, row.completion, is_chat=False)
    require_template(tokenizer)
    last = max(number for number, message in enumerate(row.messages) if message["role"] == "assistant")
    prompt = tokenizer.apply_chat_template(
        list(row.messages[:last]), tools=list(row.tools) or None, tokenize=False, add_generation_prompt=True
    )
    return Question(row.where, prompt, row.messages[last]["content"], is_chat=True)


def _token_metrics(
    config: EvaluateConfig, model: Any, rendered: Sequence[Rendered], pad_token: int
) -> dict[str, float]:
    rows = _fitting(rendered, config.data.max_length)
    total, trained, correct = _sums(model, rows, pad_token, config.evaluation.batch_size)
    if not trained:
        emit_message("no row has a token to score: loss, perplexity and accuracy are left out", level="warning")
        return {}
    loss = total / trained
    found = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if correct is None:
        emit_message(
            "accuracy is left out: what this model would say itself cannot be told from its own loss", level="warning"
        )
        return found
    return found | {"accuracy": correct / trained}


def _fitting(rendered: Sequence[Rendered], longest: int) -> list[Rendered]:
    fitting = [row for row in rendered if len(row.input_ids) <= longest]
    if not fitting:
        raise BadRows(f"every row is longer than {longest} tokens", where="data.max_length", mend="raise it")
    if len(fitting) < len(rendered):
        emit_message(f"{len(rendered) - len(fitting)} rows longer than data.max_length are left out", level="warning")
    return sorted(fitting, key=lambda row: len(row.input_ids), reverse=True)


def _sums(model: Any, rows: Sequence[Rendered], pad_token: int, batch_size: int) -> tuple[float, int, int | None]:
    """Of the cross entropies, the trained tokens, and those that the model would say itself; None where it is not known."""
    import torch  # noqa: PLC0415  # seconds of imports

    from tunesmith_workers.examples.batches import to_device  # noqa: PLC0415  # imports torch
    from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy  # noqa: PLC0415  # likewise
    from tunesmith_workers.objectives.trained_logits import TrainedLogits  # noqa: PLC0415  # likewise

    objective, logits, paced = TokenCrossEntropy(), TrainedLogits(model, pad_token), Paced()
    total, trained = 0.0, 0
    correct: int | None = 0
    for start in range(0, len(rows), batch_size):
        batch = to_device(objective.collate(rows[start : start + batch_size]), model.device)
        with torch.inference_mode():
            found = objective.loss(logits, model, batch, measures=True)
        total, trained = total + float(found.total), trained + found.items
        right = found.measured.get("token_accuracy")
        correct = None if correct is None or right is None else correct + int(right)
        paced.emit("progress", phase="evaluating", step=start, total_steps=len(rows))
    return total, trained, correct


def _write_lines(folders: Folders, predictions: Sequence[Prediction]) -> None:
    folders.output.mkdir(parents=True, exist_ok=True)
    path = folders.output / "predictions.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))
    emit("artifact", path=str(path), kind="predictions", bytes=path.stat().st_size)


def _report(config: EvaluateConfig, folders: Folders, metrics: dict[str, float], rows: int) -> None:
    folders.output.mkdir(parents=True, exist_ok=True)
    path = folders.output / "report.json"
    report = {
        "model": config.base,
        "data": str(config.data_file),
        "rows": rows,
        "metrics": metrics,
        "config": msgspec.to_builtins(config),
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    log("scores: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    emit("metrics", **metrics)
    emit("artifact", path=str(path), kind="report", bytes=path.stat().st_size)
    emit("result", metrics={**metrics, "rows": rows}, report=str(path))
