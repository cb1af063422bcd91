"""Losses that look across the queries of a batch: who is whose negative."""

from __future__ import annotations

import warnings

import pytest
import torch

from rerankdistill.contracts import Scores
from rerankdistill.errors import CardError, DataError, RerankDistillWarning
from rerankdistill.kinds import open_kind

OWN = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()


def two_queries(make, **more) -> Scores:
    """Two documents of each query, the first of them its positive; cosines among the four."""
    unit = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(5)))
    student = [[0.9, 0.2, 0.5, -0.3], [0.1, 0.4, 0.7, 0.6]]
    more = {"label": [[1.0, 0, 0, 0], [0, 0, 1, 0]], **more}
    scores = make(student, positive=[0, 2], **more)
    scores.own, scores.docs = OWN, (unit @ unit.T).double().requires_grad_()
    return scores


# infonce, in both directions


def back(make, mean_of, **changes) -> float:
    """The direction from documents to queries alone."""
    scores = two_queries(make, **changes)
    plain, both = (mean_of(open_kind("losses", "infonce")(tau=1, symmetric=s), scores).item() for s in (False, True))
    return 2 * both - plain


def test_a_positive_is_held_against_the_other_queries(make, mean_of):
    columns = torch.tensor([[0.9, 0.1], [0.7, 0.5]])
    assert back(make, mean_of) == pytest.approx(-columns.log_softmax(1)[:, 0].mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": [[1.0, 0, 1, 0], [1.0, 0, 1, 0]]},
        {"masked": torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]]).bool()},
    ],
)
def test_a_query_that_the_document_is_relevant_to_as_well_is_no_negative(changes, make, mean_of, gradient_of):
    scores, loss = two_queries(make, **changes), open_kind("losses", "infonce")(tau=1, symmetric=True)
    plain = open_kind("losses", "infonce")(tau=1)
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(plain, scores).item()), "no direction back is left"
    assert gradient_of(loss, scores)[1, 0] == 0


def test_a_document_that_two_queries_share_as_their_positive_pushes_neither_away(make, mean_of, gradient_of):
    scores, loss = two_queries(make), open_kind("losses", "infonce")(tau=1, symmetric=True)
    scores.positive, scores.label = torch.tensor([0, 0]), None
    plain = open_kind("losses", "infonce")(tau=1)
    assert torch.allclose(gradient_of(loss, scores), gradient_of(plain, scores))


def test_one_query_alone_has_no_way_back_and_is_not_halved_for_it(make, mean_of):
    scores = make([[1.0, 0.5]], positive=[0])
    plain, both = (open_kind("losses", "infonce")(tau=1, symmetric=s) for s in (False, True))
    assert mean_of(both, scores).item() == pytest.approx(mean_of(plain, scores).item())


def test_a_query_without_a_positive_is_a_rival_and_counts_itself_nothing(make):
    scores = two_queries(make)
    scores.positive = torch.tensor([0, -1])
    total, weight = open_kind("losses", "infonce")(tau=1, symmetric=True)(scores)
    forth = -scores.student[0].log_softmax(0)[0]
    assert weight == 1
    assert total.item() == pytest.approx(((forth - scores.student[:, 0].log_softmax(0)[0]) / 2).item())


@pytest.mark.parametrize(("kind", "options"), [("infonce", {"symmetric": True}), ("summed_positives", {})])
def test_comparing_columns_of_lists_that_are_not_the_same_documents_is_warned_of(kind, options, make):
    loss, scores = open_kind("losses", kind)(**options), two_queries(make)
    scores.own = torch.ones_like(OWN)
    with pytest.warns(RerankDistillWarning, match="across queries"):
        loss(scores)
    scores.own, scores.valid = OWN, OWN
    with pytest.warns(RerankDistillWarning, match="across queries"):
        loss(scores)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(two_queries(make))


# adaptive_margin


