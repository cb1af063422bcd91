"""A student that is read in several ways learns in all of them, and its plain folder gives the vectors of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, lists, read
from tiny_models import SPECIAL, tokenizer, words_of

from rerankdistill.encoding import open_encoder
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds import query_tower
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.quantise import quantised
from rerankdistill.students.readings import Way, WaysOptions, compared
from rerankdistill.students.train import StageOptions, step_loss, train

WHOLE, CACHED = Budget(10**6, 10**6), Budget(40, 0)
TEXTS = list(DOCS.values())
GOLDEN = json.loads((Path(__file__).parents[1] / "losses/golden_losses.json").read_text("utf-8"))
EVERY = {"dims": (32, 16, 8), "quantise": ("int8", "binary"), "exits": (1, 2)}
LOSSES = {"infonce": {"tau": 0.05}, "kl_div": {"tau_student": 0.1}, "margin_mse": {}}


def loss_of(name):
    options = {name: LOSSES[name]} if LOSSES[name] else {}
    return parse(name, options, lambda found: open_kind("losses", found))


def student_of(tiny, **options):
    torch.manual_seed(1)
    return Kind.create(BiEncoderOptions(init=str(tiny), **options), "cpu")


def tower_of(tiny, **options):
    return query_tower.Kind.create(query_tower.QueryTowerOptions(init=str(tiny), **options), "cpu")


def unit(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@pytest.mark.parametrize("make", [student_of, tower_of])
def test_each_beginning_is_compared_by_its_own_cosine(tiny, make):
    """Cut without normalising again, a short vector is compared by how much of it lies in its beginning."""
    student = make(tiny, dims=(32, 8), dim_weights=(1, 0.5))
    batch = list_batch(LESSONS[:4], read, "batch")
    whole, short = student.read(batch, WHOLE, frozenset({"docs"}))
    assert (whole.weight, short.weight) == (1, 0.5)
    both = student.encoder()
    queries, docs = unit(both.encode(batch.queries, "query")[:, :8]), unit(both.encode(batch.docs, "doc")[:, :8])
    np.testing.assert_allclose(short.scores.detach().numpy(), queries @ docs.T, atol=1e-5)
    np.testing.assert_allclose(short.docs.detach().numpy(), docs @ docs.T, atol=1e-5)


def test_the_loss_is_the_weighted_sum_over_the_dimensions(tiny):
    """A mean would make the learning rate depend on how many there are."""
    student, batch = student_of(tiny, dims=(32, 16, 8), dim_weights=(1, 0.5, 2)), list_batch(LESSONS[:4], read, "batch")
    loss = loss_of("infonce")
    found = step_loss(student, loss, batch, WHOLE)
    queries, docs = student.embed(batch.queries, "query", WHOLE), student.embed(batch.docs, "doc", WHOLE)
    rows = torch.arange(len(batch))
    wanted = 0.0
    for width, weight in ((32, 1), (16, 0.5), (8, 2)):
        own, theirs = (torch.nn.functional.normalize(side[:, :width], dim=-1) for side in (queries, docs))
        scores = (own @ theirs.T / 0.05).masked_fill(batch.masked, -torch.inf)
        wanted += weight * torch.nn.functional.cross_entropy(scores, batch.positive[rows])
    torch.testing.assert_close(found, wanted)


def test_value_and_gradient_are_those_of_an_independent_computation():
    record = next(each for each in GOLDEN if each["id"] == "matryoshka_infonce.E.0")
    inputs = record["inputs"]
    parts = {name: torch.tensor(inputs[name], dtype=torch.float64, requires_grad=True) for name in inputs}
    dims, weights, tau = (record["params"][name] for name in ("dims", "weights", "tau"))
    ways = WaysOptions(dims=tuple(dims), dim_weights=tuple(weights)).trained_ways(dims[0], 0)
    queries, docs = parts["q"], torch.cat([parts["p"], parts["n"]])
    sides = [torch.nn.functional.normalize(side, dim=-1)[:, None] for side in (queries, docs)]
    own = torch.arange(len(queries))
    value = sum(
        reading.weight * torch.nn.functional.cross_entropy(reading.scores / tau, own)
        for reading in compared(*sides, ways, cosine=True, among_docs=False)
    )
    value.backward()
    assert value.item() == pytest.approx(record["value"], rel=1e-12)
    for name, wanted in record["grad_student"].items():
        np.testing.assert_allclose(parts[name].grad, wanted, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", [student_of, tower_of])
def test_encoding_twice_changes_no_gradient_in_any_of_the_ways(tiny, make, loss):
    found = []
    for budget in (WHOLE, CACHED):
        student = make(tiny, **EVERY)
        student.network.double()
        student.ready(training=True)
        step_loss(student, loss_of(loss), list_batch(LESSONS[:4], read, "batch"), budget).backward()
        named = student.network.named_parameters()
        found.append(torch.cat([p.grad.flatten() for _, p in named if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-9)


def test_a_way_that_weighs_nothing_is_not_trained(tiny):
    batch = list_batch(LESSONS[:4], read, "batch")
    none = {"dim_weights": (1, 0, 0), "quantise_weights": (0, 0), "exit_weights": (0, 0)}
    assert len(student_of(tiny, **EVERY, **none).read(batch, WHOLE, frozenset())) == 1
    assert len(student_of(tiny, **EVERY).read(batch, WHOLE, frozenset())) == 7


@pytest.mark.parametrize("bits", ["int8", "binary"])
@pytest.mark.parametrize("of_documents", [True, False])
def test_rounding_is_passed_over_by_the_gradient(bits, of_documents):
    """A rounded value has no slope: without the detour nothing would be learnt."""
    vectors = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    outward = torch.randn(7, 5, dtype=torch.float64)
    (quantised(vectors, bits, of_documents) * outward).sum().backward()
    torch.testing.assert_close(vectors.grad, outward)


def test_a_byte_holds_256_values_of_each_dimension_and_a_bit_two():
    torch.manual_seed(2)
    vectors = torch.randn(5000, 3) * torch.tensor([1.0, 10.0, 0.01]) + torch.tensor([0.0, 5.0, -1.0])
    kept = quantised(vectors, "int8", True)
    step = (vectors.amax(0) - vectors.amin(0)) / 255
    assert all(len(kept[:, at].unique()) <= 256 for at in range(3))
    assert bool(((kept - vectors).abs() <= step / 2 * 1.01).all())
    signs = quantised(vectors, "binary", True)
    assert len(signs.unique()) == 2
    assert torch.equal(signs > 0, vectors >= 0)
    torch.testing.assert_close(signs.norm(dim=-1).mean(), vectors.norm(dim=-1).mean())


@pytest.mark.parametrize("bits", ["int8", "binary"])
def test_one_vector_alone_or_twice_the_same_is_no_division_by_zero(bits):
    same = torch.ones(2, 4)
    for of_documents in (True, False):
        torch.testing.assert_close(quantised(same, bits, of_documents), same)
        assert torch.isfinite(quantised(torch.zeros(1, 4), bits, of_documents)).all()


def test_queries_stay_whole_unless_both_are_asked_for():
    vectors = torch.nn.functional.normalize(torch.randn(4, 6), dim=-1)
    assert torch.equal(Way(bits="binary").narrowed(vectors, True, False), vectors)
    assert len(Way(bits="binary", both=True).narrowed(vectors, True, False).unique()) == 2


def reciprocal_rank(student, way):
    """Of each query's own document among all."""
    encoder = student.encoder()
    docs, queries = torch.from_numpy(encoder.encode(TEXTS, "doc")), torch.from_numpy(encoder.encode(QUERIES, "query"))
    scores = way.narrowed(queries, True, False) @ way.narrowed(docs, True, True).T
    own = scores.diagonal()[:, None]
    ties = (scores == own).sum(1) - 1
    return float((1 / (1 + (scores > own).sum(1) + ties / 2)).mean())


