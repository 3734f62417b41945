"""``tunesmith datasets preview``: rows as a model will read them, with what is trained set apart. Renders nothing itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from tunesmith.cli.finding import find_dataset
from tunesmith.cli.options import asks_service, hyperparams_from, json_option, set_option
from tunesmith.cli.render import number_text, print_facts, print_json

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PATIENCE_SECONDS = 3600.0
_BAR_WIDTH = 40
_CONTROLS: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), 127, *range(128, 160))}
"""Data must not move the cursor or change the colours of a terminal."""


@click.command()
@click.argument("dataset")
@click.option("--model", required=True, help="Any model reference. Its weights are not loaded.")
@click.option("--recipe", help="What would be run, such as lora (default: what the train config names).")
@click.option("--limit", type=click.IntRange(1, 50), default=3, show_default=True, help="Show this many rows.")
@click.option("--max-rows", type=click.IntRange(min=1), help="Look at no more than this many rows of each file.")
@click.option("--split", default="train", show_default=True, help="Which file of the dataset.")
@click.option("--train-config", help="Path of a train config, as the service sees it.")
@set_option
@json_option
@asks_service
def preview(
    *,
    service: Service,
    dataset: str,
    settings: tuple[str, ...],
    as_json: bool,
    **asked: Any,
) -> None:
    """Show what of a DATASET will be trained: its first rows as the model reads them, and numbers about all.

    What is trained is green on a terminal, and stands between ⟦ and ⟧ elsewhere.
    """
    found = find_dataset(service, dataset)
    body = {name: value for name, value in asked.items() if value is not None}
    body["hyperparams"] = hyperparams_from(settings)
    path = f"/api/v1/datasets/{quote(found['id'], safe='')}/preview"
    answer = service.post(path, body, patience_seconds=_PATIENCE_SECONDS)
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def _print(answer: dict[str, Any]) -> None:
    for row in answer["rows"]:
        _print_row(row)
    _print_totals(answer)
    for warning in answer["warnings"]:
        click.secho(f"warning: {warning}", fg="yellow", err=True)


def _print_row(row: dict[str, Any]) -> None:
    facts = f"{row['length']} tokens, {row['trained_tokens']} trained ({row['share_trained']:.1%})"
    if row["dropped"]:
        facts = f"{row['length']} tokens, DROPPED"
    elif row["cut"]:
        facts += f", CUT to {row['length_kept']}"
    click.echo(f"{click.style(row['where'], bold=True)}  {click.style(facts, dim=True)}")
    coloured = sys.stdout.isatty()
    for segment in row["segments"]:
        click.echo(_segment_text(segment, coloured=coloured), nl=False)
    if row["not_shown"]:
        label = "cut off" if row["cut"] else "not shown"
        click.echo("\n" + click.style(f"[{label}: {row['not_shown'].translate(_CONTROLS)}]", dim=True), nl=False)
    click.echo("\n")


def _segment_text(segment: dict[str, Any], *, coloured: bool) -> str:
    text: str = segment["text"].translate(_CONTROLS)
    if not segment["trained"]:
        return text
    return click.style(text, fg="green", bold=True) if coloured else f"⟦{text}⟧"


def _print_totals(answer: dict[str, Any]) -> None:
    train, lengths = answer["train"], answer["train"]["lengths"]
    percentiles = ", ".join(f"{name} {value}" for name, value in lengths["percentiles"].items())
    print_facts(
        {
            "rows": f"{train['rows']} of {train['rows_read']} read"
            + ("" if answer["complete"] else ", there are more"),
            "tokens": f"{train['tokens']}, {train['share_trained']:.1%} of them trained",
            "lengths": f"mean {number_text(lengths['mean'])}, {percentiles}, longest {lengths['max']}",
            "too long": f"{train['cut']} cut, {train['dropped']} dropped (data.max_length "
            f"{answer['settings']['max_length']}, data.overlong {answer['settings']['overlong']})",
            "split": f"{train['split_conversations']} conversations" if train["split_conversations"] else None,
            "validation": _brief(answer["validation"]),
            "test": _brief(answer["test"]),
            "template": f"{answer['template']['source']}, sha256 {answer['template']['sha256']}",
            "batches": answer["first_batches_sha256"] and f"the first ones: sha256 {answer['first_batches_sha256']}",
        }
    )
    most = max((one["count"] for one in lengths["histogram"]), default=0)
    for one in lengths["histogram"]:
        bar = "█" * max(round(_BAR_WIDTH * one["count"] / most), one["count"] > 0)
        click.echo(f"{one['from']:>8} to {one['to']:<8} {one['count']:>8}  {bar}")


def _brief(totals: dict[str, Any] | None) -> str | None:
    if totals is None:
        return None
    return f"{totals['rows']} rows, {totals['tokens']} tokens, {totals['share_trained']:.1%} of them trained"