def test_nobodys_positive_is_pushed_away_and_the_others_are_not(make, gradient_of):
    """Column 2 is the second query's positive, 1 and 3 are negatives of both."""
    slope = gradient_of(open_kind("losses", "adaptive_margin")(), two_queries(make))
    assert torch.equal(slope != 0, torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]]).bool())
    slope = gradient_of(open_kind("losses", "adaptive_margin")(mode="paired"), two_queries(make))
    assert torch.equal(slope != 0, torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool())


@pytest.mark.parametrize(
    "changes",
    [
        {"label": [[1.0, 2.0, 0, 0], [0, 0, 1, 0]]},
        {"masked": torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0]]).bool()},
    ],
)
@pytest.mark.parametrize("mode", ["in_batch", "paired"])
def test_what_is_relevant_too_is_no_negative_of_that_query(mode, changes, make, gradient_of):
    loss = open_kind("losses", "adaptive_margin")(mode=mode)
    slope = gradient_of(loss, two_queries(make, **changes))
    assert slope[0, 1] == 0
    assert gradient_of(loss, two_queries(make))[0, 1] != 0


def test_the_margin_is_no_way_out_unless_it_is_let_be_one(make):
    for detach in (True, False):
        scores = two_queries(make)
        scores.student = torch.zeros_like(scores.student).requires_grad_()  # not far enough ahead of anything
        total, _ = open_kind("losses", "adaptive_margin")(detach_target=detach)(scores)
        total.backward()
        assert (scores.docs.grad is None) == detach
    assert scores.docs.grad[0, 1] > 0, "the two are pushed apart"
    assert scores.docs.grad[0, 2] == 0, "somebody's positive"


def test_the_published_axis_differs_from_the_row_aligned_one(make, mean_of):
    found = {
        mode: mean_of(open_kind("losses", "adaptive_margin")(mode=mode), two_queries(make)).item()
        for mode in ("in_batch", "in_batch_published", "distributed", "paired")
    }
    assert len({round(value, 6) for value in found.values()}) == 4


@pytest.mark.parametrize("shift", [-7.0, 0.3])
def test_adding_a_constant_to_a_querys_scores_does_not_change_its_margins(shift, make, mean_of):
    loss, scores = open_kind("losses", "adaptive_margin")(), two_queries(make)
    before = mean_of(loss, scores).item()
    scores.student = scores.student + shift
    assert mean_of(loss, scores).item() == pytest.approx(before)


def test_similarities_that_are_no_cosines_are_no_margin(make):
    scores = two_queries(make)
    scores.docs = 3 * scores.docs
    with pytest.raises(DataError, match="no cosine"):
        open_kind("losses", "adaptive_margin")()(scores)
    scores.docs = scores.docs[:3, :3]
    with pytest.raises(DataError, match="docs must be"):
        open_kind("losses", "adaptive_margin")()(scores)


@pytest.mark.parametrize("mode", ["paired", "in_batch_published", "distributed"])
def test_whose_list_a_document_is_of_must_be_known_where_it_matters(mode, make):
    scores = two_queries(make)
    scores.own = None
    with pytest.raises(DataError, match="has no own"):
        open_kind("losses", "adaptive_margin")(mode=mode)(scores)
    assert open_kind("losses", "adaptive_margin")()(scores)[1] == 4


def test_a_batch_without_any_positive_teaches_no_margin(make):
    scores = two_queries(make)
    scores.positive = torch.tensor([-1, -1])
    assert [each.item() for each in open_kind("losses", "adaptive_margin")()(scores)] == [0, 0]


# Several positives

SEVERAL = ["soft_nearest_neighbour", "summed_positives"]


@pytest.mark.parametrize("kind", SEVERAL)
def test_with_one_positive_each_it_is_infonce(kind, make, mean_of, gradient_of):
    loss, plain = open_kind("losses", kind)(tau=1), open_kind("losses", "infonce")(tau=1)
    assert mean_of(loss, two_queries(make)).item() == pytest.approx(mean_of(plain, two_queries(make)).item())
    assert torch.allclose(gradient_of(loss, two_queries(make)), gradient_of(plain, two_queries(make)), atol=1e-12)


