"""Has evalscope score a model behind an OpenAI-shaped address on rows of ours, and reads its report back.

evalscope has an environment of its own, and is asked for its ``general_qa`` alone: ROUGE of whole answers. Its BLEU needs data that
NLTK downloads, and without that is 0, so it is not asked for. Nothing is fetched. Where the address leads is looked at before it starts; it follows redirects by itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec

from tunesmith_workers.evaluation.judge_network import GuardedTransport
from tunesmith_workers.evaluation.questions import Question, questions_of
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.config import EvalscopeConfig, Folders
from tunesmith_workers.process.events import emit, emit_message, log
from tunesmith_workers.process.faults import BadConfig, ModelUnavailable, PackageMissing, WorkerFault

PYTHON_VARIABLE = "EVALSCOPE_PYTHON"
"""Names the interpreter. Never a config: whoever may send one could have anything started."""
_BENCHMARK, _SUBSET = "general_qa", "rows"
_START = "import sys; from evalscope.cli.cli import run_cmd; sys.exit(run_cmd())"
_ANSWERS_SECONDS = 30.0


class _Identity(msgspec.Struct):
    name: str
    dimensions: dict[str, str | int] = {}


class _Metric(msgspec.Struct):
    identity: _Identity
    score: float
    num: int


class _Report(msgspec.Struct):
    """What of evalscope's report is read."""

    metrics: list[_Metric]


class _Noted(msgspec.Struct):
    metric_errors: dict[str, str] = {}


class _Scored(msgspec.Struct):
    metadata: _Noted | None = None


class _Sample(msgspec.Struct):
    score: _Scored


class _Review(msgspec.Struct):
    """One row of evalscope's own, as far as it is read."""

    sample_score: _Sample


_report = msgspec.json.Decoder(_Report).decode
_review = msgspec.json.Decoder(_Review).decode


def evaluate(config: EvalscopeConfig, folders: Folders) -> None:
    """Score as the config says.

    Raises:
        WorkerFault: evalscope, the config, the rows or the address cannot be used.
    """
    python = _interpreter()
    url, name = config.address
    anyio.run(_refuse_silent, url)
    questions = questions_of(read_rows(config.data_file, config.evaluation.limit), answers=True)
    folder = folders.output / "evalscope"
    rows = folder / "data"
    rows.mkdir(parents=True, exist_ok=True)
    (rows / f"{_SUBSET}.jsonl").write_bytes(b"".join(msgspec.json.encode(_asked(one)) + b"\n" for one in questions))
    emit_message(f"evalscope asks {name} at {url} about {len(questions)} rows of {config.data_file}")
    emit("progress", phase="evaluating")
    _run([python, "-c", _START, *_options(config, url, name, rows, folder)], config.evaluation.timeout_seconds)
    _publish(folder, name, len(questions))


def _interpreter() -> str:
    python = Path(os.environ.get(PYTHON_VARIABLE, ""))
    if python.is_file():
        return str(python.absolute())
    raise PackageMissing(
        "evalscope is not installed",
        where=PYTHON_VARIABLE,
        mend=f"run `nox -s evalscope_venv`, or name an interpreter that has it in {PYTHON_VARIABLE}",
    )


async def _refuse_silent(url: str) -> None:
    transport = GuardedTransport(httpx.AsyncHTTPTransport())
    try:
        async with httpx.AsyncClient(transport=transport, timeout=_ANSWERS_SECONDS, trust_env=False) as client:
            (await client.get(f"{url.rstrip('/')}/models")).raise_for_status()
    except BadConfig as error:
        raise BadConfig(error.text, where="model.url", mend=error.mend) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"{url} does not list its models: {error or type(error).__name__}"
        raise ModelUnavailable(text, where="model.url", mend="is the deployment running?") from error


def _asked(question: Question) -> dict[str, Any]:
    before = list(question.row.messages[: question.answered_at]) if question.row.messages else None
    said = {"messages": before} if before else {"query": question.text}
    return {**said, "response": question.expected}


def _options(config: EvalscopeConfig, url: str, name: str, rows: Path, folder: Path) -> list[str]:
    place = {"dataset_id": str(rows), "local_path": str(rows), "subset_list": [_SUBSET]}
    data = {_BENCHMARK: {**place, "metric_list": ["Rouge"]}}
    generation = {"max_tokens": config.evaluation.max_new_tokens, "temperature": 0}
    return [
        *("eval", "--model", name, "--api-url", url, "--api-key", "EMPTY", "--eval-type", "openai_api"),
        *("--datasets", _BENCHMARK, "--dataset-args", msgspec.json.encode(data).decode()),
        *("--generation-config", msgspec.json.encode(generation).decode()),
        *("--eval-batch-size", str(config.evaluation.batch_size), "--work-dir", str(folder), "--no-timestamp"),
    ]


def _run(command: list[str], seconds: float) -> None:
    """evalscope, which says what it does in the log of the run. It is in our group: what ends that ends it."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise WorkerFault(
            f"evalscope was not done after {seconds:g} seconds",
            where="evaluation.timeout_seconds",
            mend="allow more, or score fewer rows with evaluation.limit",
        ) from None
    if done.returncode:
        raise WorkerFault(
            f"evalscope ended with {done.returncode}",
            where="evalscope",
            mend="the lines above say why, in its own words",
        )


def _publish(folder: Path, name: str, rows: int) -> None:
    path = folder / "reports" / name / f"{_BENCHMARK}.json"
    try:
        found = _report(path.read_bytes()).metrics
        _refuse_failed(folder / "reviews" / name / f"{_BENCHMARK}_{_SUBSET}.jsonl")
    except (OSError, msgspec.DecodeError) as error:
        raise WorkerFault(
            f"evalscope left no report that can be read: {error}", where=str(path), mend="is it version 1.14.1?"
        ) from error
    if any(one.num != rows for one in found):
        raise ModelUnavailable(
            f"not all of the {rows} rows were answered", where="model.url", mend="the lines above say why"
        )
    for written, kind in ((path, "report"), (folder / "reports" / "report.html", "report_page")):
        if written.is_file():
            emit("artifact", path=str(written), kind=kind, bytes=written.stat().st_size)
    metrics = {_named(one.identity): one.score for one in found}
    log("scores: " + ", ".join(f"{metric} {score:.4f}" for metric, score in metrics.items()))
    emit("metrics", **metrics)
    emit("result", metrics={**metrics, "rows": rows}, report=str(path))


def _refuse_failed(reviews: Path) -> None:
    """Evalscope gives 0 for a metric that it could not compute."""
    with reviews.open("rb") as lines:
        noted = (_review(line).sample_score.score.metadata for line in lines)
        failed = {metric: why for one in noted if one is not None for metric, why in one.metric_errors.items()}
    if failed:
        text = "; ".join(f"{metric}: {' '.join(why.split())}" for metric, why in failed.items())
        raise WorkerFault(f"evalscope could not compute {text[:500]}", where="evalscope", mend="install what it names")


def _named(identity: _Identity) -> str:
    """Such as rouge_1_recall, rouge_l_f1."""
    order = ("ngram", "variant", "statistic")
    return "_".join([identity.name, *(str(identity.dimensions[part]) for part in order if part in identity.dimensions)])
