"""The same arithmetic as sentence-transformers, where it has the loss."""

from __future__ import annotations

import math

import pytest
import torch

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.kinds import open_kind

pytest.importorskip("sentence_transformers")


class Fake(torch.nn.Module):
    """Stands where a model is expected; the losses are handed embeddings."""

    def similarity(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b.T


@pytest.fixture(scope="module")
def vectors() -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    return [torch.randn(5, 8, generator=chance) for _ in range(5)]


def scores_of(vectors: list[torch.Tensor], teacher: torch.Tensor, make):
    query, documents = vectors[0], vectors[1:]
    return make(torch.stack([(query * document).sum(1) for document in documents], 1), teacher, [0] * len(query))


def test_margin_mse(vectors, make, mean_of):
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    teacher = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    theirs = MarginMSELoss(Fake()).compute_loss_from_embeddings(vectors, teacher)
    ours = mean_of(open_kind("losses", "margin_mse")(pairs="given"), scores_of(vectors, teacher, make))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_kl_div_is_theirs_over_the_squared_temperature(vectors, make, mean_of):
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

    teacher = torch.randn(5, 4, generator=torch.Generator().manual_seed(5))
    theirs = DistillKLDivLoss(Fake(), temperature=2.0).compute_loss_from_embeddings(vectors, teacher)
    loss = open_kind("losses", "kl_div")(tau_student=2.0, tau_teacher=2.0, multiplier=4.0)
    assert mean_of(loss, scores_of(vectors, teacher, make)).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_infonce(vectors, make, mean_of):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    unit = [torch.nn.functional.normalize(part) for part in vectors]
    theirs = MultipleNegativesRankingLoss(Fake(), scale=20.0).compute_loss_from_embeddings(unit, None)
    ours = mean_of(open_kind("losses", "infonce")(), make(unit[0] @ torch.cat(unit[1:]).T, positive=range(5)))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_symmetric_infonce_is_their_mean_of_both_directions(vectors, make, mean_of):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    unit = [torch.nn.functional.normalize(part) for part in vectors]
    ways = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    theirs = MultipleNegativesRankingLoss(Fake(), scale=20.0, **ways).compute_loss_from_embeddings(unit, None)
    scores = make(unit[0] @ torch.cat(unit[1:]).T, positive=range(5))
    ours = mean_of(open_kind("losses", "infonce")(symmetric=True), scores)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_contrastive_kd_is_their_contrast_of_the_students_vectors_with_the_teachers(vectors, mean_of):
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    student, teacher, queue = (torch.nn.functional.normalize(part) for part in vectors[:3])
    theirs = MultipleNegativesRankingLoss(Fake(), scale=20.0)
    for more, held in (([], None), ([queue], queue)):
        expected = theirs.compute_loss_from_embeddings([student, teacher, *more], None).item()
        ours = mean_of(open_kind("losses", "contrastive_kd")(), texts(vectors[0], vectors[1], held)).item()
        assert ours == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("kind", "metric"), [("embed_cosine", "cosine"), ("embed_mse", "mse")])
def test_a_text_held_to_the_teachers_vector(kind, metric, vectors, mean_of):
    from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss

    student, teacher, *_ = vectors
    theirs = EmbedDistillLoss(Fake(), distance_metric=metric).compute_loss_from_embeddings([student], [teacher])
    assert mean_of(open_kind("losses", kind)(), texts(student, teacher)).item() == pytest.approx(
        theirs.item(), rel=1e-5
    )


def texts(student: torch.Tensor, teacher: torch.Tensor, queue: torch.Tensor | None = None) -> Scores:
    return Scores(torch.empty(0, 0), vectors=Vectors(student, teacher, queue))


LOGITS = [[1.5, -0.3, 0.8, 0.1], [0.2, 2.1, -0.7]]
GRADES = [[3.0, 1.0, 0.0, 2.0], [0.0, 1.0, 2.0]]


class Scorer(torch.nn.Module):
    """Stands where a cross-encoder is expected: a pair is (row, column) of the logits."""

    num_labels = 1
    device = torch.device("cpu")

    def preprocess(self, pairs, **_):
        return {"logits": torch.tensor([LOGITS[row][column] for row, column in pairs])}

    tokenize = preprocess

    def forward(self, tokens):
        return {"scores": tokens["logits"][:, None]}


def listwise(loss) -> float:
    """A loss of theirs, of a list of four and a list of three."""
    columns = [list(range(len(row))) for row in LOGITS]
    return loss((list(range(len(LOGITS))), columns), [torch.tensor(row) for row in GRADES]).item()


def ours(kind: str, make, mean_of, **options) -> float:
    """The same lists, padded; their labels stand for a teacher's scores and for labels."""
    width = max(map(len, LOGITS))
    student, grades = ([row + [9.0] * (width - len(row)) for row in rows] for rows in (LOGITS, GRADES))
    scores = make(student, grades, label=grades)
    scores.valid = torch.tensor([[column < len(row) for column in range(width)] for row in LOGITS])
    return mean_of(open_kind("losses", kind)(**options), scores).item()


def test_ranknet_is_theirs_times_ln_2(make, mean_of):
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    theirs = listwise(RankNetLoss(Scorer())) * math.log(2)
    assert ours("ranknet", make, mean_of, reduction="mean_pairs") == pytest.approx(theirs, rel=1e-5)


def test_listnet(make, mean_of):
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    assert ours("listnet", make, mean_of) == pytest.approx(listwise(ListNetLoss(Scorer())), rel=1e-5)


def test_list_mle_is_theirs_once_they_sort(make, mean_of):
    from sentence_transformers.cross_encoder.losses import ListMLELoss, PListMLELambdaWeight, PListMLELoss

    theirs = listwise(ListMLELoss(Scorer(), respect_input_order=False))
    assert ours("list_mle", make, mean_of) == pytest.approx(theirs, rel=1e-5)
    assert listwise(ListMLELoss(Scorer())) != pytest.approx(theirs, rel=1e-2), "by default they take the given order"

    def from_zero(mask):  # theirs count places from one: the last pick, which adds nothing, then weighs nothing
        return (2.0 ** (mask.sum(1, keepdim=True) - torch.arange(mask.shape[1])) - 1) * mask

    weights = PListMLELambdaWeight(rank_discount_fn=from_zero)
    theirs = listwise(PListMLELoss(Scorer(), lambda_weight=weights, respect_input_order=False))
    assert ours("list_mle", make, mean_of, positions="weighted") == pytest.approx(theirs, rel=1e-5)


def test_adr_mse(make, mean_of):
    from sentence_transformers.cross_encoder.losses import ADRMSELoss

    assert ours("adr_mse", make, mean_of) == pytest.approx(listwise(ADRMSELoss(Scorer())), rel=1e-5)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize(
    ("scheme", "name"),
    [("lambdarank", "LambdaRankScheme"), ("ndcg2", "NDCGLoss2Scheme"), ("ndcg2pp", "NDCGLoss2PPScheme")],
)
def test_lambda_loss_is_theirs_times_ln_2(scheme, name, k, make, mean_of):
    from sentence_transformers.cross_encoder import losses

    weighting = getattr(losses, name)()
    theirs = listwise(losses.LambdaLoss(Scorer(), weighting_scheme=weighting, k=k)) * math.log(2)
    options = {"scheme": scheme, "k": k, "grades": "label", "reduction": "mean_pairs"}
    assert ours("lambda_loss", make, mean_of, **options) == pytest.approx(theirs, rel=1e-5)
