"""A sweep: one student of a pipeline with every objective, in every variation, from every teacher, over several seeds.

It is nothing but a pipeline with many students. What they have in common is made once, what is fresh is skipped, a
killed sweep goes on where it was; and every objective is held against the same baseline with a paired test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from rerankdistill import cards
from rerankdistill.artifacts import write_text
from rerankdistill.cards import Card
from rerankdistill.errors import CardError
from rerankdistill.evaluation.compare import holm
from rerankdistill.evaluation.table import LEVEL
from rerankdistill.pipeline.card import PipelineCard, StageCard, StudentCard, load_pipeline
from rerankdistill.pipeline.learning import SHUFFLED, reads_scores

PLAIN = "as it is"
"""The only variation of a sweep that names none."""


class SweepCard(Card):
    """What is varied, and what stays."""

    name: str
    description: str = ""
    pipeline: str = "default"
    """A shipped pipeline or the path of one: collection, mining, evaluation, and the student that is varied."""
    student: str = ""
    """Which of its students; empty: the first."""
    overrides: tuple[str, ...] = ()
    """Of the pipeline, as ``a.b=value``."""
    seeds: int = Field(default=3, gt=0)
    objectives: dict[str, dict[str, Any]] = Field(min_length=1)
    """What each changes in the student's last stage: ``loss``, ``options``, ``list_size`` …; of ``train`` only what is
    named. Everything else, the steps and the batch among it, is the same for all."""
    students: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Variations of the student's options: ``{"two-layers": {"layers": 2}}``; empty: as it is."""
    teachers: tuple[str, ...] = ()
    """Cards; empty: the pipeline's."""
    baseline: str = ""
    """The objective that the others are tested against; empty: the first."""
    random_teacher: bool = False
    """Also train every objective that reads scores on shuffled ones: what the signal itself is worth."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.baseline and self.baseline not in self.objectives:
            raise ValueError(f"baseline: no objective is called {self.baseline!r}")
        for name in (*self.objectives, *self.students):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name}: a name may hold letters, digits, - and _")
        return self

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.objectives))


@dataclass(frozen=True)
class Cell:
    """One student of a sweep."""

    objective: str
    variation: str
    teacher: str

    @property
    def name(self) -> str:
        parts = ([] if self.variation == PLAIN else [self.variation]) + [self.objective, Path(self.teacher).stem]
        return "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part) for part in parts)


@dataclass(frozen=True)
class SweepRow:
    """One line of a sweep's table. ``difference`` and ``p`` are against the baseline in the same variation and from the
    same teacher; None for the baseline itself. ``p_corrected`` is Holm's over the sweep's own comparisons."""

    objective: str
    student: str
    teacher: str
    mean: float
    seeds: int
    seed_std: float | None
    difference: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    random_teacher: float | None = None


def load_sweep(name: str, overrides: tuple[str, ...] = (), small: bool = False) -> SweepCard:
    """Read a sweep by its shipped name or path; overrides are of its pipeline. Raises CardError, UsageError.

    Args:
        small: its small form; see :func:`rerankdistill.cards.parse_forms`.
    """
    sweep = cards.parse_forms(SweepCard, cards.find_card("sweeps", name), small)
    return sweep.model_copy(update={"overrides": (*sweep.overrides, *overrides)})


def expand(sweep: SweepCard) -> PipelineCard:
    """The pipeline that a sweep is. Raises CardError: a student or a field that the pipeline has not."""
    base = load_pipeline(sweep.pipeline, sweep.overrides)
    varied, found = _varied(sweep, base), list(cells(sweep, base))
    students = {cell.name: _student(sweep, varied, cell) for cell in found}
    if len(students) < len(found):
        names = [cell.name for cell in found]
        twice = next(name for name in names if names.count(name) > 1)
        fix = "rename an objective or a variation, or a teacher's file"
        raise CardError(f"two students of the sweep would be called {twice!r}", where=sweep.name, fix=fix)
    pairs = tuple((cell.name, _baseline(sweep, cell)) for cell in found if cell.objective != sweep.against)
    targets = [target.model_copy(update={"expect": (), "compare": pairs}) for target in base.evaluate]
    changes = {"students": students, "seeds": tuple(range(1, sweep.seeds + 1)), "evaluate": tuple(targets)}
    return base.model_copy(update=changes)


def _varied(sweep: SweepCard, base: PipelineCard) -> StudentCard:
    """The student that is varied."""
    name = sweep.student or next(iter(base.students))
    if name not in base.students:
        raise CardError(
            f"the pipeline has no student {name!r}", where=sweep.name, fix=f"one of {', '.join(base.students)}"
        )
    if not base.students[name].stages:
        raise CardError("a student needs a stage", where=f"students.{name}")
    return base.students[name]


def cells(sweep: SweepCard, base: PipelineCard) -> Iterator[Cell]:
    """Every student of a sweep, in the order of its table; ``base`` is its pipeline, or what it expands to."""
    teachers = sweep.teachers
    if not teachers:
        first = next(iter(base.students.values()))
        teachers = ((base.students.get(sweep.student) or first).teacher or base.teacher,)
    for variation, teacher, objective in product(sweep.students or {PLAIN: {}}, teachers, sweep.objectives):
        yield Cell(objective, variation, teacher)


def _baseline(sweep: SweepCard, cell: Cell) -> str:
    """The name of the student that a cell is held against."""
    return Cell(sweep.against, cell.variation, cell.teacher).name


def _measure(report: Mapping[str, Any]) -> str:
    """The measure that the table is about."""
    return str(next(iter(report["rows"][0]["measures"])))


def _student(sweep: SweepCard, base: StudentCard, cell: Cell) -> StudentCard:
    *before, last = base.stages
    changes = dict(sweep.objectives[cell.objective])
    if isinstance(changes.get("train"), Mapping):
        changes["train"] = {**last.train.model_dump(), **changes["train"]}
    other = "loss" in changes and changes["loss"] != last.loss  # whose options another loss would refuse
    kept = last.model_dump(exclude={"options", "tune"} if other else {"tune"})
    if isinstance(changes.get("options"), Mapping) and not other:
        changes["options"] = {**last.options, **changes["options"]}
    stage = cards.parse(StageCard, {**kept, **changes}, f"{sweep.name}: objectives.{cell.objective}")
    shuffled = ("scores",) if sweep.random_teacher and reads_scores(stage) else ()
    return base.model_copy(
        update={
            "options": {**base.options, **sweep.students.get(cell.variation, {})},
            "teacher": cell.teacher,
            "stages": (*before, stage),
            "control": "none",
            "extra_controls": {},
            "shuffled": shuffled,
            "measure_before": False,
        }
    )


def rows(sweep: SweepCard, base: PipelineCard, report: Mapping[str, Any]) -> list[SweepRow]:
    """The sweep's table, read from the report of its pipeline."""
    named = {row["name"]: row for row in report["rows"]}
    measure = _measure(report)
    every = {(c["system"], c["baseline"]): c for c in report["comparisons"] if c["measure"] == measure}
    pairs = [(cell.name, _baseline(sweep, cell)) for cell in cells(sweep, base)]
    tested = {pair: every[pair] for pair in pairs if pair in every}
    corrected = dict(zip(tested, holm([test["p"] for test in tested.values()]), strict=True))
    found = []
    for cell in cells(sweep, base):
        row, random = named[cell.name], named.get(f"{cell.name} {SHUFFLED}scores")
        pair = cell.name, _baseline(sweep, cell)
        test = tested.get(pair, {})
        found.append(
            SweepRow(
                cell.objective, cell.variation, Path(cell.teacher).stem, row["measures"][measure], row.get("seeds", 1),
                (row.get("seed_std") or {}).get(measure), test.get("difference"), test.get("p"),
                corrected.get(pair), random["measures"][measure] if random else None,
            )
        )  # fmt: skip
    return found


