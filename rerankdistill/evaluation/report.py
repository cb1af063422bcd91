"""A report for the machine (json), the reader (markdown, one self-contained HTML page) and the statistician (tsv)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerankdistill.artifacts import write_text
from rerankdistill.errors import UsageError
from rerankdistill.evaluation import table
from rerankdistill.evaluation.compare import compare
from rerankdistill.evaluation.measure import DEFAULT_MEASURES, Judgements, measure, read_judgements
from rerankdistill.evaluation.page import to_html
from rerankdistill.evaluation.table import to_table
from rerankdistill.types import Report, Row, Run

__all__ = ["report_runs", "to_html", "to_json", "to_markdown", "to_per_query", "to_table", "write_report"]


def report_runs(
    named_runs: Mapping[str, Run],
    judgements: Judgements,
    collection: str,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    split: str = "",
) -> Report:
    """Measure any runs against the same judgements; every other run is compared with the first, the baseline.

    Raises UsageError without runs, and what :func:`~rerankdistill.evaluation.measure.measure` raises.
    """
    if not named_runs:
        raise UsageError("there is no run to report on", fix="name at least one run file")
    grades, rows, notes = read_judgements(judgements), [], []
    for name, run in named_runs.items():
        found = measure(run, grades, measures)
        rows.append(Row(name, "run", "as given", found.means, found.per_query, extra={"missing": len(found.missing)}))
        if found.missing:
            notes.append(
                f"{name} has nothing for {len(found.missing)} of the {len(grades)} judged queries: they count as 0."
            )
    baseline = next(iter(named_runs))
    pairs = [(name, baseline) for name in named_runs if name != baseline]
    comparisons = tuple(c.as_dict() for c in compare(rows, pairs, measures))
    return Report(collection, split, len(grades), tuple(rows), comparisons, tuple(notes))


def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Write ``report.json``, ``report.md``, ``report.html`` and ``per_query.tsv`` into a folder, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(to_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "per_query.tsv": to_per_query(report),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: folder / name for name in texts}


def to_json(report: Report) -> dict[str, Any]:
    """What ``eval --json`` prints. A row's ``extra`` stands beside its own fields and never replaces one."""
    kept = table.shares(report)
    rows = []
    for row in report.rows:
        own = {
            "name": row.name,
            "kind": row.kind,
            "first_stage": row.first_stage,
            "queries": report.queries,
            "measures": dict(row.measures),
            "latency_ms": row.latency_ms,
            "share_of_gain": kept.get(row.name),
        }
        rows.append(own | {key: value for key, value in row.extra.items() if key not in own})
    plain: dict[str, Any] = _plain(
        {
            "collection": report.collection,
            "split": report.split,
            "queries": report.queries,
            "rows": rows,
            "comparisons": [dict(found) for found in report.comparisons],
            "notes": list(report.notes),
        }
    )
    return plain


def from_json(found: Mapping[str, Any]) -> Report:
    """A report as :func:`to_json` gave it; the values of single queries are not in it."""
    own = ("name", "kind", "first_stage", "measures", "latency_ms")
    skip = {*own, "queries", "share_of_gain"}
    rows = tuple(
        Row(**{key: row[key] for key in own}, extra={key: value for key, value in row.items() if key not in skip})
        for row in found["rows"]
    )
    facts = (found["collection"], found["split"], found["queries"])
    return Report(*facts, rows, tuple(found["comparisons"]), tuple(found["notes"]))


def to_markdown(report: Report) -> str:
    """The report as GitHub-flavoured markdown."""
    heads, lines = table.headers(report), table.cells(report)
    numbers = [cell.number for cell in lines[0]] if lines else [False] * len(heads)
    out = [f"# {_md(table.title(report))}", "", f"{report.queries:,} judged queries.", ""]
    out += [_line([head or "system" for head in heads]), _line(["---:" if number else "---" for number in numbers])]
    for line in lines:
        out.append(_line([(f"**{_md(c.text)}**" if c.best else _md(c.text)) + c.mark for c in line]))
    out += ["", *(f"- {_md(sentence)}" for sentence in table.legend(report))]
    if report.comparisons:
        out += ["", "## Comparisons", "", _line(table.COMPARED), _line(["---"] * 3 + ["---:"] * 6)]
        out += [_line([_md(text) for text in line]) for line in table.compared(report)]
    if report.notes:
        out += ["", "## Notes", "", *(f"- {_md(note)}" for note in report.notes)]
    return "\n".join(out) + "\n"


def to_per_query(report: Report) -> str:
    """Every value of every query, tidy: ``system kind measure query_id value``, tab-separated, with full precision."""
    lines = ["system\tkind\tmeasure\tquery_id\tvalue"]
    for row in report.rows:
        start = "\t".join(" ".join(text.split()) for text in (row.name, row.kind))
        for name, values in row.per_query.items():
            lines += [f"{start}\t{name}\t{query_id}\t{value!r}" for query_id, value in values.items()]
    return "\n".join(lines) + "\n"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _md(text: str) -> str:
    """Text that markdown cannot mistake for markup, a cell's border or HTML."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + letter if letter in "\\`*_[]|" else letter for letter in text)


def _plain(value: Any) -> Any:
    """JSON's own types: NumPy's numbers become Python's, NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
