"""From documents without queries to a collection that can be trained on: read, write queries, sift them, hold some out.

What comes out is a folder in BEIR's layout, on which a pipeline then walks as on any other: the documents, and queries
of which each asks for the document that it was written from. Some documents are *held out*: no query about them trains,
and those that are left of theirs are the split ``test``. Such a test says how well the student finds documents that
nobody asked about before, in the words of whoever wrote the queries; it is no substitute for people's judgements.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill import artifacts
from rerankdistill.collections.load import load_collection
from rerankdistill.collections.write import qrels, query_line
from rerankdistill.errors import CardError, DataError
from rerankdistill.pipeline.lanes import held_out
from rerankdistill.pipeline.lessons import mined_runs, mining_model
from rerankdistill.pipeline.mining import Asked, Shelf, candidates_step, read_candidates, read_run
from rerankdistill.pipeline.reading import CORPUS, AdaptCard
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.pipeline.writers import foretold, open_writer, unable
from rerankdistill.queries import filters
from rerankdistill.queries.filters import Funnel
from rerankdistill.queries.generate import Generated, Log, generate, key_of, requests_for
from rerankdistill.queries.leakage import find_leaks
from rerankdistill.queries.styles import StyleCard, load_style, shares
from rerankdistill.types import Judgement, Query

PER_DOCUMENT, MOST = 2, 4000
"""Queries that are written where nobody says how many."""
FEW = 200
"""Training queries below which whoever waits is told: a student of five forgot what it knew."""
COLUMNS = Generated._fields


def written_step(ws: Workspace, card: AdaptCard, documents: Step) -> Step:
    """The step that writes queries about the documents, and throws out those that are none at first sight."""
    styles = {name: load_style(name) for name in card.styles}
    if lacking := list(unable(list(styles.values()), card.writer)):
        what = f"{', '.join(lacking)} cannot be written {'by a language model' if card.writer else 'without one'}"
        fix = "leave them out" if card.writer else "name a writer, or leave them out"
        raise CardError(what, where="styles", fix=fix)
    inputs = {"documents": documents.fingerprint}
    kept = [load_collection(name) for name in card.keep_out]
    inputs |= {f"kept out {source.name}": source.queries_fingerprint("test") for source in kept}
    about = card.model_dump(mode="json", include={"queries", "writer", "temperature", "keep_out"})
    about |= {"styles": [[weight, styles[name].model_dump()] for name, weight in card.styles.items()]}
    about |= {"copied": card.sift.copied}
    manifest = artifacts.plan("written", 3, about, inputs, card.seed)
    step = Step("queries written", ws.root / "written", manifest, (documents,))

    def run(folder: Path) -> None:
        docs = [doc for doc in ws.source().docs() if doc.text.strip() or doc.title.strip()]
        count = card.queries or min(PER_DOCUMENT * len(docs), MOST)
        asked = list(requests_for(docs, [(styles[name], share) for name, share in shares(card.styles, count).items()]))
        writer = open_writer(card.writer, docs, ws.card, card.temperature, card.seed)
        log = Log(ws.root / "query-log" / f"{Path(card.writer or 'rules').stem}.jsonl")
        mark = artifacts.fingerprint(writer.mark, card.seed)
        new = [request for request in asked if key_of(request, mark) not in log.known]
        for line in foretold(writer, new, len(asked), log.seconds_each):
            ws.notes.say(line)
        with ws.notes.bar("writing queries", len(asked)) as advance:
            made = list(generate(asked, writer, mark, log, advance))
        texts = {doc.doc_id: f"{doc.title} {doc.text}" for doc in docs}
        funnel = Funnel(made).apply("form", filters.well_formed(styles))
        funnel.apply("copied", filters.not_copied(styles, texts, card.sift.copied))
        funnel.apply("script", filters.same_script(texts)).apply("distinct", filters.distinct)
        test = [query for source in kept for query in source.queries("test")]
        if test:
            funnel.apply("test queries", lambda queries: _clean(ws, queries, test))
        _save(folder, funnel, styles)
        step.manifest.counts = {"asked for": len(asked), "written": len(made), "left": len(funnel.queries)}

    step.run = run
    return step


def _clean(ws: Workspace, queries: Sequence[Generated], test: Sequence[Query]) -> list[bool]:
    """Which queries repeat none of the test's."""
    ours = _as_queries(queries)
    model = mining_model(ws)
    every = model.encode_queries(ws, [query.text for query in (*ours, *test)])
    vectors = every[: len(ours)], every[len(ours) :]
    leaked = {leak.query_id for leak in find_leaks(ours, test, *vectors)}
    return [query.query_id not in leaked for query in ours]


