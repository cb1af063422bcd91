"""Indexes of late interaction on real passages: bytes, speed, and what each finds of the first ten by exact MaxSim.

    python scripts/bench_tokens.py [FOLDER…] [--student FOLDER] [--rows 100000] [--queries 100] [--out FILE.md]

FOLDERs are collections, as for bench_indexes.py; where they hold fewer than ``--rows`` passages, some are there once
more with noise. Without ``--student``, which names a trained student of kind
``late_interaction``, one is trained first: that of scripts/recipes/colbert.toml in its small form, with all six layers
of the packaged MiniLM and 128 dimensions a token. Token vectors are kept in the cache. Each card is built and searched
with the same vectors, queries one at a time; truth is ``maxsim`` with float16. A card that finds less than its
``[expect]`` promises is named, and the exit code is 1. Times are the processor's, as in bench_indexes.py.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from index_table import BLOCK, NOISE, Table, arguments, chosen, corpus, encoder_of, measured, parsed, trained, varied

from rerankdistill import representations
from rerankdistill.representations import TokenVectors

RECIPE = [f"options.{each}" for each in ("layers=6", "dimension=128", "query_tokens=48", "doc_tokens=128")]
ARMS: list[tuple[str, dict[str, Any]]] = [
    ("maxsim", {}),
    ("maxsim", {"dtype": "int8"}),
    ("maxsim-residual", {}),
    ("maxsim-residual", {"bits": 8}),
]
"""Cards, and what is changed of their options."""


def encoded(model: Callable[[], Any], texts: Sequence[str], cache: Path) -> Any:
    """Token vectors of documents, memory-mapped in float16."""
    place = cache / f"tokens-{len(texts)}"
    if not (place / representations.OFFSETS).is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        written(place, (model().encode(texts[at : at + BLOCK], "doc") for at in range(0, len(texts), BLOCK)))
    return representations.load(place)


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


def main() -> None:
    parser = arguments(__doc__, 100, "work/bench-tokens")
    parser.add_argument("--student", type=Path)
    asked = parsed(parser)
    texts = list(corpus(asked.folders, "corpus.jsonl.gz"))[: asked.rows]
    model = encoder_of(asked.student or trained(asked.cache, "colbert", RECIPE))
    docs = encoded(model, texts, asked.cache)
    queries = model().encode(chosen(asked.folders, len(docs), asked.queries), "query")
    real, docs = len(docs), repeated(docs, asked.rows, asked.cache / f"tokens-{len(docs)}-{asked.rows}")
    about = f"{real:,} passages and {len(docs) - real:,} of them again with noise, {len(docs.vectors):,} tokens of "
    about += f"{docs.shape[1]} dimensions; "
    about += f"{len(queries)} queries of {queries.lengths.mean():.0f} tokens. Load {os.getloadavg()[0]:.1f}."
    table = Table(about)
    with tempfile.TemporaryDirectory(prefix="indexes-", dir=asked.cache) as home:
        for number, (name, changed) in enumerate(ARMS):
            folder, (label, card) = Path(home) / str(number), varied(name, changed)
            figures, found = measured(folder, card, docs, queries)
            a_token = 1e6 * figures["disk MB"] / len(docs.vectors)
            table.add(label, {"bytes a token": a_token} | figures, found, card="" if changed else name)
            shutil.rmtree(folder)
    table.end(asked.out)


if __name__ == "__main__":
    main()
