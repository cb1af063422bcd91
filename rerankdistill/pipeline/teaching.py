"""A teacher over a collection: its members opened with what they need, their scores stored, and fused when asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.errors import CardError, RerankDistillError, UsageError
from rerankdistill.examples.build import ExampleOptions, converted, example_scale, numbers
from rerankdistill.examples.ensemble import apply, fuse
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.chain import Graduate, cast, stem
from rerankdistill.pipeline.mining import Asked, Shelf, index_step, read_candidates
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model, read_vectors, vectors_step
from rerankdistill.pipeline.workspace import Workspace, mark_of
from rerankdistill.scores.card import (
    ABOUT_EXAMPLES,
    Context,
    EnsembleCard,
    Placed,
    ScorerCard,
    TeacherCard,
)
from rerankdistill.scores.score import estimate, score
from rerankdistill.scores.store import open_store, read_store, store_folder
from rerankdistill.types import FloatArray, Group, Query, Scale

PLAIN_MODELS = {"bi_encoder", "cross_encoder", "late_interaction", "seq2seq"}
"""Kinds that are decided by their card and their model's weights; of any other, its own fingerprint tells."""


@dataclass(frozen=True)
class Member:
    """One scorer of a teacher, over one collection and view: its card, what decides its scores, what it needs first.

    Attributes:
        base: where relative paths of the card start.
        inner: the scorer behind one that only stands before it.
    """

    card: ScorerCard
    mark: str
    needs: tuple[Step, ...]
    base: Path = Path()
    inner: Member | None = None


def fused_as(card: TeacherCard) -> ExampleOptions:
    """How the members of a teacher are put together, and what is made of it."""
    how = ExampleOptions(
        combine="raw", rank_to_score=card.rank_to_score, calibrate=card.calibrate, percentiles=card.percentiles
    )
    if isinstance(card, EnsembleCard):
        about = {"combine": card.combine, "weights": card.weights or None, "weights_by": card.weights_by}
        return how.model_copy(update=about)
    return how


