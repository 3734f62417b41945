"""``tunesmith import-openai``: the fine-tuning jobs of an OpenAI account, as datasets and jobs of this service."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.errors import NotFound
from tunesmith.from_openai.options import openai_key_option, openai_url_option, refuse_itself

if TYPE_CHECKING:
    from tunesmith.cli.client import Service
    from tunesmith.from_openai.account import Account
    from tunesmith.from_openai.importing import Choice, Importer, Outcome
    from tunesmith.from_openai.old_jobs import OldJob

_INTERRUPTED = 130
_STATUSES = ("succeeded", "failed", "cancelled", "running", "paused", "queued", "validating_files")


@click.command()
@click.option("--job", "jobs", multiple=True, metavar="ID", help="Only this job, of any status; may be repeated.")
@click.option(
    "--status", type=click.Choice(_STATUSES), default="succeeded", show_default=True, help="Only jobs of this status."
)
@click.option("--all", "every", is_flag=True, help="Jobs of every status.")
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Only jobs made since then (UTC)."
)
@click.option(
    "--model", "models", multiple=True, metavar="OLD=LOCAL", help="The model here for one of OpenAI's; else its alias."
)
@click.option("--auto", is_flag=True, help="Let this service choose epochs, batch size and learning rate.")
@click.option("--start", is_flag=True, help="Start the jobs here, too.")
@openai_url_option
@openai_key_option
@json_option
@asks_service
def import_openai(
    *,
    service: Service,
    jobs: tuple[str, ...],
    status: str,
    every: bool,
    since: datetime | None,
    models: tuple[str, ...],
    auto: bool,
    start: bool,
    openai_url: str,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Bring the fine-tuning jobs of an OpenAI account here: their files as datasets, ready to be trained on.

    What is here already stays as it is. Exits with 1 unless everything that was chosen is here.
    """
    from tunesmith.from_openai.importing import Choice
    from tunesmith.from_openai.showing import show

    refuse_itself(service, openai_url)
    choice = Choice(models=_models(models), auto=auto, start=start)
    outcomes: list[Outcome] = []
    try:
        with ExitStack() as stack:
            account = _opener(stack, openai_url, key_file)
            outcomes.extend(_taken(service, account, choice, jobs, None if every else status, since))
    except BaseException as error:
        if outcomes:
            show(outcomes, as_json=as_json)
        if not isinstance(error, KeyboardInterrupt):
            raise
        click.echo("\nstopped; what is here stays, and the same command goes on with the rest", err=True)
        sys.exit(_INTERRUPTED)
    show(outcomes, as_json=as_json)
    sys.exit(1 if any(one.missing for one in outcomes) else 0)


def _taken(
    service: Service,
    account: Callable[[], Account],
    choice: Choice,
    jobs: tuple[str, ...],
    status: str | None,
    since: datetime | None,
) -> Iterator[Outcome]:
    """What becomes of each job, one after the other."""
    from tunesmith.from_openai.here import Here
    from tunesmith.from_openai.importing import Importer
    from tunesmith.from_openai.showing import bar

    importer = Importer(Here(service), account, choice, bar)
    if jobs:
        yield from _named(importer, account, jobs)
    else:
        yield from map(importer.take, _listed(account(), status, since))


def _opener(stack: ExitStack, openai_url: str, key_file: Path | None) -> Callable[[], Account]:
    """The account, opened when it is first asked for: what is here already needs none."""
    opened: list[Account] = []

    def account() -> Account:
        from tunesmith.from_openai.account import Account
        from tunesmith.from_openai.sdk import openai_key

        if not opened:
            opened.append(stack.enter_context(Account(openai_url, openai_key(key_file))))
        return opened[0]

    return account


def _listed(account: Account, status: str | None, since: datetime | None) -> list[OldJob]:
    """The oldest first, so that they are made here in their order."""
    earliest = since.replace(tzinfo=UTC).timestamp() if since is not None else 0
    found = [one for one in account.jobs() if status in (None, one.status) and one.created_at >= earliest]
    return found[::-1]


def _named(importer: Importer, account: Callable[[], Account], jobs: tuple[str, ...]) -> Iterator[Outcome]:
    from tunesmith.from_openai.importing import Outcome

    for job_id in dict.fromkeys(jobs):
        try:
            job = importer.known(job_id) or account().job(job_id)
        except NotFound as error:
            yield Outcome(job=job_id, missing=[f"there is no such job: {error} (leave --job out to list them)"])
        else:
            yield importer.take(job)


def _models(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in given:
        old, equals, local = pair.partition("=")
        if not old or not equals or not local:
            raise click.UsageError(f"--model {pair!r} is not OLD=LOCAL")
        found[old] = local
    return found
