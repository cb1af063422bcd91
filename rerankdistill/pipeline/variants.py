"""The other ways in which a trained student can be used, as rows of a report: ``small @64``, ``small binary``,
``small exit 2``. They show what shorter vectors, vectors in fewer bytes or fewer layers cost.

No document is encoded again for a way that is read off whole vectors. Those of few bytes are measured as the floats
that their bytes stand for: scores are those of an index that holds the bytes, time is not, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rerankdistill import artifacts
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StudentCard
from rerankdistill.pipeline.engines import Engine
from rerankdistill.pipeline.learning import student_options
from rerankdistill.pipeline.vectors import Model, Narrow
from rerankdistill.students.exits import EXITS
from rerankdistill.students.readings import Way

VARIANT = "variant"
"""The kind of such a row."""

Search = Callable[[str, str, Model, str, dict[str, str]], Engine]
"""``(row's name, kind, model, name of the run, extra) -> its engine``."""


def variant_engines(own: Engine, name: str, card: StudentCard, search: Search) -> list[Engine]:
    """A row for each further way of reading a student whose own row is ``own``; none for one that has no other."""
    kind = open_kind("students", card.kind)
    if own.model is None or not hasattr(kind, "variants"):
        return []
    options, found = student_options(name, card), []
    for way in kind.variants(options):
        model = variant_of(own.model, way, options.similarity == "cosine")
        engine = search(f"{own.name} {way.name}", VARIANT, model, model.name, {"teacher": own.extra["teacher"]})
        found.append(replace(engine, latency_of=()) if way.bits else engine)
    return found


def variant_of(model: Model, way: Way, cosine: bool) -> Model:
    """A student's model, read in another way."""
    name = f"{model.name}.{way.name.replace(' ', '').replace('@', 'd')}"
    mark = artifacts.fingerprint(model.mark, way.name, way.both)
    if way.depth:
        return replace(model, name=name, mark=mark, reference=str(Path(model.reference) / EXITS / str(way.depth)))
    narrow, docs = Narrow(way, cosine), model.docs
    if docs is not None:
        called, its = docs.name + name.removeprefix(model.name), artifacts.fingerprint(docs.mark, way.name)
        docs = replace(docs, name=called, mark=its, narrow=narrow, whole=docs)
    return replace(model, name=name, mark=mark, narrow=narrow, whole=model, docs=docs)
