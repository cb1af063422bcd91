"""Training queries: which, from where, and which of them are held out as dev. No test query gets in.

A *lane* is one set of training queries read with one view of the documents; students that share both share everything
that is mined and scored for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill import artifacts
from rerankdistill.candidates.judged import keep_out
from rerankdistill.contracts import Source
from rerankdistill.errors import CardError, DataError
from rerankdistill.pipeline.card import QuerySet, StudentCard
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.types import Doc, Judgement, Query, View

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(])")
WORDS = 4
"""A pseudo query has at least so many words."""


@dataclass(frozen=True)
class Lane:
    """One set of training queries and the view of documents that goes with it."""

    sets: tuple[QuerySet, ...]
    max_queries: int
    view: View

    @property
    def name(self) -> str:
        limit = f"-{self.max_queries}" if self.max_queries else ""
        return "+".join(self.sets) + limit + ("" if self.view is View.TITLE_TEXT else f"-{self.view.value}")


@dataclass(frozen=True)
class Training:
    """The queries of a lane: ``dev`` ids are measured on and never trained on."""

    queries: list[Query]
    judgements: list[Judgement]
    dev: frozenset[str]


def lane_of(ws: Workspace, student: StudentCard) -> Lane:
    return Lane(student.queries, student.max_queries, student.view or ws.card.view)


def queries_step(ws: Workspace, lane: Lane) -> Step:
    """The step that fixes the training queries of a lane."""
    source = ws.source()
    inputs = {"queries": artifacts.fingerprint([list(query) for query in source.all_queries()])}
    if "train" in lane.sets:
        inputs["train judgements"] = source.judgements_fingerprint("train")
    if "asked" in lane.sets:
        inputs["asked queries"] = source.queries_fingerprint("train")
    if set(lane.sets) & {"titles", "sentences"}:
        inputs["documents"] = source.docs_fingerprint()
    about = {"sets": list(lane.sets), "max_queries": lane.max_queries, "dev_share": ws.card.dev_share,
             "max_dev_queries": ws.card.max_dev_queries, "view": lane.view.value}  # fmt: skip
    manifest = artifacts.plan("queries", 1, about, inputs, ws.card.seed)
    step = Step(f"queries {lane.name}", ws.root / "queries" / lane.name, manifest)
    step.run = lambda folder: _write(ws, lane, folder, step)
    return step


def read_training(step: Step) -> Training:
    """What a queries step wrote."""
    table = pq.read_table(step.require() / "queries.parquet")
    queries = [Query(*row) for row in zip(*(table[c].to_pylist() for c in ("query_id", "text")), strict=True)]
    dev = frozenset(q.query_id for q, held in zip(queries, table["dev"].to_pylist(), strict=True) if held)
    judged = pq.read_table(step.folder / "judgements.parquet")
    columns = (judged[name].to_pylist() for name in ("query_id", "doc_id", "grade"))
    return Training(queries, [Judgement(*row) for row in zip(*columns, strict=True)], dev)


def held_out(query_id: str, share: float) -> bool:
    """Whether a query belongs to dev: by hash, so that a query never changes sides when others come or go."""
    number = int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:8], "big")
    return number < share * 2**64


Pair = tuple[Query, list[Judgement]]
"""A query and its judgements."""


def _write(ws: Workspace, lane: Lane, folder: Path, step: Step) -> None:
    learned, held, dropped = _divide(ws, lane)
    if not learned:
        raise DataError("no training query is left", where=f"queries {lane.name}", fix="name other query sets")
    every = [(*pair, False) for pair in learned] + [(*pair, True) for pair in held]
    names = ("query_id", "text", "dev")
    rows = [(query.query_id, query.text, dev) for query, _, dev in every]
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), folder / "queries.parquet")
    judgements = [judgement for _, judged, _ in every for judgement in judged]
    columns = {name: [getattr(row, name) for row in judgements] for name in Judgement._fields}
    pq.write_table(pa.table(columns), folder / "judgements.parquet")
    step.manifest.counts = {"train": len(learned), "dev": len(held), "equal to another query": dropped}


def _divide(ws: Workspace, lane: Lane) -> tuple[list[Pair], list[Pair], int]:
    """The queries to learn from, those of dev, and how many were dropped because another query reads the same."""
    source, card = ws.source(), ws.card
    pairs = {part: _pairs(source, part) for part in lane.sets}
    if {"train", "asked"} <= set(lane.sets):
        raise CardError(
            "'train' and 'asked' are the same queries", where=f"queries {lane.name}", fix="name one of them"
        )
    dev = _judged(source, "dev") if "dev" in source.splits() and "train" in lane.sets else []
    ours = {query.query_id for part in pairs.values() for query, _ in part} | {query.query_id for query, _ in dev}
    others = [query for query in source.all_queries() if query.query_id not in ours]
    kept = keep_out((query for part in pairs.values() for query, _ in part), others)
    survivors = {query.query_id for query in kept.survivors}
    pairs = {part: [pair for pair in found if pair[0].query_id in survivors] for part, found in pairs.items()}
    if not dev:  # judged queries choose better than made-up ones
        asked = pairs.get("train") or [pair for found in pairs.values() for pair in found]
        dev = [pair for pair in asked if pair[1] and held_out(pair[0].query_id, card.dev_share)]
    held_ids = {query.query_id for query, _ in dev}
    dev = sorted(dev, key=lambda pair: _order(pair[0].query_id, 0))[: card.max_dev_queries]
    learned = [pair for found in pairs.values() for pair in found if pair[0].query_id not in held_ids]
    if lane.max_queries:
        order = sorted(range(len(learned)), key=lambda at: _order(learned[at][0].query_id, card.seed))
        learned = [learned[at] for at in sorted(order[: lane.max_queries])]
    return learned, dev, len(kept.dropped)


def _order(query_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{query_id}".encode()).digest()


def _pairs(source: Source, part: QuerySet) -> list[Pair]:
    """The queries of one set, each with its judgements."""
    if part == "train":
        return _judged(source, "train")
    if part == "asked":
        return [(query, []) for query in source.queries("train")]
    return [
        (Query(f"{part[:-1]}:{doc.doc_id}", text), [Judgement(f"{part[:-1]}:{doc.doc_id}", doc.doc_id, 1)])
        for doc in source.docs()
        for text in _pseudo(doc, part)
    ]


def _judged(source: Source, split: str) -> list[Pair]:
    judged: dict[str, list[Judgement]] = {}
    for judgement in source.judgements(split):
        judged.setdefault(judgement.query_id, []).append(judgement)
    return [(query, judged.get(query.query_id, [])) for query in source.queries(split)]


def _pseudo(doc: Doc, part: QuerySet) -> Iterator[str]:
    """A query made from a document alone: its title, or one of its sentences, the same one every time."""
    if part == "titles":
        found = [doc.title.strip()]
    else:
        found = sentences(doc.text)
        found = [found[int.from_bytes(_order(doc.doc_id, 0)[:4], "big") % len(found)]] if found else []
    yield from (text for text in found if len(text.split()) >= WORDS)


def sentences(text: str) -> list[str]:
    """A text's sentences, by their full stops."""
    return [part.strip() for part in SENTENCE.split(text) if len(part.split()) >= WORDS]
