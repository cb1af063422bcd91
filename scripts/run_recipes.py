"""Walk every recipe in its small form, and say in one table what came of each.

    python scripts/run_recipes.py                       all of them, into work/recipes
    python scripts/run_recipes.py bixse pld             these
    python scripts/run_recipes.py --results FILE.md     also write the table, and all rows of every report, as markdown

What is fresh is not made again, so that a run that was stopped goes on. A recipe that fails does not stop the others;
the end names it and the exit code is 1. One that wants what this machine lacks (a language model in a package)
is left out, and named too. Each runs in a process of its own, whose notes go to work/recipes/NAME.log.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerankdistill.cards import list_cards, read_toml
from rerankdistill.errors import MissingDependency
from rerankdistill.pipeline.card import PipelineCard, load_pipeline

HEADS = ("recipe", "student", "before", "control", "student", "teacher", "seconds")
MEASURE = "ndcg@10"
LAST = 12
"""Lines of its notes that are shown of a recipe that failed."""
LACKING = MissingDependency.exit_code


def walk(name: str, out: Path) -> list[dict[str, Any]] | int:
    """Train and measure one recipe's small form; its reports, or the exit code where it failed."""
    out.mkdir(parents=True, exist_ok=True)
    where = [f"recipes/{name}", "--small", "--out", str(out / name)]
    env = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", **os.environ}
    with (out / f"{name}.log").open("w", encoding="utf-8") as log:
        for verb in (["train"], ["eval", "--json"]):
            command = [sys.executable, "-m", "rerankdistill", verb[0], *where, *verb[1:]]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, env=env, text=True, check=False)  # noqa: S603
            if done.returncode:
                return done.returncode
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def seconds(folder: Path) -> float:
    """What all products in a folder took to make, whenever that was."""
    manifests = (json.loads(path.read_text("utf-8")) for path in folder.rglob("manifest.json"))
    steps = (each for each in manifests if each["kind"] != "scores")  # a store's are those of the steps that filled it
    return float(sum(each.get("seconds") or 0.0 for each in steps))


def rows(name: str, card: PipelineCard, report: dict[str, Any], spent: float) -> Iterator[tuple[str, ...]]:
    """A line for each student of a recipe."""
    figures = {row["name"]: row["measures"].get(MEASURE) for row in report["rows"]}
    for at, student in enumerate(card.students):
        teacher = next((row.get("teacher") for row in report["rows"] if row["name"] == student), None)
        cells = (figures.get(each) for each in (f"{student} before", f"{student} control", student, teacher))
        told = ("–" if value is None else f"{value:.3f}" for value in cells)
        yield (name if not at else "", student, *told, "" if at else f"{spent:.0f}")


def in_columns(lines: list[tuple[str, ...]]) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def in_markdown(heads: tuple[str, ...], lines: list[tuple[str, ...]], left: int) -> str:
    rule = "| " + " | ".join("---" if at < left else "---:" for at in range(len(heads))) + " |"
    return "\n".join(["| " + " | ".join(heads) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


def to_markdown(lines: list[tuple[str, ...]], reports: dict[str, list[dict[str, Any]]]) -> str:
    """The table, and for every recipe all rows of its report."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    parts = [
        "# What the small forms measured",
        f"Written by `scripts/run_recipes.py` ({machine}). {MEASURE}, one seed; the seconds are those of all steps, on "
        "a machine that may have had other work. See [README.md](README.md) for what such figures can say.",
        in_markdown(HEADS, lines, 2),
    ]
    for name, found in reports.items():
        for report in found:
            about = f"{report['collection']} · {report['split']}, {report['queries']} queries"
            every = [
                (row["name"], row["first_stage"], *(f"{value:.3f}" for value in row["measures"].values()))
                for row in report["rows"]
            ]
            heads = ("row", "searches", *report["rows"][0]["measures"])
            parts += [f"## {name}", f"{about}.", in_markdown(heads, every, 2)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes; all, where none is named")
    parser.add_argument("--out", type=Path, default=Path("work/recipes"), help="folder for everything that is made")
    parser.add_argument("--results", type=Path, help="a markdown file to write the results to")
    asked = parser.parse_args()
    known = list_cards("recipes")
    if unknown := set(asked.names) - set(known):
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    lines, reports = list[tuple[str, ...]](), dict[str, list[dict[str, Any]]]()
    failed, left_out = list[str](), list[str]()
    for name in asked.names or known:
        print(f"{name}: {read_toml(known[name])['description']}", file=sys.stderr, flush=True)
        found = walk(name, asked.out)
        if isinstance(found, int):
            (left_out if found == LACKING else failed).append(name)
            notes = (asked.out / f"{name}.log").read_text("utf-8").splitlines()
            print("\n".join(f"    {line}" for line in notes[-LAST:]), file=sys.stderr, flush=True)
            continue
        reports[name] = found
        card, spent = load_pipeline(f"recipes/{name}", small=True), seconds(asked.out / name)
        lines += [line for report in found for line in rows(name, card, report, spent)]
    if lines:
        print(in_columns([HEADS, *lines]))
    if asked.results and lines:
        asked.results.write_text(to_markdown(lines, reports), "utf-8")
    if left_out:
        print(f"left out on this machine: {', '.join(left_out)}; see {asked.out}/NAME.log", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}; their notes are in {asked.out}/NAME.log", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
