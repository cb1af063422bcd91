"""What one student learns from: the lane of its queries, its teacher's scores as examples, a teacher's vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rerankdistill import artifacts
from rerankdistill.errors import RerankDistillWarning
from rerankdistill.examples.build import build_examples, fitted_of
from rerankdistill.examples.pick import pick
from rerankdistill.examples.relabel import relabelling
from rerankdistill.examples.rescale import sharpness
from rerankdistill.examples.shuffle import shuffled as shuffled_examples
from rerankdistill.examples.shuffle import shuffled_matrix
from rerankdistill.examples.table import Examples, open_examples, save
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import MatchText, StageCard, StudentCard
from rerankdistill.pipeline.chain import cast, heard
from rerankdistill.pipeline.dev import DevRanking
from rerankdistill.pipeline.inside import inner_data, inside_marks, layer_lessons
from rerankdistill.pipeline.lanes import Training, lane_of, queries_step, read_training, sentences
from rerankdistill.pipeline.matching import matched_models, targets
from rerankdistill.pipeline.mining import (
    Asked,
    Shelf,
    candidates_step,
    given_run_step,
    is_dense,
    read_candidates,
    run_step,
)
from rerankdistill.pipeline.rounds import Round, remined_step
from rerankdistill.pipeline.signals import Source, Told, sources
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty, fused_as, scorer_model
from rerankdistill.pipeline.vectors import Model, Texts, by_id, vectors_step
from rerankdistill.pipeline.workspace import Workspace, kind_options, mark_of
from rerankdistill.students.data import Lists, Representations, StageData
from rerankdistill.types import Example, FloatArray, Judgement, Query, Scale

DEV_DEPTH = 20
"""Candidates of a dev query that are re-ranked, the judged ones among them: enough to choose by, cheap to encode."""


class Lessons:
    """All that is prepared for one student, as steps, and as data once those have run.

    Args:
        seed: of the students that teach it; None: the pipeline's first.
    """

    def __init__(self, ws: Workspace, name: str, student: StudentCard, seed: int | None = None) -> None:
        self.ws, self.name, self.student = ws, name, student
        self.seed = ws.card.seeds[0] if seed is None else seed
        self.round: Round | None = None
        """Who mined the candidates anew, where somebody did, and ``first``, the lessons on those before."""
        self.first: Lessons | None = None
        self._others: dict[Any, Lessons] = {}
        self.lane = lane_of(ws, student)
        self.shelf = Shelf(ws.source(), self.lane.view)
        self.queries = queries_step(ws, self.lane)

    def of(self, stage: StageCard) -> Lessons:
        """The lessons of a stage, which may ask other queries than the student's own."""
        if not stage.queries and stage.view is None:
            return self
        return self._changed(queries=stage.queries or self.student.queries, view=stage.view or self.lane.view)

    def _changed(self, seed: int | None = None, **changes: Any) -> Lessons:
        """The same lessons but for some of the student's fields, or the seed; one object for the same changes."""
        key = (seed, *sorted(changes.items()))
        if key not in self._others:
            card = self.student.model_copy(update=changes)
            self._others[key] = Lessons(self.ws, self.name, card, self.seed if seed is None else seed)
        return self._others[key]

    def at(self, seed: int) -> Lessons:
        """The lessons of one seed: they differ where students teach, each of which was trained with it."""
        return self if seed == self.seed or not heard(self.ws.card, self.student) else self._changed(seed)

    @property
    def label(self) -> str:
        """What tells these lessons from those of another student or seed, in the name of a folder."""
        return self.name if self.seed == self.ws.card.seeds[0] else f"{self.name}-seed{self.seed}"

    @property
    def as_labelled(self) -> Lessons:
        """The same lessons without what a teacher made of the labels."""
        return self if self.student.relabel == "none" else self._changed(relabel="none")

    def remined(self, how: Round) -> Lessons:
        """The same lessons on candidates that a student mined anew."""
        lessons = Lessons(self.ws, self.name, self.student, self.seed)
        lessons.round, lessons.first = how, self
        return lessons

    @cached_property
    def asked(self) -> Asked:
        return Asked(
            self.lane.name, self.queries.fingerprint, lambda: read_training(self.queries).queries, (self.queries,)
        )

    @cached_property
    def faculty(self) -> Faculty:
        return Faculty(self.ws, self.shelf, self.student.teacher or self.ws.card.teacher, seed=self.seed)

    @property
    def scale(self) -> Scale:
        return self.faculty.scale

    @cached_property
    def docs_model(self) -> Model | None:
        """Who reads the documents of a student that learns to read queries alone; a member of its teacher where that is
        the same model, so that documents are encoded once. None for a student that reads both."""
        kind = open_kind("students", self.student.kind)
        if not hasattr(kind, "docs_reference"):
            return None
        options = kind_options("students", self.student.kind, self.student.options, f"students.{self.name}.options")
        reference, revision = kind.docs_reference(options)
        content = mark_of(reference, revision)
        for card in (member.card for member in self.faculty.members if member.card.name not in self.faculty.graduates):
            if card.kind == "bi_encoder" and mark_of(card.model, card.pinned_revision) == content:
                model = scorer_model(card)
                if model.doc_tokens == options.doc_tokens:
                    return model
        mark = artifacts.fingerprint("docs", content, options.doc_tokens)
        lengths = options.doc_tokens, options.doc_tokens  # it reads no queries
        return Model(f"docs-{mark[:8]}", reference, mark, *lengths, revision=revision)

    @property
    def doc_vectors(self) -> tuple[Step, ...]:
        """The step that encodes the documents for such a student; nothing for any other."""
        if self.docs_model is None:
            return ()
        return (vectors_step(self.ws, self.docs_model, self.shelf.docs),)

    def known_documents(self) -> Callable[[Sequence[str]], FloatArray] | None:
        """Vectors of documents by id for such a student; None for any other."""
        return next((by_id(step) for step in self.doc_vectors), None)

    @cached_property
    def candidates(self) -> Step:
        """The step that merges what the mining indexes find, or what a student does; judged documents are added."""

        def judged() -> Sequence[Judgement]:
            return read_training(self.queries).judgements

        if self.round and self.first:
            return remined_step(self.ws, self.shelf, self.asked, self.round, self.first.candidates, judged)
        mine = self.ws.card.mine
        runs = mined_runs(self.ws, self.shelf, self.asked, mine.depth)
        runs += [given_run_step(self.ws, self.shelf, name, "train", self.lane.name) for name in mine.runs]
        return candidates_step(self.ws, self.asked, runs, mine.depth, judged)

    @cached_property
    def scored(self) -> list[Step]:
        return self.faculty.scored_steps(self.asked, self.candidates)

    @cached_property
    def signals(self) -> list[Source]:
        """Where what the student learns from beside scores comes from."""
        told = Told(self.queries, self.candidates, self.scored)
        return sources(self.ws, self.shelf, self.name, self.student, self.faculty, self.asked, told)

    @cached_property
    def examples(self) -> Step:
        """The step that puts the members' scores, and what else they said, together into training examples."""
        how = fused_as(self.faculty.card)
        if self.student.pseudo_positive:
            how = how.model_copy(update={"pseudo_positive": "teacher"})
        if self.student.relabel != "none":
            how = how.model_copy(update={"relabel": self.student.relabel})
        more = self.signals
        needs = (self.queries, self.candidates, *self.scored, *(step for source in more for step in source.needs))
        inputs = {step.name: step.fingerprint for step in needs}
        if more:
            inputs["signals"] = artifacts.fingerprint([source.what for source in more])
        manifest = artifacts.plan("examples", 1, how.model_dump(mode="json"), inputs)
        teacher = "+".join((self.faculty.label, *(source.label for source in more)))
        teacher += "-relabelled" if self.student.relabel != "none" else ""
        teacher += f"-{self.round.label}" if self.round else ""
        place = self.ws.root / "examples" / f"{self.lane.name}-{teacher}"
        step = Step(f"examples {self.lane.name} · {teacher}", place, manifest, needs)

        def run(folder: Path) -> None:
            training = read_training(self.queries)
            raw = self.faculty.raw(self.asked, self.candidates, self.scored)
            scales = [member.card.scale for member in self.faculty.members]
            lists = read_candidates(self.candidates)
            presumed = self._presumed(training)
            judged, dev = training.judgements, training.dev
            table = build_examples(training.queries, lists, raw, scales, judged, how, dev, presumed)
            for source in more:
                table = source.add(table)
            save(folder, table)
            about = sharpness((np.asarray(row) for row in table.column("scores").to_pylist()), 1.0)
            manifest.counts = {"examples": table.num_rows, **about, **fitted_of(table)}
            if how.relabel != "none":
                self.ws.notes.say(f"{step.name}: {relabelling(fitted_of(table))}")

        step.run = run
        return step

    def _presumed(self, training: Training) -> frozenset[str]:
        """The queries whose positives nobody judged."""
        every = frozenset(query.query_id for query in training.queries)
        judged = "train" in self.lane.sets
        return every - {query.query_id for query in self.ws.source().queries("train")} if judged else every

    def material(self, stage: StageCard) -> tuple[Step, ...]:
        """The steps whose products a stage learns from."""
        if not stage.match:
            return (self.examples,)
        if stage.level != "text":
            return tuple(step for name in stage.texts for step in self._part(name).needs)
        models = matched_models(stage, self.name)
        return tuple(vectors_step(self.ws, model, self._part(name)) for model in models for name in stage.texts)

    def mark(self, stage: StageCard) -> str:
        """What decides what a stage learns from."""
        inside = inside_marks(stage, [self._part(name) for name in stage.texts], self.name)
        return artifacts.fingerprint([*(step.fingerprint for step in self.material(stage)), *inside])

    def _part(self, name: MatchText) -> Texts:
        source = self.shelf.source
        if name == "docs":
            return self.shelf.docs
        if name == "queries":
            return Texts(
                f"queries-{self.lane.name}",
                self.queries.fingerprint,
                lambda: len(self._training_queries()),
                lambda: ((query.query_id, query.text) for query in self._training_queries()),
                needs=(self.queries,),
            )

        def read() -> Iterator[tuple[str, str]]:
            for doc in source.docs():
                found = [doc.title] if name == "titles" else sentences(doc.text)
                yield from ((f"{doc.doc_id}#{at}", text) for at, text in enumerate(found) if text)

        return Texts(name, artifacts.fingerprint(name, source.docs_fingerprint()), lambda: sum(1 for _ in read()), read)

    def _training_queries(self) -> list[Query]:
        training = read_training(self.queries)
        return [query for query in training.queries if query.query_id not in training.dev]

    def data(self, stage: StageCard, shuffled: bool, seed: int, layout: str) -> StageData:
        """What a stage learns from, opened."""
        if stage.match and stage.level != "text":
            parts_of = [self._part(name) for name in stage.texts]
            return inner_data(stage, self.student, parts_of, seed if shuffled else None)
        if stage.match:
            texts = [text for name in stage.texts for _, text in self._part(name).read()]
            order = np.random.default_rng(seed).permutation(len(texts)) if shuffled else None
            theirs = targets(stage, self.material(stage), order)
            return Representations(texts, theirs, queue=stage.queue, seed=seed)
        learned, _ = self._split()
        lists: Sequence[Example] = shuffled_examples(learned, seed) if shuffled else learned

        def cut(example: Example, epoch: int) -> Example:
            return pick(example, stage.list_size, stage.pick, seed, epoch)

        live = self._live(shuffled, seed) if stage.live and layout == "batch" and self.faculty.live else None
        inside = layer_lessons(self.ws, stage, shuffled, seed)
        shape: Literal["batch", "lists"] = "batch" if layout == "batch" else "lists"
        return Lists(lists, cut, self._read, shape, live, inside, stage.hide_positive)

    def _live(self, shuffled: bool, seed: int) -> Callable[[Sequence[Example], Sequence[str]], FloatArray]:
        """The teacher's scores of every query of a batch against every document of it."""
        spread = {example.query_id: (example.means, example.stds) for example in self._split()[0]}

        def score(examples: Sequence[Example], doc_ids: Sequence[str]) -> FloatArray:
            queries = [Query(example.query_id, example.query) for example in examples]
            means, stds = zip(*(spread[query.query_id] for query in queries), strict=True)
            matrix = self.faculty.matrix(queries, doc_ids, means, stds)
            return shuffled_matrix(matrix, [query.query_id for query in queries], seed) if shuffled else matrix

        return score

    def dev(self) -> DevRanking | None:
        """The dev queries with fixed candidates; None where the lane has none."""
        training, (_, held) = read_training(self.queries), self._split()
        if not held:
            if training.judgements:  # a lane without any label cannot have one
                what = f"lane {self.lane.name} has no dev query: nothing chooses the best step"
                warnings.warn(what, RerankDistillWarning, 2)
            return None
        lists = [self._shallow(example) for example in held]
        judgements = [judgement for judgement in training.judgements if judgement.query_id in training.dev]
        return DevRanking(lists, judgements, self._read, self.known_documents())

    def _shallow(self, example: Example) -> Example:
        judged = [doc for doc, label in zip(example.doc_ids, example.labels, strict=True) if label > 0]
        others = [doc for doc in example.doc_ids if doc not in judged]
        doc_ids = tuple([*judged, *others][:DEV_DEPTH])
        empty = np.zeros(len(doc_ids), np.float32)
        return Example(example.query_id, example.query, doc_ids, empty, empty, -1)

    def _split(self) -> tuple[list[Example], list[Example]]:
        """The examples to learn from, and those of dev."""
        if not hasattr(self, "_divided"):
            dev, every = read_training(self.queries).dev, open_examples(self.examples.require())
            self._divided = _divide(every, dev)
        return self._divided

    def _read(self, doc_ids: Sequence[str]) -> list[str]:
        return self.shelf.source.texts(doc_ids, self.shelf.view)