def _save(folder: Path, funnel: Funnel, styles: dict[str, StyleCard]) -> None:
    columns = {name: [getattr(query, name) for query in funnel.queries] for name in COLUMNS}
    if not funnel.queries:
        fix = "give more documents, or other styles; the table of filters says where they went"
        raise DataError(f"no query is left: {_told(funnel)}", where=", ".join(styles), fix=fix)
    pq.write_table(pa.table(columns, pa.schema([(name, pa.string()) for name in COLUMNS])), folder / "queries.parquet")
    (folder / "funnel.json").write_text(json.dumps([asdict(sieve) for sieve in funnel.sieves], indent=1), "utf-8")


def _told(funnel: Funnel) -> str:
    return ", ".join(f"{sieve.name} {sieve.came} → {sieve.passed}" for sieve in funnel.sieves)


def read_written(step: Step) -> list[Generated]:
    """The queries that a step left."""
    table = pq.read_table(step.require() / "queries.parquet")
    return [Generated(*row) for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]


def collection_step(ws: Workspace, card: AdaptCard, documents: Step, written: Step) -> Step:
    """The step that asks the first stages and the teacher about every query, and makes a collection of those that
    find their documents."""
    shelf, depth = Shelf(ws.source(), ws.card.view), ws.card.mine.depth
    asked = Asked("written", written.fingerprint, lambda: _as_queries(read_written(written)), (written,))
    runs = mined_runs(ws, shelf, asked, depth)

    candidates = candidates_step(ws, asked, runs, depth, lambda: _own(read_written(written)))
    faculty = Faculty(ws, shelf, ws.card.teacher)
    scored = faculty.scored_steps(asked, candidates) if card.teacher_first or card.sift.percentile else []
    other = Faculty(ws, shelf, card.second_teacher) if card.sift.agree else None
    seconded = other.scored_steps(asked, candidates) if other else []
    about = card.model_dump(mode="json", include={"sift", "held_out", "dev"})
    if card.sift.teacher_first and not card.teacher_first:
        about["teacher first"] = False
    inputs = {step.name: step.fingerprint for step in (documents, written, *runs, candidates, *scored)}
    inputs |= {f"second {step.name}": step.fingerprint for step in seconded}
    needs = (documents, written, *runs, candidates, *scored, *seconded)
    step = Step("collection", ws.root / "collection", artifacts.plan("collection", 1, about, inputs, card.seed), needs)

    def run(folder: Path) -> None:
        every = read_written(written)
        # A test that the teacher had chosen would be the teacher's own: what is held out passes filters of form alone.
        held = [query for query in every if split_of(query.doc_id, card) == "test"]
        funnel = Funnel([query for query in every if split_of(query.doc_id, card) != "test"])
        if card.sift.round_trip:
            funnel.apply("round trip", filters.found_again(_ranks(funnel.queries, runs), card.sift.round_trip))
        lists = read_candidates(candidates) if scored or seconded else {}
        if scored:
            told = faculty.fused(faculty.raw(asked, candidates, scored))
            firsts, own_scores = _by_teacher(funnel.queries, lists, told)
            if card.teacher_first:
                funnel.apply("teacher first", lambda queries: [query.query_id in firsts for query in queries])
            if card.sift.percentile:
                funnel.apply("percentile", filters.scored_above(own_scores, card.sift.percentile))
        if other:
            told = other.fused(other.raw(asked, candidates, seconded))
            firsts, _ = _by_teacher(funnel.queries, lists, told)
            funnel.apply("second teacher agrees", lambda queries: [query.query_id in firsts for query in queries])
        if not funnel.queries:
            fix = "loosen sift: round_trip = 0, teacher_first = false"
            raise DataError(f"no query is left: {_told(funnel)}", where="sift", fix=fix)
        before = json.loads((written.folder / "funnel.json").read_text("utf-8"))
        step.manifest.counts = write_collection(folder, documents.folder, [*funnel.queries, *held], card)
        if (left := step.manifest.counts["train"]) < FEW:
            fix = "write more (--queries), or loosen what sifts them"
            ws.notes.say(f"only {left} queries are left to train on, too few to learn much from: {fix}")
        sieves = [*before, *(asdict(sieve) for sieve in funnel.sieves)]
        (folder / "funnel.json").write_text(json.dumps(sieves, indent=1, ensure_ascii=False), "utf-8")

    step.run = run
    return step


