"""Late interaction: the library says of a saved folder what was trained; what takes no part changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, gradients, lists, read
from tiny_models import tiny_bi_encoder

from rerankdistill.encoding import makes_token_vectors
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.scores.card import Lengths
from rerankdistill.scores.kinds.late_interaction import Kind as Teacher
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds import late_interaction
from rerankdistill.students.kinds.late_interaction import Kind, LateInteractionOptions, summed_matches
from rerankdistill.students.train import StageOptions, train
from rerankdistill.types import Group, Query

PLENTY = Budget(10**6, 10**6)
MARKS = ", . : ?"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A bi-encoder that knows some punctuation."""
    return tiny_bi_encoder(tmp_path_factory.mktemp("late") / "bi", [*DOCS.values(), *QUERIES, MARKS])


def make(init, **options):
    torch.manual_seed(1)
    return Kind.create(LateInteractionOptions(init=str(init), **options), "cpu")


def said(student, queries, docs):
    encoder = student.encoder()
    return encoder.similarity(encoder.encode(queries, "query"), encoder.encode(docs, "doc"))


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_a_saved_student_gives_the_same_scores_in_the_plain_library_and_as_a_teacher(base, tmp_path, similarity):
    from sentence_transformers import MultiVectorEncoder

    prefixes = {"query_prefix": "where is ", "doc_prefix": "the old "}
    student = make(base, layers=2, similarity=similarity, query_tokens=5, doc_tokens=7, dimension=8, **prefixes)
    student.save(tmp_path / "saved")
    queries, docs = QUERIES[:4], [*list(DOCS.values())[:5], "mill , arden .", "", "the old mill of arden " * 9]
    found = said(student, queries, docs)
    plain = MultiVectorEncoder(str(tmp_path / "saved"), device="cpu")
    wanted = plain.similarity(plain.encode_query(queries), plain.encode_document(docs))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert np.ptp(found) > 0.01
    teacher = Teacher(str(tmp_path / "saved"), device="cpu", dtype="float32", lengths=Lengths(query=5, doc=7))
    judged = teacher.judge(
        [Group(Query(text, text), tuple(map(str, range(len(docs)))), tuple(docs)) for text in queries]
    )
    np.testing.assert_allclose(np.stack(judged), found, atol=1e-5)
    again = Kind.open(tmp_path / "saved", student.options, "cpu")
    np.testing.assert_array_equal(said(again, queries, docs), found)


def test_training_and_inference_say_the_same_however_it_is_cut_up(base, monkeypatch):
    student = make(base)
    batch = list_batch(LESSONS[:5], lambda ids: [f"{text} ," for text in read(ids)], "batch")
    wanted = said(student, batch.queries, batch.docs)
    student.ready(training=True)
    for budget, cells in ((PLENTY, 2**24), (Budget(40, 10**6), 700), (Budget(40, 0), 1)):
        monkeypatch.setattr(late_interaction, "CELLS", cells)
        (reading,) = student.read(batch, budget, frozenset())
        np.testing.assert_allclose(reading.scores.detach().numpy(), wanted, atol=1e-5)


def test_padding_and_punctuation_take_no_part(base):
    student = make(base)
    queries, docs = ["the mill", "where is the lighthouse of dunmore"], ["mill , . arden", "garden"]
    asked, read_ = student.encoder().encode(queries, "query"), student.encoder().encode(docs, "doc")
    assert asked.lengths.tolist() == [4, 8]
    assert read_.lengths.tolist() == [4, 3], "[CLS], words and [SEP]"
    vectors, counts = student.embed(docs, "doc", PLENTY)
    assert counts.sum(1).tolist() == [4, 3]
    spoilt = torch.where(counts[..., None], vectors, 100.0)
    own = student.embed(queries, "query", PLENTY)
    scores = summed_matches(*own, spoilt, counts)
    np.testing.assert_allclose(scores.detach().numpy(), student.encoder().similarity(asked, read_), atol=1e-5)
    queries_spoilt = torch.where(own[1][..., None], own[0], 100.0)
    torch.testing.assert_close(summed_matches(queries_spoilt, own[1], vectors, counts), scores)