HEADS = ("objective", "student", "teacher", "mean", "± seeds", "over baseline", "p", "p (Holm)", "shuffled scores")


def texts(found: list[SweepRow]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of :data:`HEADS`; † and ‡ mark what is above or below the baseline."""
    lines = []
    for row in found:
        mark = ""
        if row.p_corrected is not None and row.p_corrected < LEVEL and row.difference:
            mark = "†" if row.difference > 0 else "‡"
        gap = "–" if row.difference is None else f"{row.difference:+.3f}{mark}"
        spread, random = ("–" if value is None else f"{value:.3f}" for value in (row.seed_std, row.random_teacher))
        chances = ("–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in (row.p, row.p_corrected))
        lines.append((row.objective, row.student, row.teacher, f"{row.mean:.3f}", spread, gap, *chances, random))
    return lines


def to_markdown(sweep: SweepCard, report: Mapping[str, Any], found: list[SweepRow]) -> str:
    """The table as GitHub-flavoured markdown, with what it was measured on."""
    measure = _measure(report)
    head = f"{measure} on {report['collection']} · {report['split']}, {report['queries']} queries, {sweep.seeds} seeds."
    test = f"† above, ‡ below {sweep.against!r}: paired t-test over the queries, seeds averaged, Holm's p < {LEVEL}."
    lines = [f"# {sweep.name}", "", f"{head} {test}", "", "| " + " | ".join(HEADS) + " |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (len(HEADS) - 3))
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in texts(found))]) + "\n"


def save(sweep: SweepCard, report: Mapping[str, Any], found: list[SweepRow], folder: Path, on: str) -> Path:
    """Write the table of a sweep ``on`` a collection's split; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sweep.name}-{on}.md"
    write_text(path, to_markdown(sweep, report, found))
    return path


def to_json(sweep: SweepCard, report: Mapping[str, Any], found: list[SweepRow]) -> dict[str, Any]:
    """What ``sweep --json`` prints."""
    about = {key: report[key] for key in ("collection", "split", "queries")}
    measure = _measure(report)
    return {
        "name": sweep.name,
        **about,
        "measure": measure,
        "baseline": sweep.against,
        "rows": [asdict(r) for r in found],
    }
