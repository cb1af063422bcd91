"""The inside of another model in a stage: its layers' scores, its hidden states, the relations in its attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerankdistill import artifacts, devices
from rerankdistill.encoding import load_bi_encoder
from rerankdistill.errors import CardError
from rerankdistill.examples.shuffle import shuffled_matrix
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StageCard, StudentCard
from rerankdistill.pipeline.signals import needs_of
from rerankdistill.pipeline.vectors import Texts
from rerankdistill.pipeline.workspace import Workspace, kind_options, mark_of
from rerankdistill.scores.card import ScorerCard, load_teacher
from rerankdistill.students.layer_scores import LayerLessons, LayerTeacher
from rerankdistill.students.layerwise import Inner, Level, open_inside
from rerankdistill.types import FloatArray

TOKENS = 64, 256
"""Where a query and a document are cut where a card says nothing."""


BESIDE = {"docs": "similarities among documents", "layers": "scores by layer", "logits": "two logits"}
"""What losses may read of a student beside its scores."""


def check_inside(stage: StageCard, kind: str, where: str) -> None:
    """Raise CardError where a stage's loss cannot be one on what the stage brings, or on what the student gives."""
    needs = needs_of(stage)
    lacking = needs & set(BESIDE) - set(getattr(open_kind("students", kind), "gives", BESIDE))
    if lacking and not stage.match:
        what = f"{stage.loss!r} learns from {BESIDE[min(lacking)]}, and a student of kind {kind!r} gives none"
        raise CardError(what, where=where, fix="choose another loss, or another kind of student")
    if stage.level != "text" and not stage.match:
        raise CardError(f"level = {stage.level!r} of no model", where=where, fix="name its card in match")
    lists = stage.level in ("relations", "attention")
    if stage.match and lists and ("teacher" not in needs or "vectors" in needs):
        what = f"level = {stage.level!r} is matched by a loss on lists, and {stage.loss!r} is none"
        raise CardError(what, where=where, fix="write loss = 'kl_div', or 'pointwise_mse'")
    if stage.match and not lists and "vectors" not in needs:
        what = f"vectors are matched by a loss on vectors, and {stage.loss!r} is none"
        raise CardError(what, where=where, fix="write loss = 'embed_mse', 'embed_cosine' or 'similarity_mse'")
    if "layers" in needs and not stage.layers_from:
        what = f"{stage.loss!r} follows a teacher's layers, and the stage names none"
        raise CardError(what, where=where, fix="name the card of a bi-encoder in layers_from")


def inside_marks(stage: StageCard, texts: Sequence[Texts], where: str) -> list[str]:
    """What a stage learns from beside the products of other steps, as fingerprints; nothing for most stages."""
    if stage.match and stage.level != "text":
        card = _card(stage.matched[0], where, ("bi_encoder", "cross_encoder"))
        return [*(part.mark for part in texts), mark_of(card.model, card.pinned_revision)]
    if "layers" in needs_of(stage):
        card = _card(stage.layers_from, where, ("bi_encoder",))
        lengths = card.lengths.model_dump(mode="json")
        return [artifacts.fingerprint("layers", mark_of(card.model, card.pinned_revision), lengths)]
    return []


def inner_data(stage: StageCard, student: StudentCard, texts: Sequence[Texts], shuffled: int | None) -> Inner:
    """What a stage learns from that matches the inside of a model. ``shuffled``: the seed of a nonsense arm."""
    card = _card(stage.matched[0], "match", ("bi_encoder", "cross_encoder"))
    options = kind_options("students", student.kind, student.options, "options")
    own = next((int(getattr(options, name)) for name in ("doc_tokens", "max_tokens") if hasattr(options, name)), 0)
    teacher = open_inside(card.model, card.pinned_revision, card.kind == "bi_encoder")
    every = [text for part in texts for _, text in part.read()]
    level: Level = "hidden" if stage.level == "text" else stage.level
    return Inner(every, teacher, level, stage.tokens or own or TOKENS[1], shuffled)


def layer_lessons(ws: Workspace, stage: StageCard, shuffled: bool, seed: int) -> LayerLessons | None:
    """The teacher whose layers a stage follows, opened; None where its loss follows none."""
    if "layers" not in needs_of(stage):
        return None
    card = _card(stage.layers_from, "layers_from", ("bi_encoder",))
    lengths = {"query": card.lengths.query or TOKENS[0], "doc": card.lengths.doc or TOKENS[1]}
    model = load_bi_encoder(card.model, card.pinned_revision)
    teacher = LayerTeacher(model, devices.choose(ws.card.device, card.dtype), lengths)

    def read(query_ids: Sequence[str], queries: Sequence[str], docs: Sequence[str]) -> FloatArray:
        layers = teacher.scores(queries, docs)
        return np.stack([shuffled_matrix(layer, query_ids, seed) for layer in layers]) if shuffled else layers

    return LayerLessons(read, stage.layer_pairs, seed)


def _card(names: str | tuple[str, ...], where: str, kinds: tuple[str, ...]) -> ScorerCard:
    name, *others = [names] if isinstance(names, str) else names
    if others:
        raise CardError("the inside of one model alone is matched", where=where, fix="name one card")
    card = load_teacher(name)
    if not isinstance(card, ScorerCard) or card.kind not in kinds:
        what = f"{name!r} is no {' or '.join(kind.replace('_', '-') for kind in kinds)}: nobody can look into it"
        raise CardError(what, where=where, fix="name the card of one")
    return card