@pytest.mark.parametrize("kind", SEVERAL)
def test_no_further_positive_is_pushed_away_whatever_its_grade(kind, make, gradient_of):
    loss = open_kind("losses", kind)(tau=1)
    few, many = ({"label": [[1.0, grade, 0, 0], [0, 0, 1, 0]]} for grade in (1.0, 3.0))
    assert gradient_of(loss, two_queries(make, **few))[0, 1] < 0
    assert torch.allclose(gradient_of(loss, two_queries(make, **few)), gradient_of(loss, two_queries(make, **many)))


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_pseudo_positive_that_nobody_labelled_is_one(kind, make, gradient_of):
    slope = gradient_of(open_kind("losses", kind)(tau=1), two_queries(make, label=torch.zeros(2, 4)))
    assert (slope[0, 0] < 0) & (slope[1, 2] < 0)


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_likely_false_negative_leaves_the_denominator(kind, make, gradient_of):
    masked = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    slope = gradient_of(open_kind("losses", kind)(tau=1), two_queries(make, masked=masked))
    assert torch.equal(slope[0] != 0, torch.tensor([True, False, False, True]))


@pytest.mark.parametrize("kind", SEVERAL)
def test_own_lists_see_no_other_query(kind, make, gradient_of):
    assert torch.equal(gradient_of(open_kind("losses", kind)(over="own"), two_queries(make)) != 0, OWN)


@pytest.mark.parametrize("kind", SEVERAL)
def test_lists_without_a_positive_or_without_anything_else_do_not_dilute_the_mean(kind, make):
    scores = make(torch.zeros(3, 2), label=[[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    total, weight = open_kind("losses", kind)(tau=1, over="own")(scores)
    assert weight == 1
    assert total.item() == pytest.approx(torch.tensor(2.0).log().item())


def test_another_querys_positives_are_one_rival_together_but_for_what_this_query_likes_too(make):
    def surprise(own: float, *rivals: float) -> float:
        return (torch.tensor([own, *rivals]).logsumexp(0) - own).item()

    loss, label = open_kind("losses", "summed_positives")(tau=1), [[1.0, 0, 0, 0], [0, 0, 1, 1]]
    second = surprise(0.7 + 0.6, 0.1, 0.4)
    total, weight = loss(two_queries(make, label=label))
    assert weight == 2
    assert total.item() == pytest.approx(surprise(0.9, 0.5 - 0.3, 0.2) + second, rel=1e-6)
    masked = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]]).bool()
    total, _ = loss(two_queries(make, label=label, masked=masked))
    assert total.item() == pytest.approx(surprise(0.9, -0.3, 0.2) + second, rel=1e-6)
    masked[0, 3] = True  # nothing of the other query's is left
    total, _ = loss(two_queries(make, label=label, masked=masked))
    assert total.item() == pytest.approx(surprise(0.9, 0.2) + second, rel=1e-6)


def test_a_mean_of_positives_does_not_outweigh_a_single_one(make, mean_of):
    even = two_queries(make, label=[[1.0, 1.0, 0, 0], [0, 0, 1, 0]])
    even.student = torch.full((2, 4), 0.5).double()
    pooled = mean_of(open_kind("losses", "summed_positives")(tau=1, pool="mean"), even).item()
    assert pooled == pytest.approx((torch.tensor(3.0).log() + torch.tensor(3.0).log()).item() / 2)
    assert mean_of(open_kind("losses", "summed_positives")(tau=1), even).item() != pytest.approx(pooled)


def test_an_unknown_way_to_pool_is_refused():
    with pytest.raises(CardError, match="pool"):
        open_kind("losses", "summed_positives")(pool="max")
