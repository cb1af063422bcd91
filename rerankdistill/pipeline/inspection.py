"""Teachers measured before anyone trains on them: scored on judged queries, held against what else could rank."""

from __future__ import annotations

import hashlib
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerankdistill import artifacts
from rerankdistill.cards import list_cards
from rerankdistill.contracts import Encoder, Source
from rerankdistill.errors import DataError, RerankDistillError, UsageError
from rerankdistill.evaluation.teacher_check import Evidence, Findings, check
from rerankdistill.evaluation.teacher_verdict import Verdict, verdict
from rerankdistill.pipeline.card import PipelineCard, StudentCard
from rerankdistill.pipeline.lessons import Lessons, mining_model
from rerankdistill.pipeline.mining import Asked, Shelf, candidates_step, is_dense, read_candidates, read_run, run_step
from rerankdistill.pipeline.step import Notes, Step, walk
from rerankdistill.pipeline.teaching import Faculty
from rerankdistill.pipeline.vectors import by_encoder
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.store import save_run
from rerankdistill.runs.trec import read_run as read_trec
from rerankdistill.scores.card import ScorerCard, load_members
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store
from rerankdistill.types import FloatArray, Group, Judgement, Query, Run, View

PREFERRED = ("dev", "train", "test")
"""The split that is measured on where none is named: test last, since who chooses a teacher on it has used it up."""
SHUFFLED_LISTS = 5
"""Lists that a listwise teacher is asked about once more, in another order."""


@dataclass(frozen=True)
class Task:
    """What teachers are measured on.

    Attributes:
        run: a TREC file, a run that comes with the collection, or an index card; empty: BM25.
        split: whose judgements; empty: the first there is of dev, train, test.
        queries: so many of the split's judged queries, by a seeded hash of their ids; 0: all.
        student: a bi-encoder to compare with; empty: none.
        tau: the temperature that a listwise loss would use; None: what is usual for the scale.
        pairs: of the job ahead, for the time and money it would take; 0: not known.
    """

    collection: str
    run: str = ""
    split: str = ""
    queries: int = 0
    depth: int = 20
    student: str = ""
    tau: float | None = None
    pairs: int = 0
    device: str = "auto"
    seed: int = 1


@dataclass(frozen=True)
class Measured:
    """One teacher, measured.

    Attributes:
        pairs_per_second: over all that its store holds; None where nothing was timed.
        memory_mb: the highest resident memory of the process up to then; ``gpu_mb`` of torch on the GPU.
        seconds_ahead, money_ahead: for the job ahead, by what its scores have cost so far.
        usage: counters of the store: tokens, requests, malformed answers, cost.
    """

    name: str
    kind: str
    scale: str
    findings: Findings
    verdict: Verdict
    on: Mapping[str, Any]
    pairs_per_second: float | None = None
    memory_mb: float | None = None
    gpu_mb: float | None = None
    seconds_ahead: float | None = None
    money_ahead: float | None = None
    usage: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        about = {name: getattr(self, name) for name in ("name", "kind", "scale")}
        about |= {"verdict": self.verdict.words, "grade": self.verdict.grade, "faults": list(self.verdict.names)}
        about |= {"on": dict(self.on), "findings": self.findings.as_dict(), "usage": dict(self.usage)}
        for name in ("pairs_per_second", "memory_mb", "gpu_mb", "seconds_ahead", "money_ahead"):
            about[name] = getattr(self, name)
        return about


def measure_teachers(names: Sequence[str], task: Task, out: Path, notes: Notes | None = None) -> list[Measured]:
    """Measure teachers by their cards on the same candidates. What is scored already is not scored again.

    Raises:
        UsageError, CardError: an unknown split, run or card; before anything is scored.
        DataError: the run and the collection do not belong together.
    """
    for name in names:
        load_members(name)
    card = PipelineCard(
        name="measure", collection=task.collection, students={"none": StudentCard()}, device=task.device, seed=task.seed
    )
    bench = Bench(Workspace(card, out, notes), task)
    walk([bench.candidates], bench.ws.notes)
    scored = [bench.score(name) for name in names]
    labels = _distinct(names)
    student = bench.student_rows(scored[0].faculty.shelf.view) if task.student and scored else {}
    found = []
    for label, each in zip(labels, scored, strict=True):
        others = {other: one.rows for other, one in zip(labels, scored, strict=True) if one is not each}
        evidence = Evidence(
            bench.lists, each.rows, each.faculty.scale, bench.judgements, bench.first, student,
            bench.lengths(each.faculty.shelf.view), each.again, others=others, tau=task.tau,
            **each.answering,
        )  # fmt: skip
        findings = check(evidence, task.seed)
        found.append(_measured(label, each, findings, bench))
    return found


