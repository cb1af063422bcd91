"""A query that moves away from what its teacher says, or with the queries beside it, searches for something else."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import DataError
from rerankdistill.losses import kl_div, ranknet
from rerankdistill.runs.refine import refine_query

KL = kl_div.Kind()
QUERY = np.array([[1.0, 0.0]], np.float32)
DOCS = np.array([[0.9, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
"""The query finds them in this order; the teacher likes the second best."""
SAID = np.array([0.0, 3.0, 1.0], np.float32)


def softmax(scores):
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def divergence(query, scale):
    target, found = softmax(SAID), softmax(DOCS @ query * scale)
    return float((target * np.log(target / found)).sum())


def test_the_first_step_is_adams_along_the_gradient_of_the_scaled_scores():
    """c = (3 - 0) / (0.9 - 0) = 10/3; the gradient is c D^T (p_S - p_T), and Adam's first step is its sign."""
    scale = 3 / 0.9
    gradient = scale * DOCS.T @ (softmax(DOCS @ QUERY[0] * scale) - softmax(SAID))
    moved = refine_query(QUERY, [DOCS], [SAID], KL, steps=1, learning_rate=0.01)
    np.testing.assert_allclose(moved[0], QUERY[0] - 0.01 * np.sign(gradient), atol=1e-6)


def test_the_divergence_falls_and_the_teachers_first_document_rises():
    moved = refine_query(QUERY, [DOCS], [SAID], KL)[0]
    assert divergence(moved, 3 / 0.9) < 0.7 * divergence(QUERY[0], 3 / 0.9)
    assert (DOCS @ QUERY[0]).argmax() == 0
    assert (DOCS @ refine_query(QUERY, [DOCS], [SAID], KL, steps=300)[0]).argmax() == 1
    unread = np.array([[0.0, 0.9], [0.88, 0.0]], np.float32)  # the teacher read neither
    assert (unread @ QUERY[0]).argmax() == 1
    assert (unread @ refine_query(QUERY, [DOCS], [SAID], KL, steps=300)[0]).argmax() == 0


def test_zero_steps_change_nothing_and_the_given_vector_is_never_touched():
    given = QUERY.copy()
    np.testing.assert_array_equal(refine_query(given, [DOCS], [SAID], KL, steps=0), QUERY)
    refine_query(given, [DOCS], [SAID], KL, steps=3)
    np.testing.assert_array_equal(given, QUERY)


def test_queries_do_not_move_each_other_and_short_lists_are_not_padded_with_documents():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(3, 4)).astype(np.float32)
    docs = [rng.normal(size=(n, 4)).astype(np.float32) for n in (5, 2, 4)]
    said = [rng.normal(size=len(each)).astype(np.float32) for each in docs]
    said[0][3] = np.nan
    for loss in (KL, ranknet.Kind(weights="ranks")):
        together = refine_query(queries, docs, said, loss, steps=20)
        for at in range(3):
            alone = refine_query(queries[at : at + 1], docs[at : at + 1], said[at : at + 1], loss, steps=20)
            np.testing.assert_allclose(together[at], alone[0], atol=2e-5)
    shorter = [docs[0][[0, 1, 2, 4]], *docs[1:]], [said[0][[0, 1, 2, 4]], *said[1:]]
    without = refine_query(queries, *shorter, KL, steps=20)
    np.testing.assert_allclose(without, refine_query(queries, docs, said, KL, steps=20), atol=2e-5)


@pytest.mark.parametrize("said", [[np.nan, np.nan, np.nan], [2.0, 2.0, 2.0], [1.0, np.nan, np.nan]])
def test_a_teacher_that_tells_nothing_apart_moves_nothing(said):
    moved = refine_query(QUERY, [DOCS], [np.array(said, np.float32)], KL)
    np.testing.assert_array_equal(moved, QUERY)


def test_a_query_that_finds_everything_equally_good_can_still_be_moved():
    """Its scores have no spread that could be brought to the teacher's."""
    far = refine_query(np.array([[0.0, 0.0]], np.float32), [DOCS], [SAID], KL, steps=50)
    assert np.isfinite(far).all()
    assert (DOCS @ far[0]).argmax() == 1


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 scores for 3 documents"):
        refine_query(QUERY, [DOCS], [SAID[:2]], KL)
    with pytest.raises(DataError, match="1 queries, 2 lists"):
        refine_query(QUERY, [DOCS, DOCS], [SAID], KL)