def test_a_document_of_which_nothing_takes_part_has_a_score_and_gradients_stay_finite():
    queries = torch.nn.functional.normalize(torch.randn(2, 3, 4), dim=-1).requires_grad_()
    docs = torch.nn.functional.normalize(torch.randn(2, 5, 4), dim=-1).requires_grad_()
    counts = torch.tensor([[True] * 5, [False] * 5])
    scores = summed_matches(queries, torch.ones(2, 3, dtype=torch.bool), docs, counts)
    assert scores[:, 1].tolist() == [-3, -3]
    scores.sum().backward()
    assert torch.isfinite(queries.grad).all()
    assert not docs.grad[1].any()


def test_cached_gradients_are_those_of_the_whole_batch(base, monkeypatch):
    student = make(base, dimension=8)
    student.network.double()
    student.ready(training=True)
    batch = list_batch(LESSONS[:4], read, "batch")
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.5}}, lambda name: open_kind("losses", name))

    value, wanted = gradients(student, loss, batch, PLENTY)
    monkeypatch.setattr(late_interaction, "CELLS", 900)
    again, found = gradients(student, loss, batch, Budget(40, 0))
    assert again == pytest.approx(value, rel=1e-9)
    assert found.keys() == wanted.keys()
    assert any("1.linear" in name for name in found), "the projection learns"
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-12, msg=name)


def right(student):
    """How often a query's own document comes first."""
    return (said(student, QUERIES, list(DOCS.values())).argmax(1) == np.arange(len(QUERIES))).mean()


def test_it_learns_what_the_teacher_says(base, tmp_path):
    student = make(base, dimension=16)
    before = right(student)
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.5}}, lambda name: open_kind("losses", name))
    stage = StageOptions(steps=40, batch=8, learning_rate=3e-3)
    train(student, lists(), loss, stage, tmp_path, 1)
    assert right(student) > before + 0.15


def test_before_training_it_ranks_as_the_encoder_under_it_does(base):
    whole = make(base, dimension=32)
    features = whole._encoder.tokens(list(DOCS.values())[:3], "doc").batch([0, 1, 2], "cpu")
    states = whole.network[0].model(**features).last_hidden_state
    wanted = torch.nn.functional.normalize(states, dim=-1)
    torch.testing.assert_close(whole._encoder.forward(features, "doc")[..., :-1], wanted)
    weight = make(base, dimension=8).network[1].linear.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert torch.equal(weight, make(base, dimension=8).network[1].linear.weight), "torch's seed decides it"


def test_a_late_interaction_model_keeps_its_projection(base, tmp_path):
    student = make(base, dimension=8)
    student.save(tmp_path / "old")
    assert makes_token_vectors(str(tmp_path / "old"))
    assert not makes_token_vectors(str(base))
    found = make(tmp_path / "old", layers=1)
    assert torch.equal(found.network[1].linear.weight, student.network[1].linear.weight)
    assert len(found.network[0].model.encoder.layer) == 1
    with pytest.raises(CardError, match="have 8 dimensions"):
        make(tmp_path / "old", dimension=16)


def test_an_adapted_student_is_saved_plain(base, tmp_path):
    pytest.importorskip("peft")
    student = make(base, lora={"r": 2})
    student.ready(training=True)
    learns = {name for name, each in student.network.named_parameters() if each.requires_grad}
    assert any("lora_A" in name for name in learns)
    assert any("linear" in name and "lora" not in name for name in learns), "the projection learns too"
    with torch.no_grad():
        for name, each in student.network.named_parameters():
            if "lora_B" in name:
                each.add_(0.1)
    student.ready(training=False)
    wanted = said(student, QUERIES[:3], list(DOCS.values()))
    student.save(tmp_path / "saved")
    np.testing.assert_allclose(said(make(tmp_path / "saved"), QUERIES[:3], list(DOCS.values())), wanted, atol=1e-4)
