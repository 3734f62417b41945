"""What the demo prints at its end: before and after, one worked example, where everything is, what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tunesmith.cli.render import duration_text, print_facts, print_table
from tunesmith.demo.story import Outcome, Scored

_DEFAULT_STATE_DIR = Path("state")


def print_report(outcome: Outcome, *, state_dir: Path, seconds: float, url: str | None) -> None:
    """``url`` is where the service goes on; None when it ends with the demo."""
    click.echo(f"\nOrders turned into JSON exactly, of {outcome.held_out} that the model has never seen:\n")
    print_table(
        ("", "exact", "share"),
        [_row("before", outcome.before, outcome.held_out), _row("after", outcome.after, outcome.held_out)],
    )
    click.echo("\nFor example:\n")
    print_facts(_example(outcome))
    click.echo("\nThe tuned model, asked through the service (POST /api/inference/chat):\n")
    print_facts({"order": outcome.chat.order, "answer": outcome.chat.answer})
    click.echo(f"\nAll of it took {duration_text(seconds)}, the training {outcome.training_took}.\n")
    print_facts(
        {
            "result": outcome.result,
            "training": f"{outcome.training_dir}/  config.yaml, run.log, metrics.jsonl, checkpoints/, output/",
            "answers": [outcome.before.predictions, outcome.after.predictions],
            "orders": [outcome.data.train, outcome.data.held_out],
        }
    )
    click.echo("\nNext:\n")
    print_facts(_next_commands(outcome, state_dir, url))


def _row(name: str, scored: Scored, total: int) -> tuple[str, str, str]:
    return name, f"{round(scored.exact_match * total)} of {total}", f"{scored.exact_match:.0%}"


def _example(outcome: Outcome) -> Mapping[str, Any]:
    example = outcome.example
    return {
        "order": example.order,
        "wanted": example.wanted,
        "before": outcome.before.answer,
        "after": outcome.after.answer,
    }


def _next_commands(outcome: Outcome, state_dir: Path, url: str | None) -> Mapping[str, str]:
    flag = "" if state_dir == _DEFAULT_STATE_DIR else f" --state-dir {shlex.quote(str(state_dir))}"
    start = {} if url else {f"tunesmith serve{flag}": "start the service on what is there now"}
    return {
        **start,
        "tunesmith runs list": "the three runs",
        f"tunesmith runs show {outcome.training_id}": "the training",
        f"tunesmith logs {outcome.training_id}": "what it printed",
        f"tunesmith chat {outcome.training_id}": "talk to the tuned model",
        "tunesmith recipes show lora": "every option and its default",
        f"{url or 'http://127.0.0.1:8000'}/docs": "the whole API, to try in a browser",
    }