class Faculty:
    """A teacher's members over one collection and view.

    Args:
        whole: a bi-encoder member encodes the whole collection first, and then scores any pair for nothing; without,
            it encodes the candidates it is asked about.
        seed: of the students that teach; None: the pipeline's first.
    """

    def __init__(self, ws: Workspace, shelf: Shelf, name: str, whole: bool = True, seed: int | None = None) -> None:
        self.ws, self.shelf, self.name, self.whole = ws, shelf, name, whole
        self.seed = seed = ws.card.seeds[0] if seed is None else seed
        who = cast(ws.card, name, seed)
        self.card = who.card
        self.graduates = {each: self._graduate(student, seed) for each, student in who.students.items()}
        """The students among the members, by the names of their cards."""
        self.label = stem(name) + (f"-seed{seed}" if who.students else "")
        """What the teacher is called in the names of files and steps."""
        view = {"view": shelf.view}
        self.members = [self._member(card.model_copy(update=view), base) for card, base in who.members]
        self._opened: dict[str, Any] = {}

    def _graduate(self, name: str, seed: int) -> Graduate:
        if self.ws.school is None:
            raise CardError("a student teaches within its own pipeline", where=f"teacher student:{name}")
        return self.ws.school.graduate(name, seed)

    def _member(self, card: ScorerCard, base: Path) -> Member:
        nothing = {"name", "description", "licence", "measured", *ABOUT_EXAMPLES}
        about = card.model_dump(mode="json", exclude=nothing)
        if graduate := self.graduates.get(card.name):
            mark = artifacts.fingerprint("graduate", about, graduate.step.fingerprint)  # its folder decides nothing
            card = card.model_copy(update={"model": str(graduate.step.folder)})
            encodes = card.kind == "bi_encoder" and self.whole
            return Member(card, mark, (self._vectors(card) if encodes else graduate.step,), base)
        if card.kind == "lexical":
            step = index_step(self.ws, self.shelf, "bm25")
            return Member(card, artifacts.fingerprint(about, step.fingerprint), (step,), base)
        if behind := self._behind(card, base):
            placed, mark = behind
            inner = self._member(placed.card, placed.base)
            return Member(card, artifacts.fingerprint(about, inner.mark, mark), inner.needs, base, inner)
        mark = artifacts.fingerprint(about, self._content(card, base))
        if card.kind == "bi_encoder" and self.whole:
            return Member(card, mark, (self._vectors(card),), base)
        return Member(card, mark, (), base)

    def _behind(self, card: ScorerCard, base: Path) -> tuple[Placed, str] | None:
        """The scorer behind one that only stands before it, and a mark of what that one adds."""
        if card.model:
            return None
        wraps = getattr(open_kind("scores", card.kind), "wraps", None)
        return wraps(card, Context(self.ws.card.device, base)) if wraps else None

    def _content(self, card: ScorerCard, base: Path) -> str:
        """What decides a scorer beside its card: the model's weights, the file that it reads, the question it asks."""
        if card.kind in PLAIN_MODELS:
            return mark_of(card.model, card.pinned_revision)
        opened = open_kind("scores", card.kind).open(card, Context(self.ws.card.device, base))
        return str(opened.fingerprint)

    def model(self, card: ScorerCard) -> Model:
        """A bi-encoder among the members as a model that steps encode with."""
        graduate = self.graduates.get(card.name)
        return graduate.model if graduate and graduate.model else scorer_model(card)

    def _vectors(self, card: ScorerCard) -> Step:
        return vectors_step(self.ws, self.model(card), self.shelf.docs)

    def open(self, member: Member) -> Any:
        """The member, ready to judge."""
        if member.mark not in self._opened:
            kind = open_kind("scores", member.card.kind)
            self._opened[member.mark] = kind.open(member.card, self._context(member))
        return self._opened[member.mark]

    def _context(self, member: Member) -> Context:
        """What the member's kind may need."""
        context, inner = Context(self.ws.card.device, member.base), member.inner
        if inner is not None:
            return replace(context, open_card=lambda _: self.open(inner))
        if member.card.kind == "lexical":
            folder = member.needs[0].require()
            index: Any = open_index(folder, open_kind("index", "bm25"))
            return replace(context, lexical=lambda: (index.lexical, index.ids.names))
        if member.card.kind == "late_interaction":
            return replace(context, texts=lambda ids: self.shelf.source.texts(ids, self.shelf.view))
        if member.card.kind == "bi_encoder" and self.whole:
            return replace(context, doc_vectors=read_vectors(member.needs[0]))
        return context

    @property
    def scale(self) -> Scale:
        """Of what the examples are given. Raises ScaleError where the card asks for what cannot be."""
        return example_scale([member.card.scale for member in self.members], fused_as(self.card))

    def scored_steps(self, asked: Asked, candidates: Step) -> list[Step]:
        """For each member the step that has scored all of these candidates."""
        return [self._scored(member, asked, candidates) for member in self.members]

    def _scored(self, member: Member, asked: Asked, candidates: Step) -> Step:
        inputs = {"teacher": member.mark, "candidates": candidates.fingerprint}
        manifest = artifacts.plan("scored", 1, {"view": self.shelf.view.value}, inputs)
        place = self.ws.root / "scored" / f"{member.card.name}-{self.shelf.place(candidates.folder.name)}"
        needs = (*member.needs, candidates)
        step = Step(f"scores {member.card.name} · {candidates.folder.name}", place, manifest, needs)
        step.run = lambda folder: self._score(member, asked, candidates, folder, step)
        step.estimate = lambda: self._estimate(member, asked, candidates)
        step.lost = lambda: None if self._store(member, step).is_dir() else "its scores are gone"
        return step

    def _score(self, member: Member, asked: Asked, candidates: Step, folder: Path, step: Step) -> None:
        teacher = self.open(member)
        if hasattr(teacher, "check"):
            teacher.check(list(asked.read()))
        total = sum(len(doc_ids) for doc_ids in read_candidates(candidates).values())
        with (
            open_store(
                self.ws.root / "scores", member.card.name, teacher, card=member.card.model_dump(mode="json")
            ) as store,
            self.ws.notes.bar(f"{member.card.name} scores", total) as advance,
        ):
            groups = self.groups(asked.read(), read_candidates(candidates), teacher.needs_texts)
            counts = score(store, teacher, groups, _Bar(advance), total=total)
        about = {"store": teacher.fingerprint}
        (folder / "store.json").write_text(json.dumps(about), "utf-8")
        step.manifest.counts = counts._asdict()

    def _store(self, member: Member, step: Step) -> Path:
        """Where the scores are that a step has seen to."""
        mark = json.loads((step.folder / "store.json").read_text("utf-8"))["store"]
        return store_folder(self.ws.root / "scores", member.card.name, mark)

    def _open_store(self, member: Member, step: Step) -> Any:
        step.require()
        return read_store(self._store(member, step))

    def stores(self, scored: Sequence[Step]) -> list[Any]:
        """Each member's store, by the steps of :meth:`scored_steps`; no model is opened for it."""
        return [self._open_store(member, step) for member, step in zip(self.members, scored, strict=True)]

    def _estimate(self, member: Member, asked: Asked, candidates: Step) -> float | None:
        """Seconds for the pairs that no store has, where the candidates are known and the teacher has been timed."""
        if any(step.reason() for step in member.needs):
            return None  # what it is made of is not there yet, or another one is
        try:
            teacher = self.open(member)
            store = read_store(store_folder(self.ws.root / "scores", member.card.name, teacher.fingerprint))
            groups = self.groups(asked.read(), read_candidates(candidates), teacher.needs_texts)
            return estimate(store, store.count_missing(groups))
        except RerankDistillError:
            return None  # nothing to estimate from yet

    def groups(self, queries: Sequence[Query], candidates: dict[str, list[str]], texts: bool) -> Iterator[Group]:
        """Each query with its candidates; with texts where the teacher reads them."""
        for query in queries:
            doc_ids = candidates.get(query.query_id, [])
            if doc_ids:
                read = self.shelf.source.texts(doc_ids, self.shelf.view) if texts else [""] * len(doc_ids)
                yield Group(query, tuple(doc_ids), tuple(read))

    def raw(self, asked: Asked, candidates: Step, scored: Sequence[Step]) -> list[dict[str, FloatArray]]:
        """For each member ``{query_id: [n] raw scores}`` over the candidates."""
        lists, queries = read_candidates(candidates), list(asked.read())
        found = []
        for member, step in zip(self.members, scored, strict=True):
            store = self._open_store(member, step)
            groups = list(self.groups(queries, lists, store.needs_texts))
            rows = store.lookup(groups)
            found.append({group.query.query_id: row for group, row in zip(groups, rows, strict=True)})
        return found

    def fused(self, raw: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
        """The teacher's final score of every candidate, before calibration, which changes no order. No label is looked
        at: members that are weighted by agreement with labels have their card's weights here."""
        how, scales = fused_as(self.card), [member.card.scale for member in self.members]
        known = [converted(scale, how) for scale in scales]
        return {
            query_id: fuse(
                numbers([rows[query_id] for rows in raw], scales, how), how.combine, how.weights, known, how.missing
            ).scores
            for query_id in raw[0]
        }

    @property
    def live(self) -> bool:
        """Whether every member can score a whole batch."""
        kinds, how = {"lexical", "bi_encoder", "late_interaction"}, fused_as(self.card)
        if how.combine == "rrf" or how.weights_by == "agreement" or how.calibrate == "percentile":
            return False  # these look at a query's own list, and say nothing of a document outside it
        return self.whole and all(member.card.kind in kinds for member in self.members)

    def matrix(
        self, queries: Sequence[Query], doc_ids: Sequence[str], means: Sequence[Any], stds: Sequence[Any]
    ) -> FloatArray:
        """``[b, m]`` on the scale of the examples, by each query's own means and deviations ``[b][members]``."""
        how = fused_as(self.card)
        raw = [self.open(member).matrix(queries, doc_ids) for member in self.members]
        return apply(raw, means, stds, how.weights, how.combine, how.missing)


def scorer_model(card: ScorerCard) -> Model:
    """A bi-encoder teacher as a model that steps encode with."""
    if not card.model:
        raise UsageError("this teacher has no model", where=card.name)
    mark = artifacts.fingerprint(mark_of(card.model, card.pinned_revision), card.lengths.query, card.lengths.doc)
    lengths = card.lengths.query or 64, card.lengths.doc or 256
    return Model(card.name, card.model, mark, *lengths, revision=card.pinned_revision)


class _Bar:
    """The store's progress on a walk's bar."""

    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def start(self, total: int | None) -> None: ...

    def advance(self, pairs: int, seconds_left: float | None) -> None:  # noqa: ARG002
        self._advance(pairs)
