"""``tunesmith compare-openai``: a model of OpenAI's and one of this service on the same held-out rows, with a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import number_text, print_json, print_table
from tunesmith.errors import InvalidInput, Unavailable
from tunesmith.from_openai.options import openai_key_option, openai_url_option, refuse_itself
from tunesmith.from_openai.sdk import KEY_VARIABLE, connect, load_sdk, openai_key
from tunesmith.terminal import printable

if TYPE_CHECKING:
    from tunesmith.cli.client import Service
    from tunesmith.from_openai.asking import Asked, Question

_INTERRUPTED = 130
_NO_KEY = "none"
_FIRST_LOAD_SECONDS = 900.0
_ANSWER_SECONDS = 120.0
_CHARACTERS_OF_A_TOKEN = 4
_METRICS = ("exact_match", "json_match")
_SIDES = {"old": "at OpenAI", "new": "here"}


@click.command()
@click.argument("old_model")
@click.argument("new_model")
@click.argument("held_out", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), help="Only the first so many rows.")
@click.option("--metric", "metrics", multiple=True, default=_METRICS, show_default=True, help="As of `evaluate`.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, help="An answer is cut here.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Requests at once.")
@click.option(
    "--output", type=click.Path(path_type=Path), default="comparison", show_default=True, help="Folder for the report."
)
@click.option("--yes", is_flag=True, help="Do not ask before OpenAI's model is asked, which costs money.")
@openai_url_option
@openai_key_option
@json_option
@asks_service
def compare_openai(
    *,
    service: Service,
    held_out: Path,
    rows: int | None,
    metrics: tuple[str, ...],
    output: Path,
    yes: bool,
    openai_url: str,
    key_file: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    """Ask OLD_MODEL at OpenAI and NEW_MODEL here the rows of HELD_OUT, and compare their last answers with those in the file.

    Answers are kept as they come: after Ctrl-C the same command asks for the others only. Exits with 1 unless both answered.
    """
    from tunesmith.from_openai.asking import read_questions
    from tunesmith.from_openai.scoring import Scoring, report_in

    refuse_itself(service, openai_url)
    load_sdk()
    scoring = Scoring(_made(output), held_out.absolute(), rows, metrics)
    try:
        questions = read_questions(scoring.questions())
        _tell_cost(questions, asking["max_tokens"], yes=yes)
        asked = _ask_both(service, questions, scoring.folder, openai_url, key_file, **asking)
        sides = [side for side, one in asked.items() if one.refusal is None]
        names = [asking[f"{side}_model"] for side in sides]
        scoring.score(
            [
                (name, f"{name} {_SIDES[side]}", scoring.folder / f"{side}_answers.jsonl")
                for side, name in zip(sides, names, strict=True)
            ]
        )
    except KeyboardInterrupt:
        click.echo("\nstopped; the answers so far are kept, and the same command goes on with the rest", err=True)
        sys.exit(_INTERRUPTED)
    _show(report_in(scoring.folder), sides, scoring.folder, as_json=as_json)
    sys.exit(0 if len(sides) == len(_SIDES) else 1)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"{str(folder)!r}: {error.strerror}", where="--output", mend="name another folder"
        ) from error
    return folder.resolve()


def _tell_cost(questions: Sequence[Question], max_tokens: int, *, yes: bool) -> None:
    import msgspec

    characters = sum(len(msgspec.json.encode(one.messages)) + len(msgspec.json.encode(one.tools)) for one in questions)
    click.echo(
        f"{len(questions)} rows: about {characters // _CHARACTERS_OF_A_TOKEN} tokens of prompts, and at most "
        f"{len(questions) * max_tokens} of answers, which OpenAI charges for (--rows N asks fewer)",
        err=True,
    )
    if not yes and sys.stdin.isatty():
        click.confirm("Go on?", abort=True, err=True)


def _ask_both(
    service: Service,
    questions: Sequence[Question],
    folder: Path,
    openai_url: str,
    key_file: Path | None,
    *,
    old_model: str,
    new_model: str,
    max_tokens: int,
    concurrency: int,
) -> dict[str, Asked]:
    """Raises Unavailable: neither answers."""
    from tunesmith.from_openai.asking import Asker, write_answers
    from tunesmith.from_openai.showing import counter

    sdk = load_sdk()
    # Without a key there may still be the answers of last time; OpenAI refuses what goes out without one.
    old_key = openai_key(key_file) if key_file is not None or os.environ.get(KEY_VARIABLE) else _NO_KEY
    places = {
        "old": (openai_url, old_key, old_model, "OpenAI", _ANSWER_SECONDS),
        "new": (f"{service.url}/v1", service.key or _NO_KEY, new_model, "this service", _FIRST_LOAD_SECONDS),
    }
    asked: dict[str, Asked] = {}
    for side, (url, key, model, name, seconds) in places.items():
        path = folder / f"{side}_answers.jsonl"
        with (
            connect(sdk, url, key, timeout_seconds=seconds) as client,
            counter(f"{model} {_SIDES[side]}", len(questions)) as progress,
        ):
            asked[side] = Asker(sdk, client, name, model, max_tokens).ask(questions, path, concurrency, progress)
        write_answers(path, asked[side].answers)
        if asked[side].refusal is not None:
            click.echo(printable(f"{model} {_SIDES[side]} does not answer: {asked[side].refusal}"), err=True)
    if all(one.refusal is not None for one in asked.values()):
        raise Unavailable("neither model answers", mend="see above; check the models' names and the key")
    return asked


def _show(report: Mapping[str, Any], sides: Sequence[str], folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), **{name: report[name] for name in ("rows", "models", "comparisons")}})
        return
    verdicts = {one["metric"]: one["verdict"] for one in report["comparisons"]}
    models = report["models"]
    names = dict.fromkeys(name for model in models for name in model["metrics"])
    rows = [(name, *(_value(model, name) for model in models), verdicts.get(name, "")) for name in names]
    print_table(("metric", *(_SIDES[side] for side in sides), "the new one is"), rows)
    click.echo(f"report: {folder / 'report.html'}", err=True)


def _value(model: Mapping[str, Any], name: str) -> str:
    value = model["metrics"].get(name, {}).get("value")
    return "not measured" if value is None else number_text(value)