def test_what_a_student_learnt_to_be_read_by_is_read_better(tiny, tmp_path):
    found, ways = {}, (Way(width=4), Way(bits="binary"))
    for name, more in (("without", {}), ("with", {"dims": (32, 4), "quantise": ("binary",)})):
        student = student_of(tiny, **more)
        stage = StageOptions(steps=40, batch=8, learning_rate=2e-3)
        train(student, lists(), loss_of("kl_div"), stage, tmp_path / name, 1)
        found[name] = [reciprocal_rank(student, way) for way in ways]
    for without, learnt in zip(*found.values(), strict=True):
        assert learnt > without + 0.05, found


def test_the_saved_folder_is_cut_by_its_own_library(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer

    student = student_of(tiny, dims=(32, 8))
    student.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", truncate_dim=8)
    docs = torch.from_numpy(student.encoder().encode(TEXTS, "doc"))
    wanted = Way(width=8).narrowed(docs, True, True)
    np.testing.assert_allclose(plain.encode_document(TEXTS, normalize_embeddings=True), wanted, atol=1e-5)


def tiny_modernbert(folder):
    """Layers of two kinds, and a normalisation after the last."""
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(4)
    vocabulary = SPECIAL + words_of([*TEXTS, *QUERIES])
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
    ends = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    ModernBertModel(ModernBertConfig(vocab_size=len(vocabulary), **size, **ends)).save_pretrained(folder)
    tokenizer(folder, vocabulary).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_exit_is_a_smaller_model_in_a_folder_of_its_own(family, tiny, tiny_distilbert, tmp_path):
    from sentence_transformers import SentenceTransformer

    init = {"bert": tiny, "distilbert": tiny_distilbert}.get(family) or tiny_modernbert(tmp_path / "modern")
    student = student_of(init, exits=(1, 2))
    batch = list_batch(LESSONS[:3], read, "batch")
    whole, first, second = student.read(batch, WHOLE, frozenset())
    assert (whole.weight, first.weight, second.weight) == (1, pytest.approx(1 / 3), pytest.approx(2 / 3))
    student.save(tmp_path / "saved")
    for depth, reading in ((1, first), (2, second), (3, whole)):
        folder = tmp_path / "saved" / (f"exits/{depth}" if depth < 3 else "")
        plain = SentenceTransformer(str(folder), device="cpu")
        assert plain[0].model.config.num_hidden_layers == depth
        queries, docs = (plain.encode(texts, normalize_embeddings=True) for texts in (batch.queries, batch.docs))
        np.testing.assert_allclose(reading.scores.detach().numpy(), queries @ docs.T, atol=1e-5)


def test_an_exit_of_a_query_tower_stands_before_the_same_documents(tiny, tmp_path):
    student = tower_of(tiny, exits=(1,))
    batch = list_batch(LESSONS[:3], read, "batch")
    early = student.read(batch, WHOLE, frozenset())[1].scores.detach().numpy()
    student.save(tmp_path / "saved")
    small = open_encoder(str(tmp_path / "saved/exits/1"), device="cpu")
    wanted = small.encode(batch.queries, "query") @ student.encoder().encode(batch.docs, "doc").T
    np.testing.assert_allclose(early, wanted, atol=1e-5)


def test_exits_and_the_layers_of_a_teacher_are_read_from_one_forward(tiny):
    student, calls = student_of(tiny, exits=(1,)), []
    student.network[0].model.register_forward_hook(lambda *_: calls.append(1))
    batch = list_batch(LESSONS[:3], read, "batch")
    whole, early = student.read(batch, WHOLE, frozenset({"layers"}))
    assert len(calls) == 2, "once for the queries, once for the documents"
    torch.testing.assert_close(whole.layers[0], early.scores)
    torch.testing.assert_close(whole.layers[-1], whole.scores)


def test_ways_that_the_model_has_not_are_refused(tiny):
    with pytest.raises(CardError, match="vectors have 32 dimensions"):
        student_of(tiny, dims=(64, 16))
    with pytest.raises(CardError, match="the model has 3 layers"):
        student_of(tiny, exits=(3,))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dims": (16, 32)}, "the whole vector comes first"),
        ({"dims": (32, 8, 8)}, "each once"),
        ({"dims": (32, 8), "dim_weights": (1,)}, "give 2 numbers"),
        ({"quantise": ("int8",), "quantise_weights": (-1,)}, "none below 0"),
        ({"dims": (32, 8), "dim_weights": (0, 1)}, "always trained"),
    ],
)
def test_slips_of_the_pen_are_told(options, word):
    with pytest.raises(ValueError, match=word):
        BiEncoderOptions(init="model", **options)
