"""Proof: every engine of a pipeline measured on one collection, compared fairly, written as a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rerankdistill import artifacts
from rerankdistill.errors import CardError, DataError
from rerankdistill.evaluation.compare import average_rows, compare
from rerankdistill.evaluation.cost import parameters, throughput
from rerankdistill.evaluation.fidelity import fidelity
from rerankdistill.evaluation.measure import measure
from rerankdistill.evaluation.report import write_report
from rerankdistill.evaluation.unseen import FEWEST, SUFFIX, add_unseen, unseen_queries
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import EvaluateCard, StudentCard, own_collection
from rerankdistill.pipeline.chain import stem
from rerankdistill.pipeline.deployed import Deployed
from rerankdistill.pipeline.encoded import EncodedModel, index_of, is_encoded
from rerankdistill.pipeline.engines import (
    Engine,
    fusion_step,
    lexical_filler,
    pair_rerank_step,
    teacher_step,
    untrained_step,
    vector_filler,
    vector_rerank_step,
)
from rerankdistill.pipeline.evidence import opening, relabelled_notes, said
from rerankdistill.pipeline.lanes import read_training
from rerankdistill.pipeline.learning import CONTROL, DISTILLED, SHUFFLED, Arm, arms, model_of, student_step
from rerankdistill.pipeline.lessons import Lessons, mined_runs
from rerankdistill.pipeline.mining import (
    Asked,
    Shelf,
    candidates_step,
    given_run_step,
    index_step,
    read_run,
    run_step,
)  # fmt: skip
from rerankdistill.pipeline.quantizing import WHOLE, has_codes, index_filler, indexed_engine, whole_engine
from rerankdistill.pipeline.refine import NOTE as REFINED_NOTE
from rerankdistill.pipeline.refine import refined_engines
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty, scorer_model
from rerankdistill.pipeline.variants import VARIANT, variant_engines
from rerankdistill.pipeline.vectors import Model, vectors_step
from rerankdistill.pipeline.weighing import weight_of
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.rerank import ScoreGroups
from rerankdistill.students.model_card import add_measured
from rerankdistill.types import Report, Row, Run

FUSION_DEPTH = 50
SPEED_TEXTS = 256
"""Documents that encoding speed is measured on."""
ENCODERS = ("student", "student_before", VARIANT)
"""Rows that say what their encoder costs."""


class Proof:
    """One ``[[evaluate]]`` of a pipeline."""

    def __init__(self, ws: Workspace, target: EvaluateCard, lessons: dict[str, Lessons]) -> None:
        self.ws, self.target, self.lessons = ws, target, lessons
        self.source = ws.target(target)
        label = "" if own_collection(ws.card, target) else slug(target.collection)
        self.shelf = Shelf(self.source, ws.card.view, label)
        mark = self.source.queries_fingerprint(target.split)
        self.split = target.splits.get(target.split, target.split)
        called = slug(self.split) + ("-rerank" if target.mode == "rerank" else "")
        self.asked = Asked(self.shelf.place(called), mark, lambda: self.source.queries(target.split))
        self.first = self._first_stage()
        self.deployed = Deployed(target)

    def _first_stage(self) -> Step:
        name, split = self.target.first_stage, self.target.split
        if name in self.source.runs(split):
            return given_run_step(self.ws, self.shelf, name, split, self.asked.name)
        return run_step(self.ws, self.shelf, name, self.asked, self.target.depth)

    @property
    def first_name(self) -> str:
        return Path(self.target.first_stage).stem

    def report_step(self) -> Step:
        """The step that measures every engine and writes the report."""
        engines = self.engines()
        rows = {engine.name: None for engine in engines}
        for unknown in (name for pair in self.target.compare for name in pair if name not in rows):
            raise CardError(
                f"compare: the report has no row {unknown!r}", where="evaluate", fix=f"rows: {', '.join(rows)}"
            )
        inputs = {f"{engine.name}/{number}": engine.run.fingerprint for number, engine in enumerate(engines)}
        inputs["judgements"] = self.source.judgements_fingerprint(self.target.split)
        inputs |= self.deployed.inputs
        self.deployed.check(rows)
        about = {"measures": list(self.target.measures), "mode": self.target.mode,
                 "compare": [list(pair) for pair in self.target.compare], **said(self.target)}  # fmt: skip
        manifest = artifacts.plan("report", 2, about, inputs)
        place = self.ws.root / "reports" / self.asked.name
        needs = tuple(engine.run for engine in engines)
        step = Step(f"report {self.asked.name}", place, manifest, needs)
        step.run = lambda folder: self._write(engines, folder)
        return step

    def engines(self) -> list[Engine]:
        """Every row of the report, in its order."""
        found = [Engine(self.first_name, "first_stage", "full collection", self.first, (self.first,))]
        for name, card in self.ws.card.students.items():
            found += self._students(name, card)
        names = dict.fromkeys(card.teacher or self.ws.card.teacher for card in self.ws.card.students.values())
        for name in names:
            found += self._teacher(name)
        return found

    def _students(self, name: str, card: StudentCard) -> list[Engine]:
        coded = has_codes(card)
        teacher = f"{name} {WHOLE}" if coded else f"teacher {stem(card.teacher or self.ws.card.teacher)}"
        rows: list[Engine] = []
        if card.measure_before:
            own = self.lessons[name]
            before = untrained_step(self.ws, name, card, own.doc_vectors if coded else (), own.docs_model)
            rows += self._with_fusion(f"{name} before", "student_before", name, card, before, {})
        extra = {"teacher": teacher} | ({"before": f"{name} before"} if card.measure_before else {})
        for arm in arms(name, card, self.ws.card.seeds):
            student = student_step(self.ws, self.lessons[name], arm)
            label = name if arm.role == DISTILLED else f"{name} {arm.role}"
            kind = "student" if arm.role == DISTILLED else "control"
            made = self._with_fusion(label, kind, name, card, student, extra, arm)
            rows += made
            if arm.role == DISTILLED:
                rows += variant_engines(made[0], name, card, self._bi_encoder)
            if arm.role == DISTILLED and self.target.mode == "retrieve":
                depth = self.target.depth
                rows += refined_engines(self.ws, self.shelf, self.asked, made[0], name, card, arm.seed, depth)
        if coded:
            model = self.lessons[name].docs_model
            rows.append(whole_engine(self.ws, self.shelf, self.asked, self.target.depth, name, model))
        return rows

    def _with_fusion(
        self,
        label: str,
        kind: str,
        name: str,
        card: StudentCard,
        student: Step,
        extra: dict[str, str],
        arm: Arm | None = None,
    ) -> list[Engine]:
        """A student's own row, and that of its fusion with the first stage."""
        file = student.folder.name
        if open_kind("students", card.kind).layout == "lists":  # it reads pairs
            run = pair_rerank_step(
                self.ws, self.shelf, self.asked, self.first, card.rerank_depth, name, card, student, file
            )
            stage = f"{self.first_name} top {card.rerank_depth}"
            own = Engine(label, kind, stage, run, (self.first, run), dict(extra))
            weight = weight_of(self.lessons[name], self.target, self.shelf, name, card, student)
            fused = fusion_step(
                self.ws, self.shelf, self.asked, (self.first, run), card.rerank_depth, f"{file}+fused", weight=weight
            )
        else:
            model = model_of(file, student, card, self.lessons[name].docs_model)
            own = self._encoder(label, kind, model, file, card, extra)
            fused = self._fused(own, model, file)
        if arm and arm.role.startswith(SHUFFLED):
            return [own]
        row = Engine(f"{self.first_name} + {label}", "fusion", own.first_stage, fused, (self.first, own.run))
        return [replace(own, student=student.folder), row]

    def _bi_encoder(self, label: str, kind: str, model: Model, file: str, extra: dict[str, str]) -> Engine:
        if self.target.mode == "rerank":
            depth = self.target.rerank_depth
            run = vector_rerank_step(self.ws, self.shelf, self.asked, self.first, depth, model, file)
            stage = f"{self.first_name} top {depth}"
        else:
            run = run_step(self.ws, self.shelf, "flat", self.asked, self.target.depth, model, file)
            stage = "full collection"
        return Engine(label, kind, stage, run, (run,), dict(extra), model)

    def _encoder(
        self, label: str, kind: str, model: Model, file: str, card: StudentCard, extra: dict[str, str]
    ) -> Engine:
        """A student that encodes queries and documents apart, searched as its kind says."""
        ranks = self.target.mode == "rerank"
        if index_of(card) is None or (ranks and is_encoded(card)):
            return self._bi_encoder(label, kind, model, file, extra)
        if ranks:
            what = f"a student of kind {card.kind!r} is an index, and re-ranks nobody's candidates"
            raise CardError(what, where="evaluate", fix="mode = 'retrieve'")
        return indexed_engine(self.ws, self.shelf, self.asked, self.target.depth, card, model, label, kind, extra)

    def _fused(self, own: Engine, model: Model, file: str) -> Step:
        """BM25 and a student, each asked about what the other found."""
        if self.target.mode == "rerank":
            pair = (self.first, own.run)
            return fusion_step(self.ws, self.shelf, self.asked, pair, self.target.rerank_depth, f"{file}+fused")
        lexical = self.target.first_stage == "bm25"
        index = index_step(self.ws, self.shelf, "bm25") if lexical else None
        vectors = None if isinstance(model, EncodedModel) else vectors_step(self.ws, model, self.shelf.docs)

        def complete() -> list[ScoreGroups | None]:
            first = lexical_filler(self.ws, self.asked, index) if index else None
            if own.index:
                return [first, index_filler(self.ws, self.asked, own.index, model)]
            return [first, vector_filler(self.ws, self.shelf, self.asked, model)]

        needs = tuple(step for step in (vectors, index, own.index) if step)
        return fusion_step(
            self.ws, self.shelf, self.asked, (self.first, own.run), FUSION_DEPTH, f"{file}+fused", complete, needs
        )

    def _teacher(self, name: str) -> list[Engine]:
        """The teacher, and its bi-encoder members alone, as references."""
        faculty = Faculty(self.ws, self.shelf, name, whole=self.target.mode == "retrieve")
        mine, rows = self.ws.card.mine, []
        called = stem(name)
        if self.target.mode == "rerank":
            runs, depth, stage = (
                [self.first],
                self.target.rerank_depth,
                f"{self.first_name} top {self.target.rerank_depth}",
            )
        else:
            runs = mined_runs(self.ws, self.shelf, self.asked, self.target.depth)
            depth, stage = mine.depth, f"{' ∪ '.join(Path(index).stem for index in mine.indexes)} top {mine.depth}"
        candidates = candidates_step(self.ws, self.asked, runs, depth, name=f"{self.asked.name}-for-{called}")
        fused = teacher_step(self.ws, faculty, self.asked, candidates, f"teacher-{called}")
        for member in faculty.members:
            if member.card.name in faculty.graduates:
                continue  # it has its row as a student
            if member.card.kind == "bi_encoder" and len(faculty.members) > 1:
                model = scorer_model(member.card)
                rows.append(
                    self._bi_encoder(f"member {member.card.name}", "teacher", model, f"member-{member.card.name}", {})
                )
        return [*rows, Engine(f"teacher {called}", "teacher", stage, fused, ())]

    def _write(self, engines: Sequence[Engine], folder: Path) -> None:
        write_report(self._report(engines), folder)

    def _report(self, engines: Sequence[Engine]) -> Report:
        self._refuse_trained_queries()
        speeds = self._speeds(engines)
        unseen = self._unseen()
        every, runs = self._measured(engines, speeds, unseen)
        seeds: dict[str, list[Row]] = {}
        for row in every:
            seeds.setdefault(row.name, []).append(row)
        rows = [self._with_fidelity(average_rows(same) if len(same) > 1 else same[0], runs) for same in seeds.values()]
        main = self.target.measures[0]
        tested = (main, main + SUFFIX) if unseen else (main,)
        compared = tuple(asdict(found) for found in compare(every, self._pairs(rows), tested))
        queries, notes = len(rows[0].per_query[main]), self._notes(speeds, len(unseen))
        return Report(self.source.name, self.split, queries, tuple(rows), compared, tuple(notes))

    def _unseen(self) -> frozenset[str]:
        """The test queries whose relevant documents no training query was judged for, if there are some."""
        if not own_collection(self.ws.card, self.target):
            return frozenset()
        every = [each.of(stage) for each in self.lessons.values() for stage in each.student.stages if not stage.match]
        judged = [lesson for lesson in every if "train" in lesson.lane.sets]
        if not judged:
            return frozenset()
        real = {query.query_id for query in self.ws.source().queries("train")}
        positives: set[str] = set()
        for training in {lesson.queries.folder: read_training(lesson.queries) for lesson in judged}.values():
            learned = real - training.dev
            positives |= {j.doc_id for j in training.judgements if j.grade > 0 and j.query_id in learned}
        found = unseen_queries(self.source.judgements(self.target.split), positives)
        return found if len(found) >= FEWEST else frozenset()

    def _measured(
        self, engines: Sequence[Engine], speeds: dict[str, dict[str, float]], unseen: frozenset[str]
    ) -> tuple[list[Row], dict[str, Run]]:
        """One row for each engine and seed, and a run for each name. A student's model card gets its figures."""
        judgements = list(self.source.judgements(self.target.split))
        queries = self.asked.read()
        rows: list[Row] = []
        runs: dict[str, Run] = {}
        steps = {engine.name: engine.run for engine in engines}
        for engine in engines:
            run = read_run(engine.run)
            runs.setdefault(engine.name, run)
            found = add_unseen(measure(run, judgements, self.target.measures), self.target.measures[0], unseen)
            spent = [artifacts.read(step.folder, "run").counts.get("latency_ms") for step in engine.latency_of]
            total = None if not spent or None in spent else float(sum(filter(None, spent)))
            extra = {**engine.extra, **speeds.get(engine.name, {})}
            if engine.index:
                extra["index_bytes"] = artifacts.read(engine.index.folder, "index").counts["bytes"]
            extra |= self.deployed.churn(run, queries, lambda name: read_run(steps[name]))
            rows.append(Row(engine.name, engine.kind, engine.first_stage, found.means, found.per_query, total, extra))
            if engine.student:
                title, count = f"{self.source.name} {self.target.split}", len(run.query_ids)
                add_measured(engine.student, title, found.means, count, f"first stage: {engine.first_stage}")
        return rows, runs

    def _with_fidelity(self, row: Row, runs: dict[str, Run]) -> Row:
        """The row with how much of its teacher's order it kept."""
        teacher = row.extra.get("teacher")
        if row.kind not in ("student", "control") or teacher not in runs:
            return row
        kept = fidelity(runs[row.name], runs[teacher])
        figures = {"tau": kept.tau, "top1": kept.top1, "overlap@10": kept.overlap}
        return replace(row, extra={**row.extra, "fidelity": figures})

    def _pairs(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Which rows are compared: a student with its controls, itself before, the first stage; fusions alike."""
        names = {row.name for row in rows}
        pairs = list(self.target.compare)
        for name in self.ws.card.students:
            others = sorted(row.name for row in rows if row.name.startswith(f"{name} ") and row.kind != VARIANT)
            others.sort(key=lambda other: other != f"{name} {CONTROL}")  # the first one is what a report marks against
            for prefix in ("", f"{self.first_name} + "):
                pairs += [(prefix + name, prefix + other) for other in others if prefix + other in names]
            pairs += [(name, self.first_name), (f"{self.first_name} + {name}", self.first_name)]
        return list(dict.fromkeys(pairs))

    def _speeds(self, engines: Sequence[Engine]) -> dict[str, dict[str, float]]:
        """Parameters of the students, and their encoding speed next to the teacher's, on the same texts in one run."""
        found: dict[str, dict[str, float]] = {}
        slow = next((e.model for e in engines if e.kind == "teacher" and e.model), None)
        several = any(engine.kind == VARIANT for engine in engines)
        ids = list(self.source.doc_ids())
        step = max(1, len(ids) // SPEED_TEXTS)
        texts = self.source.texts(ids[::step][:SPEED_TEXTS], self.shelf.view)
        for engine in engines:
            if engine.model is None or engine.name in found or engine.kind not in ENCODERS:
                continue
            encoder = engine.model.open(self.ws)
            found[engine.name] = {"parameters": parameters(encoder.model)}
            if several and engine.index is None:
                found[engine.name]["vector_bytes"] = engine.model.vector_bytes(encoder.dimension)
            timed = engine.kind != "student_before" and engine.model.docs is None and engine.model.narrow is None
            if slow is not None and timed:
                reference = slow.open(self.ws)
                speed = throughput(encoder, reference, texts, rounds=3)
                found[engine.name] |= {"docs_per_s": round(speed.a, 1), "speed_vs_teacher": round(speed.ratio, 2)}
        return found

    def _notes(self, speeds: dict[str, dict[str, float]], unseen: int) -> list[str]:
        lines = [*opening(self.target), *relabelled_notes(self.lessons)]
        lines += [
            f"{name} encodes documents {speed['speed_vs_teacher']} times as fast as the teacher's encoder "
            "(the same texts, in turn, in the same run)."
            for name, speed in speeds.items()
            if "speed_vs_teacher" in speed
        ]
        unlabelled = {"titles", "sentences"}
        students = self.ws.card.students.values()
        reads = any(unlabelled & set(card.queries) or any(stage.match for stage in card.stages) for card in students)
        if reads and own_collection(self.ws.card, self.target):
            lines.append("Transductive: the documents took part in training, the test queries and judgements did not.")
        if unseen:
            lines.append(
                f"{self.target.measures[0]}{SUFFIX}: over the {unseen} queries none of whose relevant documents is "
                "relevant to a training query; on the others, labels may be remembered by document."
            )
        if any(card.refine for card in students) and self.target.mode == "retrieve":
            lines.append(REFINED_NOTE)
        lines += self.deployed.notes
        seeds = len(self.ws.card.seeds)
        lines.append(f"{seeds} seed{'s' if seeds > 1 else ''}; a trained row is the mean over them.")
        return lines

    def _refuse_trained_queries(self) -> None:
        """The last guard: a test query that was trained on is an error, not a number."""
        if not own_collection(self.ws.card, self.target):
            return
        test = {query.query_id for query in self.asked.read()}
        for lesson in self.lessons.values():
            training = read_training(lesson.queries)
            leaked = sorted(test & {query.query_id for query in training.queries})
            if leaked:
                raise DataError(
                    f"{len(leaked)} test queries were trained on (e.g. {leaked[0]!r})",
                    where=f"lane {lesson.lane.name}",
                    fix="take them out of the training judgements and train again",
                )


def slug(name: str) -> str:
    """A collection's name as part of a folder's."""
    return re.sub(r"[^A-Za-z0-9]+", "-", Path(name).name if Path(name).exists() else name).strip("-")
