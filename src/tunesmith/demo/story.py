"""The demo, told over HTTP: score a model on orders it has never seen, fine-tune it, score it again.

It is a client like any other: whatever it does, a user can do. What is printed at the end is in ``report``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.cli.client import Service, run_path
from tunesmith.cli.display import Display
from tunesmith.cli.render import took_text
from tunesmith.cli.watch import follow_run
from tunesmith.demo import interrupts, orders
from tunesmith.errors import Conflict, Fault, TunesmithError
from tunesmith.files import write_atomically
from tunesmith.paths import StatePaths

Show = Callable[[str], AbstractContextManager[Display]]
"""Makes a display with a label."""

_PREDICTIONS = "predictions.jsonl"
_DEPLOYMENTS = "/api/v1/deployments"
_CANCEL_PATIENCE_SECONDS = 120.0
_CHAT_PATIENCE_SECONDS = 600.0
"""The model may have to be loaded first."""
# More than any right answer has; an untrained model would go on and on.
_LONGEST_ANSWER_TOKENS = 64


class DemoData(msgspec.Struct, frozen=True, kw_only=True):
    """The two files of orders."""

    train: Path
    held_out: Path


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """The first held-out order, to be looked at."""

    order: str
    wanted: str


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """How one model did on the held-out orders."""

    run_id: str
    predictions: Path
    exact_match: float
    answer: str
    """What the model made of the example's order."""


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the tuned model through the service, as anybody would ask it."""

    order: str
    answer: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo found."""

    experiment_id: str
    training_id: str
    training_dir: str
    training_took: str
    result: str
    held_out: int
    example: Example
    before: Scored
    after: Scored
    chat: Chat
    data: DemoData


def write_data(folder: Path) -> DemoData:
    """Write the orders; the same ones every time."""
    folder.mkdir(parents=True, exist_ok=True)
    data = DemoData(train=folder / "train.jsonl", held_out=folder / "held_out.jsonl")
    write_atomically(data.train, orders.to_json_lines(orders.train()).encode())
    write_atomically(data.held_out, orders.to_json_lines(orders.held_out()).encode())
    return data


def play(
    service: Service,
    paths: StatePaths,
    *,
    model: str,
    data: DemoData,
    hyperparams: Mapping[str, Any],
    show: Show,
    keeps_engines: bool,
) -> Outcome:
    """Three runs in a new experiment, each followed to its end, and a question to the tuned model.

    Unless ``keeps_engines``, what was started to answer it is ended.

    Raises:
        TunesmithError: the service refused something, or a run did not succeed; with the run's own words.
    """
    experiment_id: str = service.post("/v1/experiments", _experiment(model))["id"]

    def run(label: str, **request: Any) -> dict[str, Any]:
        with show(label) as shown:
            return _run(service, experiment_id, request, shown)

    before = run("1/3 before", **_evaluation(model, data))
    training = run(
        "2/3 training",
        recipe="lora",
        model=model,
        dataset={"name": str(data.train.resolve())},
        hyperparams=dict(hyperparams),
    )
    after = run("3/3 after", **_evaluation(training["run_id"], data))
    with show("chat") as shown:
        shown.note("asking the tuned model through the service, which loads it first")
        chat = _chat(service, training["run_id"], keeps_engines=keeps_engines)
    return _outcome(experiment_id, training, paths, before=before, after=after, chat=chat, data=data)


def _outcome(
    experiment_id: str,
    training: Mapping[str, Any],
    paths: StatePaths,
    *,
    before: dict[str, Any],
    after: dict[str, Any],
    chat: Chat,
    data: DemoData,
) -> Outcome:
    return Outcome(
        experiment_id=experiment_id,
        training_id=training["run_id"],
        training_dir=str(paths.run(training["run_id"]).folder),
        training_took=took_text(training),
        result=training["output_path"],
        held_out=orders.HELD_OUT_ROWS,
        example=_example(),
        before=_scored(before, paths),
        after=_scored(after, paths),
        chat=chat,
        data=data,
    )


def _experiment(model: str) -> dict[str, Any]:
    return {
        "name": "demo: orders to JSON",
        "task_type": "lora",
        "goal": "Turn a one-line order into JSON with six keys.",
        "base_model": model,
        "tags": ["demo"],
    }


def _evaluation(model: str, data: DemoData) -> dict[str, Any]:
    return {
        "recipe": "evaluate",
        "model": model,
        "dataset": {"name": str(data.held_out.resolve()), "split": "test"},
        "hyperparams": {"evaluation.max_new_tokens": _LONGEST_ANSWER_TOKENS},
    }


def _run(service: Service, experiment_id: str, request: dict[str, Any], shown: Display) -> dict[str, Any]:
    run_id: str = service.post(f"/v1/experiments/{experiment_id}/runs", request)["run_id"]
    try:
        ended = follow_run(service, run_id, shown)
    except KeyboardInterrupt:
        interrupts.heard()
        shown.note(f"stopping run {run_id}")
        with suppress(Conflict):  # it ended by itself in this moment
            service.post(run_path(run_id, "cancel"), patience_seconds=_CANCEL_PATIENCE_SECONDS)
        raise
    if ended["status"] != "succeeded":
        faults = (msgspec.convert(ended["error"], Fault),) if ended["error"] else ()
        raise TunesmithError(
            f"the {request['recipe']} run {run_id} has {ended['status']}",
            where=f"{ended['run_dir']}/run.log",
            mend="mend what it says and run the demo again",
            faults=faults,
        )
    return ended


def _chat(service: Service, model: str, *, keeps_engines: bool) -> Chat:
    """The first order that nobody was scored on."""
    before = _engines(service)
    *asked, _ = orders.held_out(orders.HELD_OUT_ROWS + 1)[-1]["messages"]
    request = {"model": model, "messages": asked, "temperature": 0, "max_tokens": _LONGEST_ANSWER_TOKENS}
    answered = service.post("/api/inference/chat", request, patience_seconds=_CHAT_PATIENCE_SECONDS)
    for engine in _engines(service) - before if not keeps_engines else ():
        service.delete(f"{_DEPLOYMENTS}/{engine}", patience_seconds=_CANCEL_PATIENCE_SECONDS)
    return Chat(order=asked[-1]["content"], answer=answered["message"]["content"])


def _engines(service: Service) -> set[str]:
    """Those that the service started itself."""
    listed = service.listed(_DEPLOYMENTS, limit=1000)
    return {one["deployment_id"] for one in listed if one["on_demand"]}


def _scored(run: dict[str, Any], paths: StatePaths) -> Scored:
    predictions = paths.run(run["run_id"]).output / _PREDICTIONS
    return Scored(
        run_id=run["run_id"],
        predictions=predictions,
        exact_match=run["metrics"]["exact_match"],
        answer=_first_answer(predictions),
    )


def _first_answer(predictions: Path) -> str:
    with predictions.open("rb") as lines:
        return _decode_prediction(lines.readline()).predicted


class _Prediction(msgspec.Struct):
    """A line of the evaluation's predictions, as far as the demo shows it."""

    predicted: str


_decode_prediction = msgspec.json.Decoder(_Prediction).decode


def _example() -> Example:
    _, user, assistant = orders.held_out(1)[0]["messages"]
    return Example(order=user["content"], wanted=assistant["content"])
