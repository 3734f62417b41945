"""``evaluate``: scores a model on rows. Started by recipes/evaluate/run.sh.

``exact_match`` asks the model for the last answer of each row and compares the text; ``loss``, ``perplexity`` and
``accuracy`` look at the probabilities of the given answers, token by token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from tunesmith_workers.config import EvaluateConfig, Folders, read_arguments
from tunesmith_workers.faults import BadRows, run_and_exit
from tunesmith_workers.rendering import Rendered, Renderer
from tunesmith_workers.rows import Row, read_rows
from tunesmith_workers.stopping import StopRequest
from tunesmith_workers.telling import Paced, log, note, tell
from tunesmith_workers.templates import choose_template, require_template

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
    from tunesmith_workers.models import load_for_inference, load_tokenizer  # noqa: PLC0415  # seconds of imports
    from tunesmith_workers.training import quiet  # noqa: PLC0415  # likewise

    quiet()
    tell("progress", phase="loading_model")
    tokenizer = load_tokenizer(config.base)
    choose_template(tokenizer, config.data.chat_template)
    rows = read_rows(config.data_file)[: config.evaluation.limit]
    model = load_for_inference(config.base, config.model.dtype, config.model.attention)
    note(f"scoring {config.base} on {len(rows)} rows of {config.data_file}")
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
    from tunesmith_workers.generation import answer  # noqa: PLC0415  # imports torch

    questions = [_question(row, tokenizer) for row in rows]
    prompts = [tokenizer(item.prompt, add_special_tokens=not item.is_chat)["input_ids"] for item in questions]
    answers = answer(
        model,
        tokenizer,
        prompts,
        batch_size=config.evaluation.batch_size,
        max_new_tokens=config.evaluation.max_new_tokens,
        progress=lambda done: tell("progress", phase="evaluating", step=done, total_steps=len(prompts)),
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
    import torch  # noqa: PLC0415  # seconds of imports

    from tunesmith_workers.batches import Padding  # noqa: PLC0415  # imports torch
    from tunesmith_workers.loss import TrainedTokenLoss  # noqa: PLC0415  # likewise

    fitting = [row for row in rendered if len(row.input_ids) <= config.data.max_length]
    if not fitting:
        raise BadRows(
            f"every row is longer than {config.data.max_length} tokens", where="data.max_length", mend="raise it"
        )
    if len(fitting) < len(rendered):
        note(f"{len(rendered) - len(fitting)} rows longer than data.max_length are left out", level="warning")
    fitting.sort(key=lambda row: len(row.input_ids), reverse=True)
    collate, token_loss, paced = Padding(pad_token), TrainedTokenLoss(model), Paced()
    total, trained = 0.0, 0
    correct: int | None = 0
    for start in range(0, len(fitting), config.evaluation.batch_size):
        batch = collate(fitting[start : start + config.evaluation.batch_size])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        with torch.inference_mode():
            result = token_loss(model, inputs, count_correct=True)
        total, trained = total + float(result.total), trained + result.trained
        correct = None if correct is None or result.correct is None else correct + int(result.correct)
        paced.tell("progress", phase="evaluating", step=start, total_steps=len(fitting))
    if not trained:
        note("no row has a token to score: loss, perplexity and accuracy are left out", level="warning")
        return {}
    loss = total / trained
    found = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if correct is None:
        note("accuracy is left out: what this model would say itself cannot be told from its own loss", level="warning")
        return found
    return found | {"accuracy": correct / trained}


def _write_lines(folders: Folders, predictions: Sequence[Prediction]) -> None:
    folders.output.mkdir(parents=True, exist_ok=True)
    path = folders.output / "predictions.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))
    tell("artifact", path=str(path), kind="predictions", bytes=path.stat().st_size)


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
    tell("metrics", **metrics)
    tell("artifact", path=str(path), kind="report", bytes=path.stat().st_size)
    tell("result", metrics={**metrics, "rows": rows}, report=str(path))


def main() -> None:
    StopRequest().listen()
    evaluate(*read_arguments(EvaluateConfig))


if __name__ == "__main__":
    run_and_exit(main)
