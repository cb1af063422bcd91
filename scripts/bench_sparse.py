"""Indexes of a sparse student (SPLADE) on real passages: bytes, speed, and what Lucene finds of the first ten by exact
search.

    python scripts/bench_sparse.py [FOLDER…] [--rows 100000] [--queries 300] [--minutes 10] [--out FILE.md]

FOLDERs are collections, as for bench_indexes.py. Without ``--student``, which names a trained student of kind
``sparse``, one is trained first: that of scripts/recipes/splade.toml in its small form, with queries whose words have
learned weights, and at most 192 words a document. Its vectors are kept in the cache; where ``--minutes`` are too short
for ``--rows`` passages, some are there once more with noise on their weights, and a tenth of their words exchanged for
others. Queries are asked one at a time, and times are the processor's, as in bench_indexes.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from index_table import Table, arguments, chosen, encoded, encoder_of, measured, parsed, trained, varied

from rerankdistill import representations
from rerankdistill.errors import MissingDependency

RECIPE = ['options.queries="static"', "options.doc_terms=192"]
"""As SPLADE's students are served: a learned weight for each of a query's own words, and a bound on a document's."""
ARMS: list[tuple[str, dict[str, Any]]] = [
    ("sparse", {}),
    ("sparse", {"doc_terms": 64}),
    ("lucene-impact", {}),
    ("lucene-impact", {"doc_terms": 64}),
]
"""Cards, and what is changed of their options."""
SPREAD, OTHERS = 0.2, 0.1
"""Of noise: the standard deviation of a weight's factor, and the share of words that become others."""


def repeated(docs: Any, rows: int) -> Any:
    """As many rows: the first documents again, with noise on their weights and some words exchanged."""
    real, chance = docs.shape[0], np.random.default_rng(0)
    parts = [docs]
    for start in range(0, rows - real, real):
        part = docs[: min(real, rows - real - start)].tocoo()
        terms = np.array(part.coords[1])
        others = chance.random(len(terms)) < OTHERS
        terms[others] = chance.choice(docs.indices, int(others.sum()))  # as often as words are
        weights = part.data * np.exp(SPREAD * chance.normal(size=len(terms))).astype(np.float32)
        parts.append(type(docs)((weights, (part.coords[0], terms)), shape=part.shape))  # a word met twice is added up
    return representations.joined(parts)


def main() -> None:
    parser = arguments(__doc__, 300, 10.0, "work/bench-sparse")
    parser.add_argument("--student", type=Path)
    asked = parsed(parser)
    student = asked.student or trained(asked.cache, "splade", RECIPE)
    model = encoder_of(student)
    docs = representations.joined(encoded(asked, student, model))
    queries = model().encode(chosen(asked.folders, docs.shape[0], asked.queries), "query")
    real, docs = docs.shape[0], repeated(docs, asked.rows)
    table = Table(
        f"{real:,} passages and {docs.shape[0] - real:,} of them again with noise, of {docs.nnz / docs.shape[0]:.0f} "
        f"terms; {queries.shape[0]} queries of {queries.nnz / queries.shape[0]:.0f}.",
        f"Load {os.getloadavg()[0]:.1f}.",
    )
    with tempfile.TemporaryDirectory(prefix="indexes-", dir=asked.cache) as home:
        for number, (name, changed) in enumerate(ARMS):
            folder, (label, card) = Path(home) / str(number), varied(name, changed)
            try:
                table.add(label, *measured(folder, card, docs, queries), card="" if changed else name)
            except MissingDependency as error:
                print(f"{label}: left out: {error.what}", flush=True)
                continue
            shutil.rmtree(folder)
    table.end(asked.out)


if __name__ == "__main__":
    main()