def _as_queries(written: Sequence[Generated]) -> list[Query]:
    return [Query(each.query_id, each.text) for each in written]


def _own(written: Sequence[Generated]) -> list[Judgement]:
    """Each query's own document, as if it had been judged."""
    return [Judgement(each.query_id, each.doc_id, 1) for each in written]


def _ranks(queries: Sequence[Generated], runs: Sequence[Step]) -> dict[str, int]:
    """The best rank, from 1, that any run gives a query's own document."""
    own = {query.query_id: query.doc_id for query in queries}
    found: dict[str, int] = {}
    for run in runs:
        for query_id, hits in read_run(run):
            at = next((rank for rank, hit in enumerate(hits, 1) if hit.doc_id == own.get(query_id)), None)
            if at is not None:
                found[query_id] = min(at, found.get(query_id, at))
    return found


def _by_teacher(
    queries: Sequence[Generated], lists: dict[str, list[str]], told: dict[str, Any]
) -> tuple[set[str], dict[str, float]]:
    """The queries whose own document the teacher puts first, and what it gives it."""
    import numpy as np

    firsts: set[str] = set()
    scores: dict[str, float] = {}
    for query in queries:
        row, doc_ids = told.get(query.query_id), lists.get(query.query_id, [])
        if row is None or query.doc_id not in doc_ids or np.isnan(row).all():
            continue
        at = doc_ids.index(query.doc_id)
        scores[query.query_id] = float(row[at])
        if row[at] >= np.nanmax(row):
            firsts.add(query.query_id)
    return firsts, scores


def write_collection(folder: Path, documents: Path, queries: Sequence[Generated], card: AdaptCard) -> dict[str, Any]:
    """Write a folder in BEIR's layout; a query goes where its document belongs. Returns the counts."""
    artifacts.link(documents / CORPUS, folder / CORPUS)  # documents may be large
    place = {query.query_id: split_of(query.doc_id, card) for query in queries}
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(query_line(each.query_id, each.text, metadata={"style": each.style}) for each in queries)
    (folder / "qrels").mkdir()
    counts: dict[str, Any] = {}
    for split in ("train", "dev", "test"):
        rows = [query for query in queries if place[query.query_id] == split]
        counts[split] = len(rows)
        if rows:
            (folder / "qrels" / f"{split}.tsv").write_text(qrels(_own(rows)), "utf-8")
    for split, share in (("train", 1.0), ("test", card.held_out)):
        if share and not counts[split]:
            fix = "write more queries, or loosen sift" + ("" if split == "train" else ", or set held_out = 0")
            raise DataError(f"no query is left for {split}", where="collection", fix=fix)
    return counts


def split_of(doc_id: str, card: AdaptCard) -> str:
    """Where the queries about a document belong: ``train``, ``dev`` or ``test``."""
    if held_out(doc_id, card.held_out):
        return "test"
    return "dev" if held_out(f"dev {doc_id}", card.dev) else "train"
