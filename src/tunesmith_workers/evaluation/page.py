"""The report of an evaluation as one page that needs nothing else: no script, no address. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tunesmith_workers.evaluation.samples import Chosen, ModelAnswer, Sample
from tunesmith_workers.evaluation.text_differences import Piece, pieces

_MOST_SHOWN = 1500
"""Characters of a text."""
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5c6672; --line: #d8dde4; --paper: #fff; --box: #f5f7f9;
  --good: #0a6b3d; --good-back: #d8f0e2; --bad: #a3261b; --bad-back: #fbe0dd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #9aa5b3; --line: #39424e; --paper: #14181e; --box: #1c222a;
    --good: #7fd6a6; --good-back: #163a29; --bad: #f4a49c; --bad-back: #45201d; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1.5rem auto;
  max-width: 72rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); } td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.dim { color: var(--dim); } .better { color: var(--good); } .worse { color: var(--bad); }
article { border: 1px solid var(--line); border-radius: 6px; padding: .75rem; margin: 1rem 0; }
.side { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.text { white-space: pre-wrap; background: var(--box); border-radius: 4px; padding: .5rem; margin: .25rem 0 0;
  font: 13px/1.45 ui-monospace, monospace; max-height: 24rem; overflow-y: auto; }
ins { color: var(--bad); background: var(--bad-back); text-decoration: none; border-bottom: 2px solid var(--bad); }
del { color: var(--good); background: var(--good-back); }
summary { cursor: pointer; }
"""


_LEGEND = (
    "<p class=dim>In the answers below, <ins>what was not expected</ins> is underlined and <del>what is missing</del> "
    "struck out.</p>"
)


def page(report: Mapping[str, Any], chosen: Sequence[Chosen]) -> str:
    """The page for a report as ``report`` makes it."""
    models: Sequence[Mapping[str, Any]] = report["models"]
    title = "Evaluation of " + ", ".join(one["label"] for one in models)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{report['rows']:,} rows of <code>{escape(report['data'])}</code></p>",
        _metrics(models),
        _comparisons(report["comparisons"]),
        _explained(report),
        _LEGEND if chosen else "",
        *(_group(one) for one in chosen),
        _facts(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _metrics(models: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for model in models for name in model["metrics"])
    head = "".join(f"<th>{escape(model['label'])}</th>" for model in models)
    rows = [f"<tr><th>{escape(name)}</th>{''.join(_value(model, name) for model in models)}</tr>" for name in names]
    return f"<h2>Metrics</h2><div class=wide><table><tr><th></th>{head}</tr>{''.join(rows)}</table></div>"


def _value(model: Mapping[str, Any], name: str) -> str:
    metric = model["metrics"].get(name)
    if metric is None or metric["value"] is None:
        return "<td class=dim>not measured</td>"
    between = ""
    if metric["low"] is not None:
        between = f"<br><span class=dim>{_number(metric['low'])} to {_number(metric['high'])}</span>"
    return f"<td class=number>{_number(metric['value'])}{between}</td>"


def _comparisons(compared: Sequence[Mapping[str, Any]]) -> str:
    if not compared:
        return ""
    rows = [
        f"<tr><td>{escape(one['model'])}</td><td>{escape(one['metric'])}</td>"
        f'<td class="{escape(one["verdict"].partition(" ")[0])}">{escape(one["verdict"])}</td></tr>'
        for one in compared
    ]
    head = f"<tr><th>model</th><th>metric</th><th>beside {escape(compared[0]['baseline'])}</th></tr>"
    return f"<h2>Comparison</h2><div class=wide><table>{head}{''.join(rows)}</table></div>"


def _explained(report: Mapping[str, Any]) -> str:
    made = report["intervals"]
    few = " With so few rows they are rough." if report["rows"] < 30 else ""
    return (
        f"<p class=dim>Intervals hold {made['level']:.0%} of {made['resamples']:,} draws of the rows (paired bootstrap); "
        f"a difference is clear when its interval leaves out zero.{few}</p>"
    )


def _group(chosen: Chosen) -> str:
    return f"<section><h2>{escape(chosen.title)}</h2>{''.join(map(_sample, chosen.samples))}</section>"


def _sample(sample: Sample) -> str:
    columns = "".join(_said(sample.expected, one) for one in sample.said)
    where = sample.where.rpartition("/")[2]
    return (
        f"<article><p class=dim>{escape(where)}</p>"
        f"<details><summary>Question</summary><div class=text>{escape(_cut(sample.question))}</div></details>"
        f"<div class=side><div><b>expected</b><div class=text>{escape(_cut(sample.expected))}</div></div>{columns}</div>"
        "</article>"
    )


def _said(expected: str, said: ModelAnswer) -> str:
    scores = ", ".join(f"{name} {_number(value)}" for name, value in said.scores.items())
    answer = ""
    if said.answer is not None:
        answer = f"<div class=text>{_marked(pieces(_cut(expected), _cut(said.answer)))}</div>"
    return f"<div><b>{escape(said.label)}</b> <span class=dim>{escape(scores)}</span>{answer}</div>"


def _marked(found: Iterable[Piece]) -> str:
    """What is not expected underlined, what is missing struck out."""
    tags = {"same": ("", ""), "added": ("<ins>", "</ins>"), "missing": ("<del>", "</del>")}
    return "".join(f"{tags[one.kind][0]}{escape(one.text)}{tags[one.kind][1]}" for one in found)


def _facts(report: Mapping[str, Any]) -> str:
    facts = {
        **{model["label"]: model["model"] for model in report["models"]},
        "data, sha256": report["data_sha256"],
        **{f"{name}, version": version for name, version in report["versions"].items()},
        "made at": report["at"],
    }
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<h2>Facts</h2><div class=wide><table>{rows}</table></div>"


def _cut(text: str) -> str:
    more = len(text) - _MOST_SHOWN
    return text if more <= 0 else f"{text[:_MOST_SHOWN]} ... ({more:,} more characters)"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.4g}"
