"""Numbers small enough for a pencil; the same ones stand in the losses' docstrings."""

from __future__ import annotations

import math

import pytest
import torch

from rerankdistill.contracts import Layers, Logits, Preferences, Scores, Vectors
from rerankdistill.kinds import open_kind

LN2, LN3 = math.log(2), math.log(3)


def on_vectors(kind, student, teacher, queue=None, **options):
    pair = Vectors(*(None if part is None else torch.tensor(part) for part in (student, teacher, queue)))
    total, weight = open_kind("losses", kind)(**options)(Scores(torch.empty(0, 0), vectors=pair))
    return (total / weight).item()


def compared(make, student, *said, **more):
    """One query, and what a teacher says of (first, second, probability)."""
    first, second, probability = zip(*said, strict=True)
    scores = make([student], **more)
    row, *columns = (torch.tensor(each) for each in ([0] * len(said), first, second))
    scores.preferences = Preferences(row, *columns, torch.tensor(probability))
    return scores


def test_margin_mse(make, mean_of):
    scores = make([[2.0, 1.0]], [[3.0, 1.0]], [0])
    assert mean_of(open_kind("losses", "margin_mse")(), scores).item() == pytest.approx(1.0)
    assert mean_of(open_kind("losses", "margin_mse")(fit=True), scores).item() == pytest.approx(0.0)
    assert mean_of(open_kind("losses", "margin_mse")(scale=0.5), scores).item() == pytest.approx(0.0)
    assert mean_of(open_kind("losses", "margin_mse")(margin=3), scores).item() == pytest.approx(4.0)


def test_kl_div(make, mean_of):
    scores = make([[0.0, 0.0]], [[LN3, 0.0]], label=[[0.0, 1.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert expected == pytest.approx(0.1308, abs=1e-4)
    assert mean_of(open_kind("losses", "kl_div")(), scores).item() == pytest.approx(expected)
    # half the label: target (3/8, 5/8)
    mixed = 0.375 * math.log(0.75) + 0.625 * math.log(1.25)
    assert mean_of(open_kind("losses", "kl_div")(alpha=0.5), scores).item() == pytest.approx(mixed)
    # a share that float32 cannot hold is not rounded on its way
    tenth = 0.9 * 0.75, 0.9 * 0.25 + 0.1
    exact = sum(p * math.log(2 * p) for p in tenth)
    assert mean_of(open_kind("losses", "kl_div")(alpha=0.1), scores).item() == pytest.approx(exact, rel=1e-13)
    # nothing but the label: cross-entropy against the second document
    assert mean_of(open_kind("losses", "kl_div")(alpha=1), scores).item() == pytest.approx(LN2)


def test_infonce(make, mean_of):
    loss = open_kind("losses", "infonce")(tau=1)
    assert mean_of(loss, make([[LN3, 0.0]], positive=[0])).item() == pytest.approx(-math.log(0.75))
    assert -math.log(0.75) == pytest.approx(0.2877, abs=1e-4)
    both = open_kind("losses", "infonce")(tau=1, symmetric=True)
    found = mean_of(both, make([[LN3, 0.0], [0.0, 0.0]], positive=[0, 1])).item()
    assert found == pytest.approx((math.log(4 / 3) + LN2) / 2) == pytest.approx(0.4904, abs=1e-4)


def test_localized_contrastive(make, mean_of):
    loss = open_kind("losses", "localized_contrastive")()
    assert mean_of(loss, make([[LN2, 0.0, 0.0]], positive=[0])).item() == pytest.approx(LN2)


def test_ranknet_is_in_natural_logarithms_not_base_2(make, mean_of):
    loss = open_kind("losses", "ranknet")()
    assert mean_of(loss, make([[LN3, 0.0]], [[1.0, 0.0]])).item() == pytest.approx(math.log(4 / 3))
    assert mean_of(loss, make([[0.0, 0.0]], [[1.0, 0.0]])).item() == pytest.approx(LN2)


def test_ranknet_with_soft_targets_and_with_weights(make, mean_of):
    scores = make([[LN3, 0.0]], [[1.0, 0.0]])
    by_rank = open_kind("losses", "ranknet")(weights="ranks")
    assert mean_of(by_rank, scores).item() == pytest.approx(math.log(4 / 3) / 3)
    # the teacher prefers the first with 3 to 1: 3/4 ln 4/3 + 1/4 ln 4, in whichever order the two come
    soft = open_kind("losses", "ranknet")(targets="soft")
    expected = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert mean_of(soft, make([[LN3, 0.0]], [[LN3, 0.0]])).item() == pytest.approx(expected)
    assert mean_of(soft, make([[0.0, LN3]], [[0.0, LN3]])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("reverse", 0.5 * math.log(2 / 3) + 0.5 * LN2),
        ("symmetric", (0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 0.5 * math.log(2 / 3) + 0.5 * LN2) / 2),
        # halfway: (5/8, 3/8)
        ("js", (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3) + 0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)) / 2),
        # a tenth of the way back to the teacher: (0.525, 0.475)
        ("skew", 0.75 * math.log(0.75 / 0.525) + 0.25 * math.log(0.25 / 0.475)),
    ],
)
def test_divergence(form, expected, make, mean_of):
    loss = open_kind("losses", "divergence")(form=form)
    assert mean_of(loss, make([[0.0, 0.0]], [[LN3, 0.0]])).item() == pytest.approx(expected)


