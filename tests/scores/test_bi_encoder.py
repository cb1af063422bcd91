"""A bi-encoder as a teacher: one encoding a text, and a matrix that agrees with the lists."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import DataError, UsageError
from rerankdistill.scores.card import Context, load_teacher
from rerankdistill.scores.kinds.bi_encoder import Kind
from rerankdistill.scores.pairs import text_hash
from rerankdistill.types import Group, Query

TEXTS = {"d1": "Rain falls on the fields.", "d2": "A cat chases a mouse.", "d3": "Stocks rose on Monday."}
GROUPS = [
    Group(Query("1", "weather"), ("d1", "d2"), (TEXTS["d1"], TEXTS["d2"])),
    Group(Query("2", "animals"), ("d2", "d3"), (TEXTS["d2"], TEXTS["d3"])),
]


class Counting:
    """An encoder of random vectors that counts what it is given."""

    fingerprint, dimension = "counting", 4

    def __init__(self):
        self.seen = []

    def encode(self, texts, role):
        self.seen += [(role, text) for text in texts]
        rows = [np.random.default_rng(text_hash(role + text)).normal(size=4) for text in texts]
        return np.array(rows, np.float32).reshape(-1, 4)


@pytest.fixture
def kind():
    made = Kind("none")
    made.__dict__["encoder"] = Counting()
    return made


def test_every_distinct_text_is_encoded_once_also_across_batches(kind):
    first = kind.judge(GROUPS)
    assert len(kind.encoder.seen) == len(set(kind.encoder.seen)) == 5
    again = kind.judge(GROUPS[::-1])
    assert len(kind.encoder.seen) == 5
    assert np.array_equal(first[0], again[1])
    assert [scores.shape for scores in first] == [(2,), (2,)]


def test_the_matrix_of_given_vectors_equals_the_lists(kind):
    lists = kind.judge(GROUPS)
    ids = ["d3", "d1", "d2"]
    kind.use_vectors(ids, Counting().encode([TEXTS[i] for i in ids], "doc"))
    whole = kind.matrix([group.query for group in GROUPS], ["d1", "d2", "d3"])
    assert whole.shape == (2, 3)
    assert np.allclose(whole[0, :2], lists[0], atol=1e-6)
    assert np.allclose(whole[1, 1:], lists[1], atol=1e-6)
    seen = len(kind.encoder.seen)
    assert np.allclose(kind.judge(GROUPS)[0], lists[0], atol=1e-6)
    assert len(kind.encoder.seen) == seen


def test_a_document_without_a_vector_is_an_error_and_not_another_documents_score(kind):
    with pytest.raises(DataError, match="no vector of document 'd1'"):
        kind.matrix([GROUPS[0].query], ["d1"])
    with pytest.raises(UsageError, match="2 doc_ids for 3 vectors"):
        kind.use_vectors(["a", "b"], np.zeros((3, 4), np.float32))


@pytest.mark.model
def test_minilm_from_its_card_agrees_with_the_library(minilm):
    from sentence_transformers import SentenceTransformer

    from rerankdistill.encoding import locate

    kind = Kind.open(load_teacher("minilm").model_copy(update={"dtype": "float32"}), Context(device="cpu"))
    found = kind.judge(GROUPS)
    model = SentenceTransformer(locate(minilm), device="cpu")
    for group, scores in zip(GROUPS, found, strict=True):
        wanted = model.similarity(model.encode([group.query.text]), model.encode(list(group.texts)))[0]
        assert np.allclose(scores, wanted, atol=1e-5)
    assert found[0][0] > found[0][1]
    assert found[1][0] > found[1][1]
