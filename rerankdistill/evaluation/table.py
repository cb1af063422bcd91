"""What a report says, laid out once for the terminal, markdown and HTML: rows of cells, marks, comparisons, legend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rerankdistill.evaluation.fidelity import share_of_gain
from rerankdistill.types import Report, Row

if TYPE_CHECKING:
    from rich.table import Table

KINDS = {
    "first_stage": "first stage",
    "student_before": "student before",
    "control": "control",
    "student": "student distilled",
    "variant": "student, used otherwise",
    "fusion": "fusion",
    "teacher": "teacher (reference)",
    "test_time": "teacher at test time",
    "run": "run",
}
"""How a kind of row is called for a reader."""

NOT_SERVED = ("teacher", "test_time")
"""Kinds of rows that cost what a teacher costs: none of them is the best that can be served without one."""

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    best: bool = False
    mark: str = ""
    number: bool = True


def main_measure(report: Report) -> str | None:
    """The first measure of the first row: what the chart and the shares of gain are about."""
    return next(iter(report.rows[0].measures), None) if report.rows else None


def headers(report: Report) -> list[str]:
    named = ["", "kind", "first stage", "queries", *_measures(report)]
    return [*named, *(["gain kept"] if _has_shares(report) else []), "ms/query", *_extras(report)]


def cells(report: Report) -> list[list[Cell]]:
    """One list of cells for each row of the report, in the order of :func:`headers`."""
    best, marked, kept = _best(report), marks(report), shares(report)
    lines = []
    for row in report.rows:
        line = [Cell(row.name, number=False), Cell(KINDS.get(row.kind, row.kind), number=False)]
        line += [Cell(row.first_stage or "–", number=False), Cell(f"{report.queries:,}")]
        for measure in _measures(report):
            best_here = row.kind not in NOT_SERVED and measure in best and row.measures.get(measure) == best[measure]
            line.append(Cell(_value(row, measure), best_here, marked.get((row.name, measure), "")))
        if _has_shares(report):
            share = kept.get(row.name)
            line.append(Cell("–" if share is None else f"{share:.0%}"))
        line.append(Cell("–" if row.latency_ms is None else _short(row.latency_ms)))
        line += [Cell(_extra(row.extra.get(key))) for key in _extras(report)]
        lines.append(line)
    return lines


def shares(report: Report) -> dict[str, float | None]:
    """``{row: share of the teacher's gain kept}`` on the main measure, for students and controls.

    Counted from the row's ``extra["before"]`` (a row's name) to its ``extra["teacher"]``; else from the only
    ``student_before`` to the only ``teacher``. Rows without such a pair are left out.
    """
    measure, named = main_measure(report), {row.name: row for row in report.rows}
    if measure is None:
        return {}
    out: dict[str, float | None] = {}
    for row in report.rows:
        if row.kind not in ("student", "control"):
            continue
        before = named.get(row.extra.get("before", "")) or _only(report, "student_before")
        teacher = named.get(row.extra.get("teacher", "")) or _only(report, "teacher")
        if before is not None and teacher is not None:
            values = (r.measures.get(measure) for r in (before, row, teacher))
            a, b, c = (float("nan") if value is None else value for value in values)
            out[row.name] = share_of_gain(a, b, c)
    return out


def marks(report: Report) -> dict[tuple[str, str], str]:
    """``{(row, measure): † or ‡}``: significantly above or below the row's baseline (see :func:`baselines`)."""
    out, against = {}, baselines(report)
    for found in report.comparisons:
        p = found.get("p_corrected")
        if against.get(found["system"]) == found["baseline"] and p is not None and p < LEVEL:
            out[found["system"], found["measure"]] = "†" if found["difference"] > 0 else "‡"
    return out


def baselines(report: Report) -> dict[str, str]:
    """``{row: its baseline}``: a control it was compared with, else the first row it was compared with."""
    controls = {row.name for row in report.rows if row.kind == "control"}
    out: dict[str, str] = {}
    for found in report.comparisons:
        held = out.setdefault(found["system"], found["baseline"])
        if found["baseline"] in controls and held not in controls:
            out[found["system"]] = found["baseline"]
    return out


