"""``tunesmith chat``: a conversation with any model on a terminal, or one answer with ``-m``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import print_json
from tunesmith.errors import InvalidInput, TunesmithError, Unavailable
from tunesmith.terminal import printable

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_ADDRESS = "/api/inference/chat"
_SILENT_SECONDS = 900.0
"""A model may have to be loaded first."""
_HELP = "an empty line or /quit ends; /reset begins anew; Ctrl-C stops an answer"


@click.command()
@click.argument("model")
@click.option("-m", "--message", help="Ask this, print the answer and exit. `-` reads it from standard input.")
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens after which an answer is cut.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0: always the most likely token.")
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), help="Only from the most likely tokens up to this sum."
)
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@json_option
@asks_service
def chat(
    *, service: Service, model: str, message: str | None, system: str | None, as_json: bool, **options: Any
) -> None:
    """Chat with MODEL: a run's id (`@latest` is the newest run), a checkpoint, a mark, a deployment, a path, a hub id.

    A model that nobody deployed is loaded first, and kept warm for the next question.
    """
    generation = {
        "model": _reference(service, model),
        **{name: value for name, value in options.items() if value is not None},
    }
    begin = [{"role": "system", "content": system}] if system else []
    if message is None and not sys.stdin.isatty():
        message = "-"
    if message is None:
        _talk(service, begin, generation)
        return
    text = sys.stdin.read() if message == "-" else message
    if not text.strip():
        raise InvalidInput("there is no question", where="--message", mend="give one, or pipe it in")
    messages = [*begin, {"role": "user", "content": text}]
    if as_json:
        print_json(service.post(_ADDRESS, {"messages": messages, **generation}, patience_seconds=_SILENT_SECONDS))
    else:
        _say(service, messages, generation)


def _reference(service: Service, model: str) -> str:
    if not model.startswith("@"):
        return model
    from tunesmith.cli.finding import find_run

    run_id: str = find_run(service, model)["run_id"]
    return run_id


def _talk(service: Service, begin: list[dict[str, Any]], generation: Mapping[str, Any]) -> None:
    click.echo(_HELP, err=True)
    messages = list(begin)
    while (question := _asked()) is not None:
        if question == "/reset":
            messages = list(begin)
            continue
        messages.append({"role": "user", "content": question})
        try:
            answer = _say(service, messages, generation)
        except TunesmithError as error:
            click.echo(printable(f"error: {error}", lines=True), err=True)
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})


def _asked() -> str | None:
    """The next question; None when there is none any more."""
    try:
        question = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        click.echo(err=True)
        return None
    return None if question in ("", "/quit", "/exit") else question


def _say(service: Service, messages: list[dict[str, Any]], generation: Mapping[str, Any]) -> str:
    """Print an answer as it comes. Ctrl-C ends it, and what has come of it stands."""
    said = ""
    try:
        for delta in _deltas(service, {"messages": messages, **generation}):
            said += delta
            click.echo(printable(delta, lines=True), nl=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        click.echo(" [stopped]", nl=False, err=True)
    click.echo()
    return said


def _deltas(service: Service, content: Mapping[str, Any]) -> Iterator[str]:
    from tunesmith.cli.events import read_data

    with service.stream(f"{_ADDRESS}/stream", {}, content, silent_seconds=_SILENT_SECONDS) as response:
        for name, data in read_data(response.iter_bytes()):
            if name == "error":
                raise Unavailable(str(data.get("detail")), where=data.get("where"), mend=data.get("mend"))
            yield data.get("delta", "")