@dataclass(frozen=True)
class Scored:
    """One teacher's scores of a bench, and what making them took."""

    faculty: Faculty
    rows: Mapping[str, FloatArray]
    again: Mapping[str, FloatArray]
    costs: Costs
    answering: Mapping[str, Any]
    memory_mb: float
    gpu_mb: float | None


class Bench:
    """Judged queries of a collection with fixed candidates."""

    def __init__(self, ws: Workspace, task: Task) -> None:
        self.ws, self.task, self.source = ws, task, ws.source()
        self.split = choose_split(self.source, task.split)
        self.queries = choose_queries(self.source.queries(self.split), task.queries, task.seed)
        wanted = {query.query_id for query in self.queries}
        judged = self.source.judgements(self.split) if self.split in self.source.splits() else iter(())
        self.judgements: list[Judgement] = [judgement for judgement in judged if judgement.query_id in wanted]
        mark = artifacts.fingerprint([list(query) for query in self.queries])
        self.asked = Asked(f"measure-{self.split}-{mark[:8]}", mark, lambda: self.queries)
        self.run, self.run_name = self._run()
        name = f"{self.asked.name}-{self.run_name}-top{task.depth}"
        self.candidates = candidates_step(ws, self.asked, [self.run], task.depth, name=name)
        self._texts: dict[View, dict[str, FloatArray]] = {}

    def _run(self) -> tuple[Step, str]:
        """The step that has the first stage's run, and its name."""
        task, shelf = self.task, Shelf(self.source, View.TITLE_TEXT)
        path = Path(task.run)
        if task.run and path.is_file():
            name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
            return self._given(read_trec(path, name), name), name
        offered = self.source.runs(self.split)
        name = task.run or "bm25"
        if name in offered:
            return self._given(offered[name], name), name
        if name not in list_cards("indexes") and path.suffix != ".toml":
            has = f"the collection has {', '.join(offered)}" if offered else "the collection has none of its own"
            fix = f"give a TREC file or an index card (rerankdistill indexes list); {has}"
            raise UsageError(f"no run is called {task.run!r}", where="--run", fix=fix)
        model = mining_model(self.ws) if is_dense(name) else None
        return run_step(self.ws, shelf, name, self.asked, task.depth, model), Path(name).stem

    def _given(self, given: Run, name: str) -> Step:
        """The step that takes over a run that is there, cut to what is looked at."""
        run = given.restricted([query.query_id for query in self.queries]).top(self.task.depth).renamed(name)
        if not len(run):
            fix = f"is it a run of {self.task.collection}, split {self.split}?"
            raise DataError("it has nothing for any of the judged queries", where=f"run {name!r}", fix=fix)
        mark = artifacts.fingerprint(run.query_ids, run.vocabulary, run.offsets.tobytes(), run.codes.tobytes())
        inputs = {"run": artifacts.fingerprint(mark, run.scores.tobytes())}
        manifest = artifacts.plan("run", 1, {"given": name, "split": self.split}, inputs)
        step = Step(f"run {name} · {self.asked.name}", self.ws.root / "runs" / self.asked.name / name, manifest)
        step.run = lambda folder: save_run(folder, run)
        return step

    @property
    def lists(self) -> dict[str, list[str]]:
        return read_candidates(self.candidates)

    @property
    def first(self) -> dict[str, list[float]]:
        """The first stage's scores of the candidates; NaN where it has none."""
        return scores_of(read_run(self.run), self.lists)

    def score(self, name: str) -> Scored:
        """Have a teacher score the candidates, resuming what was begun."""
        view = load_members(name)[0].view
        faculty = Faculty(self.ws, Shelf(self.source, view), name, whole=False)
        _forget_gpu()
        steps = faculty.scored_steps(self.asked, self.candidates)
        walk(steps, self.ws.notes)
        rows = faculty.fused(faculty.raw(self.asked, self.candidates, steps))
        again = self._again(faculty)
        stores = faculty.stores(steps)
        return Scored(faculty, rows, again, costs(stores), answering(stores), peak_memory(), _gpu_memory())

    def _again(self, faculty: Faculty) -> dict[str, FloatArray]:
        """A listwise teacher's scores of a few lists that were put to it in another order, in the order of ``lists``;
        of others nothing, since no order can matter to them."""
        member = faculty.members[0]
        if len(faculty.members) > 1 or getattr(faculty.open(member), "unit", "pair") != "list":
            return {}
        teacher, lists, groups, orders = faculty.open(member), self.lists, list[Group](), dict[str, Any]()
        generator = np.random.default_rng(self.task.seed)
        long = [query for query in self.queries if len(lists.get(query.query_id, ())) > 1]
        for group in faculty.groups(long[:SHUFFLED_LISTS], lists, teacher.needs_texts):
            order = orders[group.query.query_id] = generator.permutation(len(group.doc_ids))
            moved = (tuple(column[at] for at in order) for column in (group.doc_ids, group.texts))
            groups.append(Group(group.query, *moved))
        root = self.ws.root / "scores"
        with (
            open_store(root, member.card.name, teacher, card=member.card.model_dump(mode="json")) as store,
            self.ws.notes.bar(f"{member.card.name}, other orders", sum(len(g.doc_ids) for g in groups)) as advance,
        ):
            score(store, teacher, groups)
            found = store.lookup(groups)
            advance(sum(len(group.doc_ids) for group in groups))
        out = {}
        for group, row in zip(groups, found, strict=True):
            out[group.query.query_id] = np.empty_like(row)
            out[group.query.query_id][orders[group.query.query_id]] = row
        return out

    def student_rows(self, view: View) -> dict[str, FloatArray]:
        """The student's scores of the candidates."""
        encoder = self.ws.encoder(self.task.student)
        with self.ws.notes.bar("the student encodes the candidates", len(self.queries)) as advance:
            rows = vector_rows(encoder, self.queries, self.lists, Shelf(self.source, view))
            advance(len(self.queries))
        return rows

    def lengths(self, view: View) -> dict[str, FloatArray]:
        if view not in self._texts:
            self._texts[view] = text_lengths(self.lists, Shelf(self.source, view))
        return self._texts[view]


