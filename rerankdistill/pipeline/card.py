"""A pipeline file: all that the way from a collection to a report needs to know, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomlkit
from pydantic import Field, field_validator, model_validator

from rerankdistill import cards
from rerankdistill.cards import Card
from rerankdistill.errors import UsageError
from rerankdistill.losses.combine import Pace
from rerankdistill.pipeline.expect import read
from rerankdistill.students.train import StageOptions
from rerankdistill.types import View

QuerySet = Literal["train", "asked", "titles", "sentences"]
"""``train``: the collection's judged training queries. ``asked``: the same queries without their judgements, as a log
of queries would give them. ``titles``: every document's title, its document the pseudo positive. ``sentences``: one
sentence of each document, likewise. The last three need no labels."""

MatchText = Literal["docs", "titles", "sentences", "queries"]


class MineCard(Card):
    """How candidates are found."""

    indexes: tuple[str, ...] = ("bm25", "flat")
    """Cards of ``indexes/``; those that hold vectors are filled by :attr:`encoder`."""
    runs: tuple[str, ...] = ()
    """Candidate lists that come with the collection, by name, used as well."""
    encoder: str = ""
    """Model of the dense indexes; empty: the teacher's bi-encoder member, or the first student's ``init``."""
    depth: int = Field(default=50, gt=0)


class StageCard(Card):
    """One stage of training a student: on ranked lists, or (with ``match``) on a teacher's vectors."""

    loss: str = "kl_div"
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of each loss by its name. A number may change in the course of the stage: ``{ from = 2.0, to = 0.5 }``,
    with ``shape = "linear"`` or ``"cosine"``."""
    paced: Pace | None = None
    """Let each query count p^a (1 - p)^b, p being how well the student orders its list already; see
    :mod:`rerankdistill.losses.paced`. ``{}``: a = b = 1. None: all count alike."""
    match: str | tuple[str, ...] = ""
    """Card of a bi-encoder teacher whose vectors are matched; the loss must be one on vectors. Several cards: their
    vectors, each normalised, are put side by side."""
    project: Literal["auto"] | bool | Annotated[int, Field(gt=1)] = "auto"
    """What the student's vectors go through before they are matched: ``true``: a learned linear layer to the teacher's
    dimension; ``auto``: the same, where the dimensions differ and the loss cannot do with that; a number: to so many
    dimensions, for losses on relations."""
    keep_projection: bool = False
    """The student keeps that layer, and has its dimensions from then on; else it is gone after the stage."""
    project_only: bool = False
    """In this stage that layer alone learns."""
    queue: int = Field(default=0, ge=0)
    """So many texts met before are others that the loss ``contrastive_kd`` holds a text against, by their teacher's
    vectors; 0: those of the step alone."""
    texts: tuple[MatchText, ...] = ("docs",)
    """What is encoded for ``match``; what is named twice is met twice as often."""
    level: Literal["text", "hidden", "relations", "attention"] = "text"
    """What is matched of the model named by ``match``. ``text``: vectors of whole texts. ``hidden``: of every token,
    layer by layer, by a loss on vectors. ``relations``: how alike tokens are in the last layer's attention,
    ``attention``: how much they attend to each other in every layer, both by a loss on lists. All but the first are for
    a student whose vocabulary is that model's; see :mod:`rerankdistill.students.layerwise`."""
    layers_from: str = ""
    """Card of a bi-encoder teacher whose layers' scores the loss ``layer_alignment`` follows."""
    layer_pairs: int = Field(default=3, ge=1)
    """So many layers of either model are drawn for each step."""
    queries: tuple[QuerySet, ...] = ()
    """Training queries of this stage; empty: the student's."""
    view: View | None = None
    """What is read of a document in this stage; None: as the student's other stages."""
    tokens: int = Field(default=0, ge=0)
    """In this stage the student reads so many tokens of a document (a cross-encoder: of a pair) at most; 0: its own
    limit. Learning from the beginnings of documents is cheaper, and what is learned holds for the rest."""
    list_size: int = Field(default=8, gt=1)
    pick: Literal["top", "random", "log_random", "top_and_random", "bottom", "single_relevant", "all_relevant"] = (
        "top_and_random"
    )
    hide_positive: bool = False
    """Losses that follow the teacher do not see what it says of a query's positive. A query that was written from a
    document finds it by the words that both share: who learns from that learns to copy, and the other documents tell
    what is worth knowing. Losses on labels see the positive as ever."""
    live: bool = True
    """Let the teacher score every document of the batch for every query, where it can."""
    remine: bool = False
    """Look for candidates anew before this stage, with the student as the stage before left it; see
    :mod:`rerankdistill.pipeline.rounds`."""
    remine_depth: int = Field(default=0, ge=0)
    """So many documents a query; 0: as deep as the pipeline mines."""
    remine_keep: bool = True
    """Put what was found to the first candidates; False: in their place."""
    train: StageOptions = StageOptions()
    tune: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values to try on dev, e.g. ``{"learning_rate": [5e-5, 1e-4], "kl_div.tau_student": [0.02, 0.05]}``."""

    @property
    def matched(self) -> tuple[str, ...]:
        """The cards whose vectors are matched."""
        return tuple(filter(None, (self.match,) if isinstance(self.match, str) else self.match))

    @model_validator(mode="after")
    def _matching(self) -> Self:
        asked = {"queue": self.queue, "keep_projection": self.keep_projection, "project_only": self.project_only}
        for name, value in (asked | {"project": self.project not in ("auto", False)}).items():
            if value and (not self.match or self.level != "text"):
                raise ValueError(f"{name}: only a stage that matches vectors of whole texts has one")
        if (self.keep_projection or self.project_only) and self.project is False:
            raise ValueError("project = false: there is no projection to keep or to learn")
        if self.match and self.paced is not None:
            raise ValueError("paced: a stage that matches vectors has no queries that could be weighed")
        if len(self.matched) > 1 and self.level != "text":
            raise ValueError(f"match: level = {self.level!r} looks into one model")
        return self


class RefineRound(Card):
    """One descent of a query's vector towards a teacher's scores."""

    teacher: str = ""
    """Card of the teacher; empty: that of the whole refinement."""
    loss: str = "kl_div"
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    steps: int = Field(default=100, ge=0)
    learning_rate: float = Field(default=5e-3, gt=0)


class RefineCard(Card):
    """A teacher that reads the first documents of every test query, and moves the query's vector for a second search;
    see :mod:`rerankdistill.pipeline.refine`."""

    teacher: str = ""
    """Card of the teacher; empty: the student's."""
    depth: int = Field(default=100, gt=1)
    """So many documents it reads."""
    rounds: tuple[RefineRound, ...] = Field(default=(RefineRound(),), min_length=1)


