"""BM25 as a teacher scores as the index searches, and gives 0 and not NaN where no term is shared."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import CardError, DataError, UsageError
from rerankdistill.lexical import Bm25Options, Lexical
from rerankdistill.scores.card import Context, parse_teacher
from rerankdistill.scores.kinds.lexical import Kind
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store
from rerankdistill.types import Group, Query, Scale

TEXTS = ["cats chase mice", "dogs chase cats and cats", "rain falls on fields", "mice eat grain in fields"]
IDS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def lexical():
    return Lexical.build(TEXTS, Bm25Options())


def group(text, ids):
    return Group(Query("q", text), tuple(ids), ("",) * len(ids))


def test_judge_matrix_and_search_agree(lexical):
    kind = Kind(lexical, IDS)
    queries = [Query("1", "cats in fields"), Query("2", "mice")]
    whole = kind.matrix(queries, IDS)
    for row, query in enumerate(queries):
        assert np.array_equal(kind.judge([group(query.text, IDS)])[0], whole[row])
        assert np.array_equal(kind.judge([group(query.text, IDS[::-1])])[0], whole[row][::-1])
        numbers, scores = lexical.search([query.text], 4)
        hit = scores[0] > 0
        assert np.allclose(whole[row][numbers[0][hit]], scores[0][hit], atol=1e-6)
        assert (whole[row] > 0).sum() == hit.sum()
    assert whole[1].tolist()[1:3] == [0.0, 0.0]
    assert whole[1].min() >= 0


def test_its_scores_live_in_the_store_without_texts(lexical, tmp_path):
    kind = Kind(lexical, IDS)
    groups = [group("cats", IDS), Group(Query("q2", "fields"), ("c", "d"), ("", ""))]
    with open_store(tmp_path, "bm25", kind) as store:
        score(store, kind, groups)
        found = store.lookup(groups)
    assert all(np.array_equal(a, b) for a, b in zip(found, kind.judge(groups), strict=True))
    assert len({*found[0].tolist()}) > 1, "documents without text were taken for one another"


def test_another_index_is_another_teacher(lexical):
    other = Lexical.build([*TEXTS[:3], "mice eat grain"], Bm25Options())
    tuned = Lexical.build(TEXTS, Bm25Options(k1=1.2))
    marks = {Kind(each, IDS).fingerprint for each in (lexical, other, tuned)}
    assert len(marks) == 3
    assert Kind(Lexical.build(TEXTS, Bm25Options()), IDS).fingerprint == Kind(lexical, IDS).fingerprint


def test_an_unknown_document_is_an_error_and_not_a_zero(lexical):
    with pytest.raises(DataError, match="'z' is not in the BM25 index"):
        Kind(lexical, IDS).judge([group("cats", ["a", "z"])])
    with pytest.raises(UsageError, match="3 doc_ids"):
        Kind(lexical, IDS[:3])


def test_a_card_opens_it_and_cannot_claim_another_scale(lexical):
    context = Context(lexical=lambda: (lexical, IDS))
    card = {"name": "bm25", "kind": "lexical", "scale": "lexical"}
    assert Kind.open(parse_teacher(card, "x"), context).scale is Scale.LEXICAL
    with pytest.raises(CardError, match="write scale = 'lexical'"):
        Kind.open(parse_teacher({**card, "scale": "logit"}, "x"), context)
    with pytest.raises(UsageError, match="needs a BM25 index"):
        Kind.open(parse_teacher(card, "x"), Context())
    with pytest.raises(CardError, match="k1"):
        Kind.open(parse_teacher({**card, "options": {"k1": 2}}, "x"), context)