def choose_split(source: Source, wanted: str) -> str:
    """The split to measure on; see :data:`PREFERRED`. Raises UsageError for one that is not there."""
    there = source.splits()
    if wanted and wanted not in there:
        fix = f"it has {', '.join(there) or 'no judgements at all: leave --split out'}"
        raise UsageError(f"the collection has no judged split {wanted!r}", where="--split", fix=fix)
    if wanted:
        return wanted
    return next((split for split in PREFERRED if split in there), there[0] if there else "test")


def choose_queries(queries: Sequence[Query], most: int, seed: int) -> list[Query]:
    """At most ``most`` queries (0: all), by a seeded hash of their ids, so that each is in or out by itself."""
    order = sorted(queries, key=lambda query: hashlib.sha256(f"{seed}:{query.query_id}".encode()).digest())
    return order[:most] if most else order


def scores_of(run: Run, lists: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """A run's scores of each list's documents; NaN for those it did not find."""
    found = {query_id: dict(hits) for query_id, hits in run if query_id in lists}
    nothing = float("nan")
    return {q: [found.get(q, {}).get(doc_id, nothing) for doc_id in doc_ids] for q, doc_ids in lists.items()}


def vector_rows(
    encoder: Encoder,
    queries: Sequence[Query],
    lists: Mapping[str, Sequence[str]],
    shelf: Shelf,
    known: Callable[[Sequence[str]], FloatArray] | None = None,
) -> dict[str, FloatArray]:
    """An encoder's scores of each list; every document is encoded once, or is ``known`` by its id."""
    asked = [query for query in queries if lists.get(query.query_id)]
    doc_ids = sorted({doc_id for query in asked for doc_id in lists[query.query_id]})
    docs = known(doc_ids) if known else encoder.encode(shelf.source.texts(doc_ids, shelf.view), "doc")
    vectors = encoder.encode([query.text for query in asked], "query")
    scorer = by_encoder(encoder, [query.query_id for query in asked], vectors, doc_ids, docs)
    groups = [(query.query_id, lists[query.query_id]) for query in asked]
    return {query_id: np.asarray(row) for (query_id, _), row in zip(groups, scorer(groups), strict=True)}


def text_lengths(lists: Mapping[str, Sequence[str]], shelf: Shelf) -> dict[str, FloatArray]:
    """The length of each document of each list, in characters."""
    return {
        query_id: np.array([len(text) for text in shelf.source.texts(list(doc_ids), shelf.view)], np.float32)
        for query_id, doc_ids in lists.items()
    }


def pairs_ahead(card: PipelineCard, out: Path) -> int:
    """How many pairs a pipeline will have its teachers score: counted where its candidates are there, else all its
    judged training queries times the depth of each mining run, the most that it can be."""
    ws, most = Workspace(card, out), 0
    lanes: dict[str, int] = {}
    for name, student in card.students.items():
        lessons = Lessons(ws, name, student)
        try:
            lanes[lessons.lane.name] = int(artifacts.require(lessons.candidates.folder, lessons.candidates.manifest)
                                           .counts["pairs"])  # fmt: skip
        except RerankDistillError:
            real = {"train", "asked"} & set(lessons.lane.sets)
            asked = len(ws.source().queries("train")) if real else len(ws.source().doc_ids())
            asked = min(asked, student.max_queries or asked)
            lanes[lessons.lane.name] = asked * card.mine.depth * len((*card.mine.indexes, *card.mine.runs))
    for pairs in lanes.values():
        most += pairs
    return most


def peak_memory() -> float:
    """The highest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _gpu_memory() -> float | None:
    torch: Any = sys.modules.get("torch")  # where no teacher loaded it, none used a GPU
    if torch is None or not torch.cuda.is_available():
        return None
    return round(float(torch.cuda.max_memory_allocated()) / (1 << 20), 1)


def _forget_gpu() -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _measured(label: str, each: Scored, findings: Findings, bench: Bench) -> Measured:
    faculty, task, spent, rate = each.faculty, bench.task, each.costs, each.costs.pairs_per_second
    money = round(spent.price * task.pairs, 4) if spent.price is not None and task.pairs else None
    on = {"collection": task.collection, "split": bench.split, "run": bench.run_name, "depth": task.depth,
          "student": task.student, "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    kind = faculty.card.kind if isinstance(faculty.card, ScorerCard) else "ensemble"
    seconds = round(task.pairs / rate, 1) if rate and task.pairs else None
    return Measured(
        label, kind, str(faculty.scale), findings, verdict(findings), on,
        rate, each.memory_mb, each.gpu_mb, seconds, money, spent.usage,
    )  # fmt: skip


class Costs(NamedTuple):
    """Of all members of a teacher: pairs per second of one after the other, their counters added up, a pair's price."""

    pairs_per_second: float | None
    usage: dict[str, float]
    price: float | None


def costs(stores: Sequence[Any]) -> Costs:
    """What a teacher's scores have cost so far, by its members' stores."""
    seconds, usage, price, paid = 0.0, dict[str, float](), 0.0, False
    for store in stores:
        seconds += 1 / store.pairs_per_second if store.pairs_per_second else 0.0
        for name, amount in store.usage.items():
            usage[name] = usage.get(name, 0.0) + amount
        if "cost" in store.usage and len(store):
            price, paid = price + store.usage["cost"] / len(store), True
    return Costs(round(1 / seconds, 2) if seconds else None, usage, price if paid else None)


SHARES = {"malformed": "requests", "unread": "requests", "flips": "both_ways"}
"""Counters of a store, and what each is a share of."""


def answering(stores: Sequence[Any]) -> dict[str, Any]:
    """How a teacher answers, as evidence: of its members the worst."""
    counted = [store.usage for store in stores]
    return {
        part: max((use[part] / use[whole] for use in counted if part in use and use.get(whole)), default=None)
        for part, whole in SHARES.items()
    }


def _distinct(names: Sequence[str]) -> list[str]:
    """Short names of cards; of two alike the paths."""
    stems = [Path(name).stem if name.endswith(".toml") else name for name in names]
    return [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, names, strict=True)]
