"""Adapt to judged collections as if nobody had judged them, and use the judgements at the end alone: one table.

    python scripts/adapt_judged.py DATA/scifact DATA/cranfield               the shipped recipe
    python scripts/adapt_judged.py DATA/cacm -- --style title --style question   more words for 'rerankdistill adapt'

Each collection is read for its documents; queries that repeat one of its test queries are thrown out and counted; its
test's queries and judgements meet the finished student. For each: nDCG@10 of BM25, of the student before, after InfoNCE
on the same queries in as many steps, and after the recipe, of the teacher; and paired t-tests over the queries (p as it
is; the report beside it corrects for its comparisons). What is fresh is not made again. A collection that fails does
not stop the others; the end names it and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEASURE, NOTHING = "ndcg@10", "–"
ROWS = ("bm25", "{0} before", "{0} control", "{0}", "teacher")
HEADS = ("collection", "queries", "BM25", "before", "InfoNCE", "distilled", "teacher", "over before", "over InfoNCE")


def walk(collection: Path, out: Path, more: list[str]) -> dict[str, Any] | None:
    """The report on a collection's judgements; None where something failed."""
    out.mkdir(parents=True, exist_ok=True)
    env = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", **os.environ}
    words = [str(collection), "--evaluate", str(collection), "--out", str(out / collection.name), *more]
    with (out / f"{collection.name}.log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "rerankdistill", "adapt", *words]
        done = subprocess.run(command, stdout=log, stderr=log, env=env, check=False)  # noqa: S603
    if done.returncode:
        return None
    reports = (json.loads(path.read_text("utf-8")) for path in (out / collection.name).glob("reports/*/report.json"))
    return next((each for each in reports if each["collection"] == collection.name), None)


def figures(report: dict[str, Any]) -> list[float | None]:
    """What the rows of :data:`ROWS` read, in their order; None for a control that was not trained."""
    means = {row["name"]: float(row["measures"][MEASURE]) for row in report["rows"]}
    student = student_of(report)
    teacher = next(row["teacher"] for row in report["rows"] if row["name"] == student)
    return [means.get(teacher if name == "teacher" else name.format(student)) for name in ROWS]


def student_of(report: dict[str, Any]) -> str:
    return str(next(row["name"] for row in report["rows"] if row["kind"] == "student"))


def over(report: dict[str, Any], baseline: str) -> str:
    """The student's difference to another row, with its p."""
    asked = (student_of(report), baseline, MEASURE)
    pairs = {(each["system"], each["baseline"], each["measure"]): each for each in report["comparisons"]}
    if asked not in pairs:
        return NOTHING
    found, p = pairs[asked], pairs[asked]["p"]
    return f"{found['difference']:+.3f} ({'p < .001' if p < 0.001 else f'p = {p:.3f}'.replace('0.', '.')})"


def mean_of(values: Sequence[float | None]) -> float | None:
    """None where one is missing."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if len(there) == len(values) else None


def minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def cell(value: float | None, form: str = ".3f") -> str:
    return NOTHING if value is None else format(value, form)


def table(reports: dict[str, dict[str, Any]]) -> str:
    """All collections and their mean, in markdown."""
    lines = [HEADS, ("---", *["---:"] * (len(HEADS) - 1))]
    every = [figures(report) for report in reports.values()]
    for (name, report), found in zip(reports.items(), every, strict=True):
        student = student_of(report)
        cells = (over(report, f"{student} before"), over(report, f"{student} control"))
        lines.append((name, str(report["queries"]), *map(cell, found), *cells))
    mean = [mean_of(column) for column in zip(*every, strict=True)]
    gains = (cell(minus(mean[3], mean[1]), "+.3f"), cell(minus(mean[3], mean[2]), "+.3f"))
    lines.append(("mean", "", *map(cell, mean), *gains))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path, help="folders of collections with judgements")
    parser.add_argument("--out", type=Path, default=Path("work/judged"), help="folder for everything that is made")
    words = sys.argv[1:]
    ours, more = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    asked = parser.parse_args(ours)
    reports, failed = dict[str, dict[str, Any]](), list[str]()
    for collection in asked.collections:
        print(f"{collection.name}: notes in {asked.out}/{collection.name}.log", file=sys.stderr, flush=True)
        report = walk(collection.resolve(), asked.out, more)
        if report is None:
            failed.append(collection.name)
        else:
            reports[collection.name] = report
    if reports:
        print(table(reports))
    if failed:
        print(f"failed: {', '.join(failed)}; their notes are in {asked.out}/NAME.log", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