def test_listnet_and_taid(make, mean_of):
    assert mean_of(open_kind("losses", "listnet")(), make([[0.0, 0.0]], [[LN3, 0.0]])).item() == pytest.approx(LN2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert mean_of(open_kind("losses", "taid")(), make([[0.0, 0.0]], [[2 * LN3, 0.0]])).item() == pytest.approx(
        expected
    )


def test_list_mle(make, mean_of):
    scores = make([[0.0, LN2, 0.0]], [[3.0, 2.0, 1.0]])
    first, second = math.log(4), math.log(3) - LN2

    def found(**options):
        return mean_of(open_kind("losses", "list_mle")(**options), scores).item()

    assert found() == pytest.approx(first + second) == pytest.approx(1.7918, abs=1e-4)
    assert found(top_k=1) == pytest.approx(first)
    assert found(positions="mean") == pytest.approx((first + second) / 3)
    assert found(positions="mean", top_k=2) == pytest.approx((first + second) / 2)
    assert found(positions="weighted") == pytest.approx((7 * first + 3 * second) / 11)
    assert found(positions="weighted", top_k=1) == pytest.approx(first)


def test_plackett_luce(make, mean_of):
    loss = open_kind("losses", "plackett_luce")
    assert mean_of(loss(), make([[0.0, 0.0]], [[LN3, 0.0]])).item() == pytest.approx(0.75 * LN2)
    # the second document is the given positive: picked first, it still weighs a quarter
    labelled = make([[LN3, 0.0]], [[LN3, 0.0]], [1])
    assert mean_of(loss(label_first=True), labelled).item() == pytest.approx(0.25 * math.log(4))


@pytest.mark.parametrize(
    ("scheme", "weight"),
    [
        ("lambdarank", 1 - 1 / math.log2(3)),
        ("ndcg2", 1 - 1 / math.log2(3)),
        ("ndcg2pp", 11 * (1 - 1 / math.log2(3))),
    ],
)
def test_lambda_loss_is_in_natural_logarithms_not_base_2(scheme, weight, make, mean_of):
    loss = open_kind("losses", "lambda_loss")(scheme=scheme)
    # the teacher's order makes grades 1 and 1/2; the labels say 1 and 0
    half = math.sqrt(2) - 1
    by_teacher = (1 - half) / (1 + half / math.log2(3))
    assert mean_of(loss, make([[0.0, 0.0]], [[7.0, -7.0]])).item() == pytest.approx(weight * by_teacher * LN2)
    labels = open_kind("losses", "lambda_loss")(scheme=scheme, grades="label")
    assert mean_of(labels, make([[0.0, 0.0]], label=[[1.0, 0.0]])).item() == pytest.approx(weight * LN2)


def test_lambda_loss_by_distance_and_by_rank_differ_in_a_list_of_three(make, mean_of):
    scores = make([[0.0, 2.0, 1.0]], label=[[1.0, 0.0, 0.0]])  # student ranks 3, 1, 2
    far, near = math.log(1 + math.exp(2)), math.log(1 + math.exp(1))
    log2_3 = math.log2(3)

    def found(scheme):
        return mean_of(open_kind("losses", "lambda_loss")(scheme=scheme, grades="label"), scores).item()

    assert found("lambdarank") == pytest.approx((far * (1 - 1 / 2) + near * (1 / log2_3 - 1 / 2)) / 2)
    assert found("ndcg2") == pytest.approx((far * (1 / log2_3 - 1 / 2) + near * (1 - 1 / log2_3)) / 2)


def test_adr_mse(make, mean_of):
    loss = open_kind("losses", "adr_mse")
    scores = make([[0.0, 0.0]], [[1.0, 0.0]])
    assert mean_of(loss(), scores).item() == pytest.approx((0.25 + 0.25 / math.log2(3)) / 2)
    assert mean_of(loss(discount="reciprocal"), scores).item() == pytest.approx((0.25 + 0.25 / 2) / 2)
    assert mean_of(loss(discount="none"), scores).item() == pytest.approx(0.25)
    # tied documents share rank 1.5, which equal scores reach; by column they cannot
    tied = make([[0.0, 0.0]], [[1.0, 1.0]])
    assert mean_of(loss(), tied).item() == pytest.approx(0)
    assert mean_of(loss(ties="column", discount="none"), tied).item() == pytest.approx(0.25)
    # alpha multiplies: sigmoid(2 ln 3) = 9/10
    steep = make([[LN3, 0.0]], [[1.0, 0.0]])
    assert mean_of(loss(alpha=2, discount="none"), steep).item() == pytest.approx(0.01)


def test_approx_rank(make, mean_of):
    loss = open_kind("losses", "approx_rank")
    scores = make([[0.0, 0.0]], [[5.0, 1.0]], label=[[1.0, 0.0]])
    assert mean_of(loss(grades="label"), scores).item() == pytest.approx(1 - 1 / math.log2(2.5))
    assert mean_of(loss(grades="label", measure="mrr"), scores).item() == pytest.approx(1 / 3)
    # the teacher's order makes grades 1 and 1/2
    expected = 1 - (1.5 / math.log2(2.5)) / (1 + 0.5 / math.log2(3))
    assert mean_of(loss(gain="linear"), scores).item() == pytest.approx(expected)


def test_pearson(make, mean_of):
    loss = open_kind("losses", "pearson")()
    assert mean_of(loss, make([[0.0, 0.0, 1.0]], [[2.0, 0.0, 1.0]])).item() == pytest.approx(1)
    assert mean_of(loss, make([[1.0, 3.0]], [[70.0, 10.0]])).item() == pytest.approx(2)


def test_pointwise(make, mean_of):
    bce, mse = (open_kind("losses", f"pointwise_{name}") for name in ("bce", "mse"))
    assert mean_of(bce(), make([[0.0, 0.0]], [[LN3, LN3]])).item() == pytest.approx(LN2)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert math.log(4) - 0.75 * LN3 == pytest.approx(entropy)
    for loss, teacher in ((bce(), LN3), (bce(tau_teacher=2), 2 * LN3), (bce(target="probability"), 0.75)):
        assert mean_of(loss, make([[LN3, LN3]], [[teacher, teacher]])).item() == pytest.approx(entropy)
    graded = make([[LN3, LN3]], label=[[3.0, 9.0]])  # 3 of 4 and, above the highest, 1
    expected = (entropy + math.log(4 / 3)) / 2
    assert mean_of(bce(target="label", highest=4), graded).item() == pytest.approx(expected)
    scores = make([[1.0, 0.0]], [[3.0, 1.0]])
    assert mean_of(mse(), scores).item() == pytest.approx(2.5)
    assert mean_of(mse(scale=2), scores).item() == pytest.approx((25 + 4) / 2)


def test_bixse(make, mean_of):
    scores = make([[0.5, 0.5]], label=[[1.0, 0.0]])
    assert mean_of(open_kind("losses", "bixse")(), scores).item() == pytest.approx(2 * LN2)
    assert mean_of(open_kind("losses", "bixse")(reduction="mean"), scores).item() == pytest.approx(LN2)
    graded = make([[LN3, 0.0]], label=[[3.0, 0.0]])
    loss = open_kind("losses", "bixse")(scale=1, bias=0, highest=4)
    assert mean_of(loss, graded).item() == pytest.approx(math.log(4) - 0.75 * LN3 + LN2)
    scored = [[True, False]]  # nobody graded the second: it is of another query, and irrelevant
    graded = make([[LN3, 0.0]], teacher=[[3.0, 7.0]], scored=scored, label=[[0.0, 4.0]])
    loss = open_kind("losses", "bixse")(scale=1, bias=0, highest=4, grades="teacher")
    assert mean_of(loss, graded).item() == pytest.approx(math.log(4) - 0.75 * LN3 + LN2)


def test_vectors():
    assert on_vectors("embed_cosine", [[1.0, 0.0]], [[1.0, 1.0]]) == pytest.approx(1 - 1 / math.sqrt(2))
    assert on_vectors("embed_mse", [[1.0, 0.0]], [[0.0, 0.0]]) == pytest.approx(0.5)
    assert on_vectors("similarity_mse", [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(0.5)
    line = [[0.0], [1.0], [3.0]], [[0.0], [1.0], [2.0]]
    assert on_vectors("rkd_distance", *line) == pytest.approx(2 / 32 / 3) == pytest.approx(0.0208, abs=1e-4)
    # beyond a quarter of that difference the price is a straight line
    assert on_vectors("rkd_distance", *line, huber=1 / 16) == pytest.approx(2 / 16 * (1 / 4 - 1 / 32) / 3)


def test_contrastive_kd():
    unit = [[1.0, 0.0], [0.0, 1.0]]
    alone = on_vectors("contrastive_kd", unit, unit, tau=1)
    assert alone == pytest.approx(math.log(1 + math.exp(-1))) == pytest.approx(0.3133, abs=1e-4)
    queued = on_vectors("contrastive_kd", unit, unit, [[-1.0, 0.0]], tau=1)
    expected = (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + 2 * math.exp(-1))) / 2
    assert queued == pytest.approx(expected) == pytest.approx(0.4795, abs=1e-4)


def test_relative_similarity():
    def at(*degrees):  # unit vectors in the plane: three texts have three pairs
        return [[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees]

    def cos(degrees):
        return math.cos(math.radians(degrees))

    # teacher: pairs (0, 1), (1, 2), (0, 2) fall from alike to unlike; the student has the first two the wrong way round
    found = on_vectors("relative_similarity", at(0, 50, 90), at(0, 30, 80))
    assert found == pytest.approx((cos(40) - cos(50) + 0.015) / 3, rel=1e-5)
    assert on_vectors("relative_similarity", at(0, 30, 80), at(0, 30, 80)) == 0
    wide = (cos(40) - cos(50) + cos(90) - cos(50) + cos(90) - cos(40) + 3 * 1.0) / 3
    assert on_vectors("relative_similarity", at(0, 50, 90), at(0, 30, 80), margin=1) == pytest.approx(wide, rel=1e-5)


def test_pairwise_preference(make, mean_of):
    kl, bce = (open_kind("losses", "pairwise_preference")(form=form) for form in ("kl", "bce"))
    scores = compared(make, [0.0, 0.0], (0, 1, 0.75))
    assert mean_of(kl, scores).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert mean_of(bce, scores).item() == pytest.approx(LN2)
    assert mean_of(kl, compared(make, [LN3, 0.0], (0, 1, 0.75))).item() == pytest.approx(0)
    # a mean over comparisons; the other way round it is the same comparison
    twice = compared(make, [LN3, 0.0], (0, 1, 0.75), (0, 1, 1.0), (1, 0, 0.0))
    assert mean_of(kl, twice).item() == pytest.approx(2 * math.log(4 / 3) / 3)
    steep = open_kind("losses", "pairwise_preference")(sigma=2)
    assert mean_of(steep, compared(make, [LN3, 0.0], (0, 1, 0.9))).item() == pytest.approx(0)


def test_partial_plackett_luce(make, mean_of):
    loss = open_kind("losses", "partial_plackett_luce")(tau=1)
    own = torch.tensor([[True, True, False]])
    scores = compared(make, [LN2, 0.0, 0.0], (0, 1, 0.6), own=own)
    assert mean_of(loss, scores).item() == pytest.approx(math.log(4 / 2) + LN2) == pytest.approx(1.3863, abs=1e-4)
    # said the other way round: the second is picked first
    turned = compared(make, [LN2, 0.0, 0.0], (0, 1, 0.2), own=own)
    assert mean_of(loss, turned).item() == pytest.approx(math.log(4) + math.log(3 / 2))


def test_two_logit_mse():
    pair = Logits(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 5.0]]]))
    for centre, expected in ((True, 4), (False, 13)):
        total, weight = open_kind("losses", "two_logit_mse")(centre=centre)(Scores(torch.zeros(1, 1), logits=pair))
        assert (total / weight).item() == pytest.approx(expected)


