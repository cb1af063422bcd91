"""The same arithmetic as sentence-transformers, where it has the loss."""

from __future__ import annotations

import math

import pytest
import torch

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


def test_ranknet_is_theirs_times_ln_2(make, mean_of):
    from sentence_transformers.cross_encoder.losses import RankNetLoss

    logits, labels = [1.5, -0.3, 0.8, 0.1], [3.0, 1.0, 0.0, 2.0]

    class Scorer(torch.nn.Module):
        num_labels = 1
        device = torch.device("cpu")

        def preprocess(self, pairs, **_):
            return {"rows": torch.tensor(["abcd".index(document) for _, document in pairs])}

        tokenize = preprocess

        def forward(self, tokens):
            return {"scores": torch.tensor(logits)[tokens["rows"], None]}

    theirs = RankNetLoss(Scorer())((["q"], [["a", "b", "c", "d"]]), [torch.tensor(labels)])
    ours = mean_of(open_kind("losses", "ranknet")(), make([logits], [labels]))
    assert ours.item() == pytest.approx(theirs.item() * math.log(2), rel=1e-5)
