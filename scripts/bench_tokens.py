"""Indexes of late interaction on real passages: bytes, speed, and what each finds of the first ten by exact MaxSim.

    python scripts/bench_tokens.py [FOLDER…] [--student FOLDER] [--rows 100000] [--queries 300] [--out FILE.md]

FOLDERs are collections, as for bench_indexes.py; where they hold fewer than ``--rows`` passages, some are there once
more with noise. Without ``--student``, which names a trained student of kind
``late_interaction``, one is trained first: that of scripts/recipes/colbert.toml in its small form, with all six layers
of the packaged MiniLM and 128 dimensions a token. Token vectors are kept in the cache. Each card is built and searched
with the same vectors, queries one at a time; truth is ``maxsim`` with float16. A card that finds less than its
``[expect]`` promises is named, and the exit code is 1. Times are the processor's, as in bench_indexes.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_indexes import BLOCK, DEPTH, EXPECTED, NOISE, SLACK, corpus, data, in_words

from rerankdistill import representations
from rerankdistill.index.build import build_index, open_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.representations import TokenVectors
from rerankdistill.students.folder import look

RECIPE = ["layers=6", "dimension=128", "query_tokens=48", "doc_tokens=128"]
ARMS: list[tuple[str, dict[str, Any]]] = [
    ("maxsim", {}),
    ("maxsim", {"dtype": "int8"}),
    ("maxsim-residual", {}),
    ("maxsim-residual", {"bits": 8}),
]
"""Cards, and what is changed of their options."""


def trained(cache: Path) -> Path:
    """The folder of a student that the shipped recipe trains; once it is there, at once."""
    sets = [word for each in RECIPE for word in ("--set", f"students.colbert.options.{each}")]
    command = [sys.executable, "-m", "rerankdistill", "train", "recipes/colbert", "--small"]
    subprocess.run([*command, "--out", str(cache / "colbert"), *sets], check=True)  # noqa: S603
    return cache / "colbert/students/colbert-seed1"


def encoded(student: Path, texts: Sequence[str], questions: Sequence[str], cache: Path) -> tuple[Any, Any]:
    """Token vectors of documents, memory-mapped in float16, and of queries."""
    found, encoder = look(student), None
    kind = open_kind("students", found.kind)
    place = cache / f"tokens-{len(texts)}"

    def model() -> Any:
        nonlocal encoder
        encoder = encoder or kind.open(student, kind.Options.model_validate(found.options)).encoder()
        return encoder

    if not (place / representations.OFFSETS).is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        written(place, (model().encode(texts[at : at + BLOCK], "doc") for at in range(0, len(texts), BLOCK)))
    return representations.load(place), model().encode(questions, "query")


def written(place: Path, parts: Iterator[TokenVectors]) -> None:
    """What :func:`representations.save` writes, of parts that together need not fit into memory."""
    lengths, raw = list[Any](), place / "raw"
    with raw.open("wb") as file:
        for part in parts:
            file.write(part.vectors.astype(np.float16).tobytes())
            lengths.append(part.lengths)
            print(f"\rwritten {sum(map(len, lengths)):,}", end="", file=sys.stderr, flush=True)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    vectors = np.memmap(raw, np.float16, "r").reshape(offsets[-1], -1)
    np.save(place / representations.TOKENS, vectors)
    raw.unlink()
    np.save(place / representations.OFFSETS, offsets)


def repeated(docs: TokenVectors, rows: int, place: Path) -> Any:
    """As many rows: the first documents again, each token with noise as bench_indexes.py adds it."""
    if len(docs) >= rows:
        return docs

    def parts() -> Iterator[TokenVectors]:
        chance = np.random.default_rng(0)
        yield from (docs[at : at + BLOCK] for at in range(0, len(docs), BLOCK))
        for at in range(0, rows - len(docs), BLOCK):
            part = docs[at : min(at + BLOCK, rows - len(docs))]
            noise = chance.normal(size=part.vectors.shape).astype(np.float32)
            noisy = part.vectors + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            yield TokenVectors(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), part.offsets)

    if not (place / representations.OFFSETS).is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        written(place, parts())
    return representations.load(place)


def bench(folder: Path, name: str, changed: dict[str, Any], docs: Any, queries: Any) -> tuple[dict[str, Any], Any]:
    """One card's figures, and the documents that it found."""
    card = read_card(name)
    card = card.model_copy(update={"options": {**card.options, **changed}})
    kind = open_kind("index", card.kind)
    began = time.process_time()
    made = build_index(folder, card, [f"p{row}" for row in range(len(docs))], docs, {"docs": "d", "encoder": "e"}, kind)
    build, began = time.process_time() - began, time.process_time()
    index = open_index(folder, kind)
    opening = time.process_time() - began
    index.search(queries[:3], DEPTH)
    found, seconds = [], []
    for row in range(len(queries)):
        began = time.process_time()
        found += index.search(queries[row : row + 1], DEPTH)
        seconds.append(time.process_time() - began)
    mapped = sum((folder / each).stat().st_size for each in kind.mapped)
    label = " ".join([name, *(f"{key}={value}" for key, value in changed.items())])
    return {
        "card": label, "build s": build, "disk MB": made.counts["bytes"] / 1e6,
        "bytes a token": made.counts["bytes"] / len(docs.vectors),
        "memory MB": (made.counts["bytes"] - mapped) / 1e6, "open s": opening, "recall@10": 1.0,
        "queries/s": len(seconds) / sum(seconds), "p50 ms": 1e3 * float(np.median(seconds)),
        "p99 ms": 1e3 * float(np.quantile(seconds, 0.99)),
    }, [{doc_id for doc_id, _ in hits} for hits in found]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="default: those of RERANKDISTILL_DATA")
    parser.add_argument("--student", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--cache", type=Path, default=Path("work/bench-tokens"))
    parser.add_argument("--out", type=Path, help="the table as Markdown")
    asked = parser.parse_args()
    asked.folders = asked.folders or data()
    if not asked.folders:
        print("left out: RERANKDISTILL_DATA names no folder of collections")
        return
    texts = list(corpus(asked.folders, "corpus.jsonl.gz"))[: asked.rows]
    questions = list(corpus(asked.folders, "queries.jsonl.gz"))
    chosen = np.random.default_rng(0).permutation(len(questions))[: asked.queries]
    student = asked.student or trained(asked.cache)
    docs, queries = encoded(student, texts, [questions[row] for row in chosen], asked.cache)
    real, docs = len(docs), repeated(docs, asked.rows, asked.cache / f"tokens-{len(docs)}-{asked.rows}")
    about = f"{real:,} passages and {len(docs) - real:,} of them again with noise, {len(docs.vectors):,} tokens of "
    about += f"{docs.shape[1]} dimensions; "
    about += f"{len(queries)} queries of {queries.lengths.mean():.0f} tokens. Load {os.getloadavg()[0]:.1f}."
    lines = [about, ""]
    print("\n".join(lines), flush=True)
    truth, broken = None, list[str]()
    with tempfile.TemporaryDirectory(prefix="indexes-", dir=asked.cache) as home:
        for number, (name, changed) in enumerate(ARMS):
            folder = Path(home) / str(number)
            figures, found = bench(folder, name, changed, docs, queries)
            if truth is None:
                truth = found
                told = [list(figures), ["---", *["---:"] * (len(figures) - 1)]]
                lines += ["| " + " | ".join(row) + " |" for row in told]
                print("\n".join(lines[-2:]), flush=True)
            figures["recall@10"] = float(np.mean([len(a & b) / DEPTH for a, b in zip(found, truth, strict=True)]))
            lines.append("| " + " | ".join(in_words(value) for value in figures.values()) + " |")
            print(lines[-1], flush=True)
            promised = 0.0 if changed else read_card(name).expect.get(EXPECTED, 0.0)
            if figures["recall@10"] < promised - SLACK:
                broken.append(f"{name} finds {figures['recall@10']:.3f}, and its card promises {promised:.3f}")
            shutil.rmtree(folder)
    if asked.out:
        asked.out.write_text("\n".join(lines) + "\n", "utf-8")
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