def test_layer_alignment(make, mean_of):
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    scores = make([[0.0, 0.0]], positive=[0])
    scores.layers = Layers(torch.zeros(1, 1, 2), torch.tensor([[[LN3, 0.0]]]))
    assert mean_of(open_kind("losses", "layer_alignment")(), scores).item() == pytest.approx(apart)
    scores.layers = Layers(torch.zeros(2, 1, 2), torch.tensor([[[LN3, 0.0]], [[0.0, 0.0]]]))
    assert mean_of(open_kind("losses", "layer_alignment")(tau_layer=1), scores).item() == pytest.approx(0.6 * apart)
    assert mean_of(open_kind("losses", "layer_alignment")(weights="even"), scores).item() == pytest.approx(apart / 2)


def test_adaptive_margin(make, mean_of):
    scores = make([[1.0, 0.0]], positive=[0], docs=[[1.0, 0.0], [0.0, 1.0]])
    assert mean_of(open_kind("losses", "adaptive_margin")(), scores).item() == pytest.approx(0.25)
    scores.docs = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # alike: a whole point ahead, as it is
    assert mean_of(open_kind("losses", "adaptive_margin")(), scores).item() == pytest.approx(0)


def test_several_positives(make, mean_of):
    near = open_kind("losses", "soft_nearest_neighbour")(tau=1)
    found = mean_of(near, make([[LN2, 0.0, 0.0]], label=[[1.0, 2.0, 0.0]])).item()
    assert found == pytest.approx(-math.log(3 / 4)) == pytest.approx(0.2877, abs=1e-4)
    scores = make([[0.5, 0.5, 0.0]], label=[[1.0, 1.0, 0.0]])
    for pool, ahead in (("sum", 1.0), ("mean", 0.5)):
        summed = open_kind("losses", "summed_positives")(tau=1, pool=pool)
        assert mean_of(summed, scores).item() == pytest.approx(math.log(1 + math.exp(-ahead)))