def _divide(examples: Examples, dev: frozenset[str]) -> tuple[list[Example], list[Example]]:
    learned: list[Example] = []
    held: list[Example] = []
    for example in examples:
        (held if example.query_id in dev else learned).append(example)
    return learned, held


def mined_runs(ws: Workspace, shelf: Shelf, asked: Asked, depth: int) -> list[Step]:
    """The steps that search each of the pipeline's mining indexes."""
    indexes = ws.card.mine.indexes
    model = mining_model(ws) if any(map(is_dense, indexes)) else None
    return [run_step(ws, shelf, name, asked, depth, model if is_dense(name) else None) for name in indexes]


def mining_model(ws: Workspace) -> Model:
    """The bi-encoder whose vectors fill the mining indexes: the one that the pipeline names, else the first
    bi-encoder among the students' teachers. One for all students: what is mined is theirs together."""
    if ws.card.mine.encoder:
        name = ws.card.mine.encoder
        return Model("miner", name, artifacts.fingerprint(mark_of(name), 64, 256), 64, 256)
    for teacher in dict.fromkeys(card.teacher or ws.card.teacher for card in ws.card.students.values()):
        who = cast(ws.card, teacher)
        for card in (member.card for member in who.members if member.card.name not in who.students):
            if card.kind == "bi_encoder":
                return scorer_model(card)
    student = next(iter(ws.card.students.values()))
    init = str(student.options.get("init", ""))
    return Model("before", init, artifacts.fingerprint(mark_of(init), 64, 256), 64, 256)
