"""A run as the data of a product: ``run.parquet`` for us, ``run.trec.gz`` for every other tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill.errors import DamagedArtifact, MissingArtifact
from rerankdistill.runs.trec import write_run
from rerankdistill.types import Run

PARQUET, TREC = "run.parquet", "run.trec.gz"


def save_run(folder: Path, run: Run) -> None:
    """Write a run into a folder: columns ``query_id``, ``doc_id`` (dictionary-coded) and ``score``, best first.

    A query that found nothing is one row without document and score.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    lengths = np.diff(run.offsets)
    empty = lengths == 0
    query_codes = np.repeat(np.arange(len(lengths), dtype=np.int32), np.maximum(lengths, 1))
    gap = np.zeros(len(query_codes), bool)
    gap[(np.cumsum(np.maximum(lengths, 1)) - 1)[empty]] = True
    codes, scores = np.zeros(len(gap), np.int32), np.zeros(len(gap))
    codes[~gap], scores[~gap] = run.codes, run.scores
    coded = pa.DictionaryArray.from_arrays
    table = pa.table(
        {
            "query_id": coded(pa.array(query_codes), pa.array(run.query_ids, pa.string())),
            "doc_id": coded(pa.array(codes, mask=gap), pa.array(run.vocabulary, pa.string())),
            "score": pa.array(scores, mask=gap),
        }
    )
    pq.write_table(table.replace_schema_metadata({"name": run.name}), folder / PARQUET, compression="zstd")
    write_run(folder / TREC, run)


def open_run(folder: Path) -> Run:
    """Read what :func:`save_run` wrote, scores to the last bit.

    Raises:
        MissingArtifact: there is no run here.
        DamagedArtifact: it is truncated, or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / PARQUET
    if not path.is_file():
        raise MissingArtifact("no run here", where=str(folder), fix="run the step that makes it first")
    try:
        table = pq.read_table(path, read_dictionary=["query_id", "doc_id"]).combine_chunks()
        name = (table.schema.metadata or {}).get(b"name", b"").decode()
        queries, docs = _column(table, "query_id"), _column(table, "doc_id")
        scores = table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "delete the folder; the next run makes it again"
        raise DamagedArtifact(f"this run cannot be read: {first}", where=str(path), fix=fix) from error
    query_codes = queries.indices.to_numpy()
    filled = docs.is_valid().to_numpy(zero_copy_only=False)
    query_ids = queries.dictionary.to_pylist()
    lengths = np.bincount(query_codes[filled], minlength=len(query_ids))
    codes = docs.indices.drop_null().to_numpy().astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Run(name, tuple(query_ids), offsets, tuple(docs.dictionary.to_pylist()), codes, scores[filled])


def _column(table: Any, name: str) -> Any:
    """One dictionary array out of a column of dictionary-coded chunks, codes in the order of first appearance."""
    import pyarrow as pa

    column = table[name].unify_dictionaries()
    if column.num_chunks == 0:
        return pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
    return column.combine_chunks() if column.num_chunks > 1 else column.chunk(0)
