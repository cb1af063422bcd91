"""Indexes of late interaction on real passages: bytes, speed, and what each finds of the first ten by exact MaxSim.

    python scripts/bench_tokens.py [FOLDER…] [--student FOLDER] [--rows 100000] [--queries 100] [--minutes 10]
        [--out FILE.md]

FOLDERs are collections, as for bench_indexes.py. Without ``--student``, which names a trained student of kind
``late_interaction``, one is trained first: that of scripts/recipes/colbert.toml in its small form, with all six layers
of the packaged MiniLM and 128 dimensions a token. Its vectors are kept in the cache; where ``--minutes`` are too short
for ``--rows`` passages, or there are not so many, some are there once more with noise. Each card is built and searched
with the same vectors, queries one at a time; truth is ``maxsim`` with float16. A card that finds less than its
``[expect]`` promises is named, and the exit code is 1; unless most rows are copies. Times are the processor's, as in
bench_indexes.py.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from index_table import NOISE, Table, arguments, chosen, encoded, encoder_of, measured, parsed, trained, varied

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


def written(place: Path, parts: Iterator[TokenVectors]) -> TokenVectors:
    """As :func:`representations.save` and ``load`` would, of parts that together need not fit into memory."""
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
    found: TokenVectors = representations.load(place)
    return found


def repeated(parts: Sequence[TokenVectors], rows: int) -> Iterator[TokenVectors]:
    """As many rows: the documents, and then the first ones again, each token with noise as bench_indexes.py adds it."""
    yield from parts
    chance, left = np.random.default_rng(0), rows - sum(map(len, parts))
    for part in cycle(parts):
        if left <= 0:
            return
        some = part[:left]
        left -= len(some)
        noise = chance.normal(size=some.vectors.shape).astype(np.float32)
        noisy = some.vectors + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        yield TokenVectors(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), some.offsets)


def main() -> None:
    parser = arguments(__doc__, 100, 10.0, "work/bench-tokens")
    parser.add_argument("--student", type=Path)
    asked = parsed(parser)
    student = asked.student or trained(asked.cache, "colbert", RECIPE)
    model = encoder_of(student)
    parts = encoded(asked, student, model)
    real = sum(map(len, parts))
    queries = model().encode(chosen(asked.folders, real, asked.queries), "query")
    with tempfile.TemporaryDirectory(prefix="indexes-", dir=asked.cache) as home:
        docs = written(Path(home), repeated(parts, asked.rows))
        about = f"{real:,} passages and {len(docs) - real:,} of them again with noise, {len(docs.vectors):,} tokens of "
        about += f"{docs.shape[1]} dimensions; {len(queries)} queries of {queries.lengths.mean():.0f} tokens."
        table = Table(about, f"Load {os.getloadavg()[0]:.1f}.", held=real >= asked.rows / 2)
        for number, (name, changed) in enumerate(ARMS):
            folder, (label, card) = Path(home) / str(number), varied(name, changed)
            figures, found = measured(folder, card, docs, queries)
            a_token = 1e6 * figures["disk MB"] / len(docs.vectors)
            table.add(label, {"bytes a token": a_token} | figures, found, card="" if changed else name)
            shutil.rmtree(folder)
    table.end(asked.out)


if __name__ == "__main__":
    main()
