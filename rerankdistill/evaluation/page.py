"""A report as one HTML page: no network, no script, readable in the dark, with a chart drawn inline."""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

import numpy as np

from rerankdistill.evaluation import table
from rerankdistill.evaluation.compare import interval
from rerankdistill.types import Report

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1d1f23; --soft: #626872; --line: #dcdad3; --card: #fff;
  --student: #0b6e4f; --control: #a35200; --other: #4a5a74; --teacher: #7a3e9d; --tint: #eaf4ef; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e8e6e1; --soft: #9da3ad; --line: #33373d;
  --card: #1c1f23; --student: #56c596; --control: #f0a35e; --other: #9fb3d1; --teacher: #c99be6; --tint: #1b2a24; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
p.lead, figcaption, .legend, footer { color: var(--soft); font-size: .9rem; }
p.lead { margin: 0 0 2rem; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .5rem .8rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .82rem; }
tbody th { font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.number { text-align: right; }
tr.student > * { background: var(--tint); }
tr.teacher > * { color: var(--soft); }
strong { font-weight: 700; }
sup { line-height: 0; }
figure { margin: 0; }
.scroll svg { display: block; min-width: 34rem; width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg text.soft { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg g { --hue: var(--other); } svg g.student { --hue: var(--student); } svg g.control { --hue: var(--control); }
svg g.teacher { --hue: var(--teacher); }
svg g line.bar { stroke: var(--hue); stroke-width: 2; stroke-linecap: round; } svg g circle { fill: var(--hue); }
svg g.teacher circle { fill: var(--card); stroke: var(--hue); stroke-width: 2; }
ul { padding-left: 1.2rem; }
"""

WIDTH, LEFT, RIGHT, STEP, TOP = 800, 250, 60, 30, 14


class Dot(NamedTuple):
    name: str
    kind: str
    mean: float
    low: float
    high: float


def to_html(report: Report) -> str:
    """The report as one self-contained page; every name in it is escaped."""
    heading = escape(table.title(report))
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{heading}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
        f'<h1>{heading}</h1>\n<p class="lead">{report.queries:,} judged queries, all of them counted.</p>',
        _figure(report),
        "<h2>Every engine, side by side</h2>",
        _rows(report),
        '<ul class="legend">' + "".join(f"<li>{escape(line)}</li>" for line in table.legend(report)) + "</ul>",
        _comparisons(report),
    ]
    if report.notes:
        parts += ["<h2>Notes</h2>", "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul>"]
    parts.append("<footer>Written by rerankdistill. The values of every query are in per_query.tsv.</footer>")
    return "\n".join([*(part for part in parts if part), "</main>\n</body>\n</html>\n"])


def _rows(report: Report) -> str:
    lines = table.cells(report)
    numbers = [cell.number for cell in lines[0]] if lines else []
    heads = "".join(
        _cell("th", escape(h or "system"), n, "col") for h, n in zip(table.headers(report), numbers, strict=False)
    )
    body = []
    for row, line in zip(report.rows, lines, strict=True):
        first, *rest = line
        inner = _cell("th", escape(first.text), False, "row")
        for cell in rest:
            text = f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text)
            inner += _cell("td", text + (f"<sup>{cell.mark}</sup>" if cell.mark else ""), cell.number)
        body.append(f'<tr class="{escape(row.kind)}">{inner}</tr>')
    return _table(heads, body, "Effectiveness and cost of each engine")


def _comparisons(report: Report) -> str:
    if not report.comparisons:
        return ""
    numbers = [False] * 3 + [True] * 6
    heads = "".join(_cell("th", escape(h), n, "col") for h, n in zip(table.COMPARED, numbers, strict=True))
    body = []
    for line in table.compared(report):
        inner = _cell("th", escape(line[0]), False, "row")
        inner += "".join(_cell("td", escape(text), n) for text, n in zip(line[1:], numbers[1:], strict=True))
        body.append(f"<tr>{inner}</tr>")
    return "<h2>Is it luck?</h2>\n" + _table(heads, body, "Paired tests over the queries")


def _cell(tag: str, inner: str, number: bool, scope: str = "") -> str:
    attributes = (f' scope="{scope}"' if scope else "") + (' class="number"' if number else "")
    return f"<{tag}{attributes}>{inner}</{tag}>"


def _table(heads: str, body: list[str], label: str) -> str:
    head = f"<thead><tr>{heads}</tr></thead>"
    rows = "\n".join(body)
    return (
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">'
        f'<table><caption class="unseen">{label}</caption>{head}\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def _figure(report: Report) -> str:
    """One dot a row on the main measure, with the 95 % interval of its mean over the queries."""
    measure = table.main_measure(report)
    dots = [] if measure is None else _dots(report, measure)
    if measure is None or not dots:
        return ""
    low, high, step = _axis(min(dot.low for dot in dots), max(dot.high for dot in dots))
    height = TOP + STEP * len(dots) + 30

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    grid = []
    for number in range(round((high - low) / step) + 1):
        at = low + number * step
        grid.append(f'<line class="grid" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{height - 26}"/>')
        grid.append(f'<text class="soft" text-anchor="middle" x="{x(at):.1f}" y="{height - 10}">{at:.2f}</text>')
    marks = []
    for number, dot in enumerate(dots):
        y = TOP + STEP * number + STEP / 2
        name = dot.name if len(dot.name) <= 34 else dot.name[:33] + "…"
        marks.append(
            f'<g class="{escape(dot.kind)}"><title>{escape(dot.name)}: {dot.mean:.3f} '
            f"[{dot.low:.3f}, {dot.high:.3f}]</title>"
            f'<text x="{LEFT - 14}" y="{y + 4.5:.1f}" text-anchor="end">{escape(name)}</text>'
            f'<line class="bar" x1="{x(dot.low):.1f}" x2="{x(dot.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle cx="{x(dot.mean):.1f}" cy="{y:.1f}" r="5"/>'
            f'<text x="{WIDTH - 12}" y="{y + 4.5:.1f}" text-anchor="end">{dot.mean:.3f}</text></g>'
        )
    label = escape(f"{measure} of each engine: " + ", ".join(f"{dot.name} {dot.mean:.3f}" for dot in dots))
    caption = (
        f"{escape(measure)}: mean over the queries and its 95 % confidence interval. The axis does not start at 0."
    )
    return (
        f'<figure><div class="scroll"><svg role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}">'
        f"{''.join(grid)}{''.join(marks)}</svg></div><figcaption>{caption}</figcaption></figure>"
    )


def _dots(report: Report, measure: str) -> list[Dot]:
    dots = []
    for row in report.rows:
        if measure not in row.measures:
            continue
        mean = row.measures[measure]
        low, high = interval(np.array(list(row.per_query.get(measure, {}).values()), np.float64))
        dots.append(Dot(row.name, row.kind, mean, mean if low is None else low, mean if high is None else high))
    return dots


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and a round step with about six lines between them."""
    width = max(high - low, 0.05)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, math.inf) if width / step <= 7)
    step = step if math.isfinite(step) else width / 6
    start = math.floor(low / step + 1e-9) * step
    return start, max(math.ceil(high / step - 1e-9) * step, start + step), step
