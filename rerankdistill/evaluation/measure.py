"""Effectiveness of a run: ranx behind one function, counted the way trec_eval counts.

- Every judged query counts: one that the run lacks, or for which nobody found a relevant document, scores zero
  (``trec_eval -c``). Queries of the run that nobody judged are ignored.
- The order is trec_eval's: score, then document id, both descending; a rank column is never read. Like trec_eval and
  everything built on it, scores are compared in single precision: what differs further down is a tie.
- nDCG takes the grade itself as gain, as trec_eval does (``ndcg_burges`` takes 2^grade - 1).

ranx is handed numbers instead of names: its own ``Run`` hashes every id into a float and takes 21 s for 7,000 lists of
1,000. Numba keeps what it compiled beside ranx's files (or in ``NUMBA_CACHE_DIR``), so only the first evaluation in a
new environment waits for it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError, RerankDistillWarning, UsageError
from rerankdistill.types import Judgement, Run

DEFAULT_MEASURES = ("ndcg@10", "mrr@10", "map", "recall@100", "recall@1000")

NAMES = (
    *("hits", "hit_rate", "precision", "recall", "f1", "r-precision", "mrr", "map"),
    *("dcg", "dcg_burges", "ndcg", "ndcg_burges", "bpref", "rbp"),
)
"""ranx's measures. ``@k`` cuts the list, ``-l2`` counts grades from 2 on as relevant, ``rbp.95`` sets persistence."""

OTHERS_NAMES = {"recip_rank": "mrr", "p": "precision", "rr": "mrr", "ap": "map", "success": "hit_rate", "r": "recall"}
"""What trec_eval and ir_measures call some of them, for the hint in the error."""

SHAPE = re.compile(rf"(rbp\.\d+|({'|'.join(n for n in NAMES if n != 'rbp')})(@(?P<cut>[1-9]\d*))?)(-l[1-9]\d*)?")

Judgements = Iterable[Judgement] | Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What :func:`measure` found.

    Attributes:
        means: ``{measure: mean over every judged query}``.
        per_query: ``{measure: {query_id: value}}``.
        missing: judged queries for which the run lists nothing; they count as zero.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]] = field(repr=False)
    missing: tuple[str, ...] = field(repr=False, default=())


def measure(
    run: Run,
    judgements: Judgements,
    measures: Sequence[str] = DEFAULT_MEASURES,
    query_ids: Iterable[str] | None = None,
) -> Measured:
    """Measure a run against judgements; neither is changed.

    Args:
        measures: names as ranx spells them, e.g. ``ndcg@10``, ``map``, ``mrr@10-l2``.
        query_ids: count these judged queries alone.

    Raises:
        UsageError: an unknown measure.
        DataError: no judgements; two grades for one document; a run with NaN or a document listed twice.
    """
    cut = check_measures(measures)
    grades = read_judgements(judgements)
    if query_ids is not None:
        wanted = set(query_ids)
        grades = {query_id: judged for query_id, judged in grades.items() if query_id in wanted}
    if not grades:
        raise DataError("there is no judged query to measure on", where=run.name, fix="check the qrels and the split")
    lists, missing = _lists(run, grades, cut)
    if len(missing) == len(grades):
        message = f"run {run.name!r} has none of the {len(grades)} judged queries: every measure is 0"
        warnings.warn(message, RerankDistillWarning, stacklevel=2)
    values = _ranx(_qrels(run, grades), lists, list(measures))
    per_query = {name: dict(zip(grades, values[name].tolist(), strict=True)) for name in measures}
    return Measured({name: float(np.mean(values[name])) for name in measures}, per_query, missing)


def check_measures(measures: Sequence[str]) -> int | None:
    """The deepest rank that any of these measures reads, None where one reads the whole list.

    Raises UsageError for a name ranx does not have, saying what was meant.
    """
    cuts: list[int | None] = []
    for name in measures:
        found = SHAPE.fullmatch(name)
        if found is None:
            raise UsageError(f"no measure is called {name!r}", fix=_meant(name))
        cuts.append(int(found["cut"]) if found["cut"] else None)
    if not cuts:
        raise UsageError("no measure was asked for", fix=f"for example {', '.join(DEFAULT_MEASURES)}")
    return None if None in cuts else max(cut for cut in cuts if cut is not None)


