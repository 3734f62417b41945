"""The report of a processing as one page that needs nothing else: no script, no address. Text from the data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

REPORT = "report.json"
REPORT_PAGE = "report.html"

_BAR_WIDTH, _BAR_GAP, _HEIGHT, _AXIS = 34, 4, 120, 34
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #6a7482; --line: #d8dde4; --bar: #3f7fbf; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #97a1af; --line: #39424e; --bar: #6aa5dc; --paper: #14181e; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
p.dim, figcaption { color: var(--dim); } figure { display: inline-block; margin: 0 2rem 1.5rem 0; }
svg text { fill: var(--dim); font: 10px system-ui, sans-serif; } svg rect { fill: var(--bar); }
code { overflow-wrap: anywhere; }
"""


def page(report: Mapping[str, Any]) -> str:
    """The page for a report as ``process`` makes it."""
    stats = report["stats"]
    parts = [
        f"<h1>{escape(_file_name(report['input_file']))}</h1>",
        f"<p>{report['total']:,} rows: {report['written']:,} written, {report['rejected']:,} rejected.</p>",
        _table("Files", report["counts"]),
        _table("What was changed", _in_words(report["changes"]), "Nothing had to be changed."),
        _deidentified(report["deidentified"]),
        _table("Shapes", stats["shapes"]),
        _table("Messages by role", stats["roles"]),
        _table("Messages in a row", stats["turns"]),
        _table("Worth a look", _notable(stats)),
        "<h2>Lengths in characters</h2>",
        *(_histogram(name, lengths) for name, lengths in stats["characters"].items()),
        _table("Rejected, by reason", _in_words(stats["faults"]), "Nothing was rejected."),
        _errors(report["errors"], report["rejected"]),
        _table("Options", {name: "" if value is None else str(value) for name, value in report["options"].items()}),
        f"<p class=dim>Input: <code>{escape(report['input_file'])}</code> ({stats['bytes']:,} bytes)</p>",
    ]
    title = escape(_file_name(report["input_file"]))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}: report</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(title: str, rows: Mapping[str, Any], nothing: str = "") -> str:
    if not rows:
        return f"<h2>{title}</h2><p class=dim>{nothing}</p>" if nothing else ""
    cells = "".join(f"<tr><th>{escape(str(name))}</th>{_cell(value)}</tr>" for name, value in rows.items())
    return f"<h2>{title}</h2><table>{cells}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"<td class=number>{value:,}</td>"
    return f"<td>{escape(str(value))}</td>"


def _in_words(counts: Mapping[str, int]) -> dict[str, int]:
    return {name.replace("_", " "): count for name, count in counts.items()}


def _notable(stats: Mapping[str, Any]) -> dict[str, int]:
    return {
        "rows that repeat an earlier one (kept)": stats["duplicates"],
        "turns that follow one of the same role": stats["consecutive_turns"],
        "rows with an empty content": stats["empty_contents"],
        "blank lines": stats["blank_lines"],
    }


def _deidentified(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "<h2>De-identification</h2><p class=dim>Not asked for.</p>"
    title = f"De-identified by policy {escape(found['policy_id'])}, version {escape(found['policy_version'])}"
    return _table(title, found["counts"], "Nothing was found.")


def _histogram(name: str, lengths: Mapping[str, Any]) -> str:
    bins: Sequence[Mapping[str, int]] = lengths["histogram"]
    if not bins:
        return ""
    highest = max(one["count"] for one in bins)
    step = _BAR_WIDTH + _BAR_GAP
    bars = "".join(_bar(place * step, one, highest) for place, one in enumerate(bins))
    facts = f"{lengths['count']:,} of mean {lengths['mean']:,}, from {lengths['min']:,} to {lengths['max']:,}"
    return (
        f'<figure><svg width="{len(bins) * step}" height="{_HEIGHT + _AXIS}" role="img" '
        f'aria-label="lengths of {escape(name)}">{bars}</svg>'
        f"<figcaption><b>{escape(name)}</b>: {facts}</figcaption></figure>"
    )


def _bar(x: int, one: Mapping[str, int], highest: int) -> str:
    height = max(round(one["count"] / highest * _HEIGHT), 1 if one["count"] else 0)
    label = _short(one["from"])
    tip = f"{one['from']:,} to {one['to']:,} characters: {one['count']:,}"
    middle = x + _BAR_WIDTH // 2
    return (
        f'<g><title>{tip}</title><rect x="{x}" y="{_HEIGHT - height + 12}" width="{_BAR_WIDTH}" height="{height}"/>'
        f'<text x="{middle}" y="{_HEIGHT - height + 9}" text-anchor="middle">{_short(one["count"])}</text>'
        f'<text x="{middle}" y="{_HEIGHT + 26}" text-anchor="middle">{label}+</text></g>'
    )


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def _errors(errors: Iterable[Mapping[str, Any]], total: int) -> str:
    if not total:
        return ""
    rows = [
        f"<tr><td class=number>{error['line']}</td><td>{escape(error['field'] or '')}</td>"
        f"<td>{escape(error['message'])}</td></tr>"
        for error in errors
    ]
    more = f"<p class=dim>The first {len(rows)} of {total:,}; rejected.jsonl has all.</p>" if total > len(rows) else ""
    head = "<tr><th>line</th><th>field</th><th>what is wrong</th></tr>"
    return f"<h2>Faults</h2><table>{head}{''.join(rows)}</table>{more}"


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
