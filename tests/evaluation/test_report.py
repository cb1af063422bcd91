"""A report says the same in every format, survives any name, and needs nothing but itself."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rerankdistill.errors import UsageError
from rerankdistill.evaluation import table
from rerankdistill.evaluation.report import (
    report_runs,
    to_html,
    to_json,
    to_markdown,
    to_per_query,
    to_table,
    write_report,
)
from rerankdistill.types import Judgement, Report, Row, Run

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Fails on a tag closed in the wrong order; collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_json_has_exactly_the_promised_fields(report: Report) -> None:
    found = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert list(found) == ["collection", "split", "queries", "rows", "comparisons", "notes"]
    assert [row["kind"] for row in found["rows"]] == ["first_stage", "student_before", "control", "student", "teacher"]
    for row, source in zip(found["rows"], report.rows, strict=True):
        assert {"name", "kind", "first_stage", "measures", "latency_ms"} <= row.keys()
        assert row["measures"] == source.measures
        assert row["queries"] == 12
    student = found["rows"][3]
    assert (student["seeds"], student["parameters"]) == (3, 22_700_000)
    assert found["comparisons"][0]["p_corrected"] < 0.05


def test_json_never_holds_nan_numpy_or_an_extra_that_replaces_a_field(report: Report) -> None:
    odd = {"name": "usurper", "nan": float("nan"), "count": np.int64(3), "many": (np.float32(0.5), Path("x"))}
    row = replace(report.rows[0], extra=odd, measures={"map": np.float64(0.25)})
    found = to_json(replace(report, rows=(row,)))
    json.dumps(found, allow_nan=False)
    assert found["rows"][0]["name"] == "bm25"
    assert found["rows"][0]["nan"] is None
    assert (found["rows"][0]["count"], found["rows"][0]["many"]) == (3, [0.5, "x"])


def test_share_of_the_teachers_gain(report: Report) -> None:
    means = {row.kind: row.measures["mrr@10"] for row in report.rows}
    wanted = (means["student"] - means["student_before"]) / (1 - means["student_before"])
    found = {row["kind"]: row["share_of_gain"] for row in to_json(report)["rows"]}
    assert found["student"] == pytest.approx(wanted)
    assert found["teacher"] is None
    assert f"{wanted:.0%}" in to_markdown(report)


def test_a_second_untouched_student_makes_the_share_ambiguous_unless_named(report: Report) -> None:
    other = replace(report.rows[1], name="before, small")
    assert "distilled" not in table.shares(replace(report, rows=(*report.rows, other)))
    student = replace(report.rows[3], extra={"before": "before, small"})
    named = replace(report, rows=(*report.rows[:3], student, *report.rows[4:], other))
    assert table.shares(named)["distilled"] is not None


def test_the_teacher_is_never_the_bold_best(report: Report) -> None:
    bold = [[cell.best for cell in line] for line in table.cells(report)]
    assert [any(line) for line in bold] == [False, False, False, True, False]
    level = replace(report.rows[4], measures=report.rows[3].measures)
    bold = [[cell.best for cell in line] for line in table.cells(replace(report, rows=(*report.rows[:4], level)))]
    assert [any(line) for line in bold] == [False, False, False, True, False]
    assert "**0." in next(line for line in to_markdown(report).splitlines() if line.startswith("| distilled"))


def test_marks_are_against_the_control_and_explained(report: Report) -> None:
    assert table.baselines(report) == {"distilled": "control", "before": "bm25"}
    assert table.marks(report)["distilled", "ndcg@10"] == "†"
    assert table.marks(report)["before", "ndcg@10"] == "‡"
    assert any("distilled against control" in line for line in table.legend(report))
    unsure = tuple({**found, "p_corrected": 0.2} for found in report.comparisons)
    assert not table.marks(replace(report, comparisons=unsure))


def test_a_measure_that_one_row_lacks_is_a_dash_and_not_the_best(report: Report) -> None:
    rows = (report.rows[0], replace(report.rows[1], measures={**report.rows[1].measures, "map": 0.5}))
    line = table.cells(replace(report, rows=rows, comparisons=()))[0]
    assert [(cell.text, cell.best) for cell in line if cell.text == "–"] == [("–", False)]


def test_html_is_well_formed_and_refers_to_nothing_outside(report: Report) -> None:
    html = to_html(report)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset") or name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert page.tags.count("circle") == len(report.rows)
    assert page.tags.count("svg") == 1
    assert ("scope", "row") in page.attributes
    assert ("scope", "col") in page.attributes


def test_names_that_look_like_markup_break_no_format(report: Report) -> None:
    page = Page(to_html(report))
    assert "script" not in page.tags
    assert report.collection in "".join(page.words)
    markdown = to_markdown(report)
    assert "<script>" not in markdown
    table_lines = [line for line in markdown.splitlines() if line.startswith("|")]
    borders = {len(re.findall(r"(?<!\\)\|", line)) for line in table_lines[: 2 + len(report.rows)]}
    assert len(borders) == 1, "a | in a name must not make a column"


def test_chart_dots_lie_inside_their_intervals(report: Report) -> None:
    html = to_html(report)
    bars = re.findall(r'class="bar" x1="([\d.]+)" x2="([\d.]+)".*?<circle cx="([\d.]+)"', html)
    assert len(bars) == len(report.rows)
    for low, high, dot in bars:
        assert 240 < float(low) <= float(dot) <= float(high) <= 745


def test_per_query_file_reads_back_to_the_same_means(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(to_per_query(report)), delimiter="\t"))
    assert len(lines) == 5 * 2 * 12
    values = [float(line["value"]) for line in lines if line["system"] == "bm25" and line["measure"] == "ndcg@10"]
    assert np.mean(values) == pytest.approx(report.rows[0].measures["ndcg@10"])


def test_terminal_table_shows_the_same_cells(report: Report) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=220)
    console.print(to_table(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    wide = len(table.headers(report)) > table.MANY
    for line in table.cells(report)[:4]:
        pairs = zip(table.headers(report), line, strict=True)
        assert all(cell.text in shown for name, cell in pairs if not (wide and name in table.LEFT_OUT))


def test_a_measure_that_was_asked_for_is_in_the_terminal_table() -> None:
    from rich.console import Console

    run = Run.from_hits("a", {"1": [("d", 1.0)]})
    console = Console(file=io.StringIO(), width=80)
    console.print(to_table(report_runs({"a": run}, [Judgement("1", "d", 1)], "c", ("map",))))
    assert "map" in console.file.getvalue()  # type: ignore[attr-defined]


def test_all_four_files_are_written_whole(report: Report, tmp_path: Path) -> None:
    written = write_report(report, tmp_path / "new" / "report")
    assert sorted(written) == ["per_query.tsv", "report.html", "report.json", "report.md"]
    assert sorted(path.name for path in (tmp_path / "new" / "report").iterdir()) == sorted(written)
    assert json.loads(written["report.json"].read_text("utf-8")) == to_json(report)


def test_an_empty_report_is_still_a_page() -> None:
    empty = Report("none", "", 0, ())
    Page(to_html(empty))
    assert to_json(empty)["rows"] == []
    to_markdown(empty)
    to_table(empty)


def test_report_runs_takes_the_first_run_as_the_baseline() -> None:
    good = Run.from_hits("x", {"q": [("a", 1.0)], "p": [("b", 1.0)]})
    half = Run.from_hits("y", {"q": [("a", 1.0)]})
    found = report_runs({"half": half, "good": good}, {"q": {"a": 1}, "p": {"b": 1}}, "tiny", ("map",))
    assert [(row.name, row.measures["map"]) for row in found.rows] == [("half", 0.5), ("good", 1.0)]
    assert [(c["system"], c["baseline"], c["difference"]) for c in found.comparisons] == [("good", "half", 0.5)]
    assert "1 of the 2 judged queries" in found.notes[0]
    with pytest.raises(UsageError, match="no run"):
        report_runs({}, {"q": {"a": 1}}, "tiny")


def test_rows_without_query_values_get_a_dot_without_a_bar() -> None:
    row = Row("published", "teacher", "full collection", {"ndcg@10": 0.7})
    Page(to_html(Report("tiny", "test", 5, (row,))))