def read_judgements(judgements: Judgements) -> dict[str, dict[str, int]]:
    """``{query_id: {doc_id: grade}}``, a copy. Raises DataError where one document has two grades for a query."""
    if isinstance(judgements, Mapping):
        return {query_id: {doc: int(grade) for doc, grade in judged.items()} for query_id, judged in judgements.items()}
    grades: dict[str, dict[str, int]] = {}
    for query_id, doc_id, grade in judgements:
        if grades.setdefault(query_id, {}).setdefault(doc_id, int(grade)) != grade:
            fix = "keep one line for each query and document in the qrels"
            raise DataError(f"document {doc_id!r} has two grades for query {query_id!r}", where="qrels", fix=fix)
    return grades


def _meant(name: str) -> str:
    """The hint of an unknown measure's error."""
    parts = re.fullmatch(r"([a-z_\-]+?)(?:_cut)?(?:[@_.]?0*(\d*))?(-l\d+)?", name.lower())
    stem, cut, level = parts.groups() if parts else (name.lower(), None, None)
    stem = OTHERS_NAMES.get(stem, stem)
    near = [stem] if stem in NAMES else get_close_matches(stem, NAMES, 1)
    if not near:
        return f"one of {', '.join(NAMES)}, with @k to cut the list and -l2 for a relevance level"
    if near == ["rbp"]:
        return f"did you mean 'rbp.{cut or 95}'?"
    return f"did you mean '{near[0]}{'@' + cut if cut else ''}{level or ''}'?"


def _lists(
    run: Run, grades: Mapping[str, object], cut: int | None
) -> tuple[list[NDArray[np.float64]], tuple[str, ...]]:
    """For each judged query ``[n, 2]`` (document number, strictly decreasing score), and the queries without any."""
    rows = {query_id: row for row, query_id in enumerate(run.query_ids)}
    if len(rows) != len(run.query_ids):
        raise DataError("a query stands twice in the run", where=run.name, fix="write one list for each query")
    if np.isnan(run.scores).any():
        raise DataError("the run holds scores that are not a number", where=run.name, fix="search or score again")
    lists, missing = [], []
    for query_id in grades:
        row = rows.get(query_id)
        codes = np.empty(0, np.int32) if row is None else _ordered(run, row)
        if len(np.unique(codes)) != len(codes):
            raise DataError(f"a document is listed twice for query {query_id!r}", where=run.name)
        codes = codes[:cut]
        lists.append(np.column_stack([codes.astype(np.float64), np.arange(len(codes), 0, -1, dtype=np.float64)]))
        if not len(codes):
            missing.append(query_id)
    return lists, tuple(missing)


def _ordered(run: Run, row: int) -> NDArray[np.int32]:
    """The document numbers of one list in trec_eval's order."""
    part = slice(run.offsets[row], run.offsets[row + 1])
    codes = run.codes[part]
    with np.errstate(over="ignore"):
        scores = run.scores[part].astype(np.float32)
    if np.all(scores[1:] < scores[:-1]):
        return codes
    order = np.argsort(-scores, kind="stable")
    if np.all(np.diff(scores[order]) < 0):
        return codes[order]
    names = np.array([run.vocabulary[code] for code in codes.tolist()], dtype=object)
    return codes[sorted(range(len(codes)), key=lambda at: (scores[at], names[at]), reverse=True)]


def _qrels(run: Run, grades: Mapping[str, Mapping[str, int]]) -> list[NDArray[np.float64]]:
    """For each judged query ``[n, 2]`` (document number, grade), best grade first: ranx takes it as the ideal list."""
    judged = {doc_id for docs in grades.values() for doc_id in docs}
    codes = {name: code for code, name in enumerate(run.vocabulary) if name in judged}
    for doc_id in judged:
        codes.setdefault(doc_id, len(run.vocabulary) + len(codes))
    out = []
    for docs in grades.values():
        ideal = sorted(docs.items(), key=lambda pair: -pair[1])
        out.append(np.array([(codes[doc_id], grade) for doc_id, grade in ideal], np.float64).reshape(-1, 2))
    return out


def _ranx(qrels: list[Any], lists: list[Any], measures: list[str]) -> dict[str, NDArray[np.float64]]:
    import numba
    from numba.core.errors import NumbaWarning
    from numba.typed import List
    from ranx import evaluate

    threads = numba.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaWarning)  # ranx's loops cast their counters
        try:
            # A single measure without its mean is a KeyError inside ranx, so it never gets a single one.
            asked = measures if len(measures) > 1 else [measures[0], measures[0]]
            values = evaluate(List(qrels), List(lists), asked, return_mean=False)
        finally:
            numba.set_num_threads(threads)  # ranx leaves the process with one thread after a small evaluation
    # bpref divides by the judged non-relevant documents, of which a query may have none
    return {name: np.nan_to_num(np.asarray(values[name], np.float64), nan=0.0) for name in measures}