class StudentCard(Card):
    """A student and what it is taught by."""

    kind: str = "bi_encoder"
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the kind: ``init``, ``layers``, lengths …"""
    queries: tuple[QuerySet, ...] = ("train",)
    max_queries: int = 0
    """Use at most so many training queries (a seeded sample); 0: all."""
    view: View | None = None
    """What teacher and student read of a document in training; None: the pipeline's."""
    teacher: str = ""
    """Card of its teacher; empty: the pipeline's. ``student:NAME``: another student of this pipeline, once it is
    trained; see :mod:`rerankdistill.pipeline.chain`."""
    preferences: str = ""
    """Card of a teacher that compares documents two by two, for losses on preferences; empty: its teacher, if it is
    one."""
    preference_depth: int = Field(default=10, gt=1)
    """So many candidates are compared, those that its teacher scores highest; comparisons grow with the square."""
    pseudo_positive: bool = False
    """Where nobody judged, call the teacher's first document the positive."""
    relabel: Literal["none", "teacher", "all"] = "none"
    """``teacher``: where a positive is only presumed (all query sets but ``train``), the teacher's first candidate
    takes its place; ``all``: also where it was judged. Not for the controls, which keep the labels as they are. Lee et
    al. 2024 (Gecko), arXiv:2403.20327."""
    stages: tuple[StageCard, ...] = (StageCard(),)
    control: tuple[StageCard, ...] | Literal["auto", "none"] = "auto"
    """The arm without a teacher. ``auto``: ``infonce`` on the labels of the same queries, in as many steps as all
    stages of the student take together."""
    warm_control: bool = True
    """Where a stage matches vectors, also train an arm that shares it and goes on with ``infonce``: what the scores
    add to the vectors."""
    extra_controls: dict[str, tuple[StageCard, ...]] = Field(default_factory=dict)
    shuffled: tuple[Literal["scores", "teacher"], ...] = ()
    """Also train arms that are taught nonsense, and must not do as well: ``scores`` shuffles the scores of each list;
    ``teacher`` does, and shuffles the vectors of matching stages among the texts as well."""
    rerank_depth: int = 100
    """Documents of the first stage that a re-ranker reads."""
    fuse_weight: Literal["dev"] | Annotated[float, Field(ge=0)] = 1.0
    """How much a re-ranker's z-scores count beside the first stage's in their fusion; ``dev``: as is best on the dev
    queries, see :mod:`rerankdistill.pipeline.weighing`."""
    measure_before: bool = True
    refine: RefineCard | None = None
    """Also measure a second search with queries that a teacher refined at test time, which costs its time."""

    @model_validator(mode="after")
    def _rounds(self) -> Self:
        own = self.control if isinstance(self.control, tuple) else ()
        for stages in (self.stages, own, *self.extra_controls.values()):
            if any(stage.remine and (stage.match or not at) for at, stage in enumerate(stages)):
                raise ValueError("remine: only a stage on ranked lists that comes after another one can mine anew")
        return self