def legend(report: Report) -> list[str]:
    """What bold, the marks and the columns mean, one sentence each."""
    lines = ["Bold: the best of the rows that can be served (without a teacher, which is the reference)."]
    pairs = "; ".join(f"{system} against {baseline}" for system, baseline in baselines(report).items())
    if pairs:
        lines.append(
            f"† above, ‡ below its baseline with p < {LEVEL} (paired t-test over the queries, Holm-corrected): {pairs}."
        )
    if _has_shares(report):
        lines.append(f"Gain kept: (row - student before) / (teacher - student before), in {main_measure(report)}.")
    if any(row.extra.get("seed_std") for row in report.rows):
        lines.append("±: standard deviation over the seeds, whose mean is shown.")
    return lines


COMPARED = [
    "system",
    "baseline",
    "measure",
    "difference",
    "95 % interval",
    "p",
    "p (Holm)",
    "p randomised (Holm)",
    "w/t/l",
]


def compared(report: Report) -> list[list[str]]:
    """The comparisons as text, in the order of ``COMPARED``."""
    lines = []
    for found in report.comparisons:
        low, high = found.get("low"), found.get("high")
        interval = "–" if low is None or high is None else f"[{low:+.3f}, {high:+.3f}]"
        chances = [_p(found.get(key)) for key in ("p", "p_corrected", "p_randomisation_corrected")]
        counts = "/".join(str(found.get(key, "–")) for key in ("wins", "ties", "losses"))
        names = [str(found[key]) for key in ("system", "baseline", "measure")]
        lines.append([*names, f"{found['difference']:+.3f}", interval, *chances, counts])
    return lines


def title(report: Report) -> str:
    return f"{report.collection} · {report.split}" if report.split else report.collection


LEFT_OUT = ("kind", "queries", "map", "parameters", "index_bytes")
"""Columns that a terminal is too narrow for where there are many; the files have them."""

MANY = 9


def to_table(report: Report) -> Table:
    """The report as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"{title(report)} · {report.queries:,} queries"),
        caption=Text("\n".join(legend(report))),
        caption_justify="left",
    )
    lines, names = cells(report), headers(report)
    shown = [at for at, name in enumerate(names) if len(names) <= MANY or name not in LEFT_OUT]
    for at in shown:
        header = names[at]
        right = bool(lines) and lines[0][at].number
        table.add_column(Text(header), justify="right" if right else "left", no_wrap=True)
    for line in lines:
        table.add_row(*(Text(line[at].text + line[at].mark, style="bold" if line[at].best else "") for at in shown))
    return table


def _measures(report: Report) -> list[str]:
    return list(dict.fromkeys(measure for row in report.rows for measure in row.measures))


EXTRAS = ("docs_per_s", "parameters", "vector_bytes", "index_bytes", "churn@10")
"""Figures in a row's ``extra`` that get a column of their own when any row has them."""


def _extras(report: Report) -> list[str]:
    return [key for key in EXTRAS if any(row.extra.get(key) is not None for row in report.rows)]


def _has_shares(report: Report) -> bool:
    return any(share is not None for share in shares(report).values())


def _best(report: Report) -> dict[str, float]:
    served = [row for row in report.rows if row.kind not in NOT_SERVED]
    if len(served) < 2:
        return {}
    return {m: max(row.measures[m] for row in served if m in row.measures) for row in served for m in row.measures}


def _only(report: Report, kind: str) -> Row | None:
    found = [row for row in report.rows if row.kind == kind]
    return found[0] if len(found) == 1 else None


def _value(row: Row, measure: str) -> str:
    if measure not in row.measures:
        return "–"
    spread: Mapping[str, float] = row.extra.get("seed_std") or {}
    return f"{row.measures[measure]:.3f}" + (f" ± {spread[measure]:.3f}" if measure in spread else "")


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _short(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _extra(value: Any) -> str:
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{unit}"
    return _short(value)