class EvaluateCard(Card):
    """One collection and split to measure on."""

    collection: str = ""
    """Empty: the pipeline's own."""
    split: str = "test"
    splits: dict[str, str] = Field(default_factory=dict)
    first_stage: str = "bm25"
    """An index card, or a run that comes with the collection."""
    mode: Literal["retrieve", "rerank"] = "retrieve"
    """``retrieve``: bi-encoders search the whole collection. ``rerank``: they order the first stage's candidates."""
    depth: int = Field(default=1000, gt=0)
    rerank_depth: int = Field(default=100, gt=0)
    measures: tuple[str, ...] = ("ndcg@10", "mrr@10", "map", "recall@100")
    deployed: str = ""
    """A TREC run of what is in use today, or ``row:NAME``, a row of the report: every row tells how much of its top ten
    it would change (churn@10)."""
    evidence: str = ""
    """What kind of evidence the judgements are; the report says it first."""
    notes: tuple[str, ...] = ()
    """What the report says as well."""
    compare: tuple[tuple[str, str], ...] = ()
    """Further pairs of rows, ``[system, baseline]``, that the report tests."""
    expect: tuple[str, ...] = ()
    """What the report must show, or the verb ends with exit code 6; see :mod:`rerankdistill.pipeline.expect`."""

    @field_validator("expect")
    @classmethod
    def _readable(cls, expect: tuple[str, ...]) -> tuple[str, ...]:
        for text in expect:
            read(text)
        return expect


class CheckCard(Card):
    """What is looked at before a student is trained on a teacher's scores; ``check = false`` leaves it out."""

    run: bool = True
    force: bool = False
    """Train all the same on a teacher that the check says not to distil; its findings are written in either case."""
    queries: int = Field(default=200, gt=0)
    """Dev queries that are looked at, filled up with training queries where dev has few; never test queries."""
    depth: int = Field(default=20, gt=1)
    """Candidates of each, the judged ones among them: the student before training encodes them all."""


class PipelineCard(Card):
    """A whole pipeline."""

    name: str
    description: str = ""
    collection: str
    splits: dict[str, str] = Field(default_factory=dict)
    """Which ir-datasets id or qrels file is ``train``, ``dev``, ``test``; empty: by their names."""
    seed: int = 1
    seeds: tuple[int, ...] = (1,)
    """Each arm is trained once with each."""
    device: str = "auto"
    view: View = View.TITLE_TEXT
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training queries that is held out, by hash of their id, where the collection has no dev split."""
    max_dev_queries: int = 200
    mine: MineCard = MineCard()
    teacher: str = "bm25+minilm"
    check: CheckCard = CheckCard()
    """The teacher check before training; ``false`` leaves it out."""
    students: dict[str, StudentCard] = Field(min_length=1)
    evaluate: tuple[EvaluateCard, ...] = (EvaluateCard(),)

    @field_validator("check", mode="before")
    @classmethod
    def _on_or_off(cls, check: Any) -> Any:
        return {"run": check} if isinstance(check, bool) else check

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.students:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"students.{name}: a student's name may hold letters, digits, - and _")
        return self


def load_pipeline(name: str, overrides: tuple[str, ...] = (), small: bool = False) -> PipelineCard:
    """Read a pipeline by its shipped name or path, with ``a.b=value`` overrides put in before it is checked.

    Args:
        small: its small form; see :func:`rerankdistill.cards.parse_forms`.

    Raises:
        CardError: every mistake of the file at once.
        UsageError: an override that cannot be read, or no small form.
    """

    def edit(table: dict[str, Any]) -> None:
        for override in overrides:
            put(table, override)

    return cards.parse_forms(PipelineCard, cards.find_card("pipelines", name), small, edit, _new_students)


def _new_students(table: Mapping[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """What a small form makes up: there too a slip of the pen would train one more student."""
    known, named = (each.get("students") for each in (table, changes))
    if not isinstance(known, dict) or not isinstance(named, dict):
        return []
    return [f"students.{name}: the file has no such student" for name in named if name not in known]


def put(table: dict[str, Any], override: str) -> None:
    """Put ``a.b.0.c=value`` into a table, in place; the value is TOML, or else a plain string."""
    key, equals, raw = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"cannot read the override {override!r}", fix="write it as --set students.small.kind=bi_encoder"
        )
    try:
        value = tomlkit.parse(f"value = {raw}").unwrap()["value"]
    except tomlkit.exceptions.ParseError:
        value = raw
    place: Any = table
    *parents, last = key.strip().split(".")
    _require_student(table, parents)
    try:
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise UsageError(f"there is no place for the override {override!r}", fix="check the name") from error


def _require_student(table: dict[str, Any], parents: list[str]) -> None:
    """An override of ``students.NAME`` may not make up a student: a slip of the pen would train one more."""
    known = table.get("students")
    if parents[:1] == ["students"] and len(parents) > 1 and isinstance(known, dict) and parents[1] not in known:
        near = get_close_matches(parents[1], known, 1)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"the pipeline has no student called {parents[1]!r}", where="--set", fix=fix)


def own_collection(card: PipelineCard, target: EvaluateCard) -> bool:
    """Whether an evaluation is on the collection that the pipeline trains on."""
    if not target.collection:
        return True
    mine, other = (Path(name).expanduser() for name in (card.collection, target.collection))
    return mine == other or (mine.exists() and mine.resolve() == other.resolve())
