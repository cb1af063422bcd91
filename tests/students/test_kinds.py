"""Anyone must be able to load a student without us, and get the scores that we measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, read

from rerankdistill.encoding import open_encoder
from rerankdistill.errors import DataError
from rerankdistill.students.batch import Budget, VectorBatch, list_batch
from rerankdistill.students.kinds import bi_encoder, cross_encoder

PLENTY = Budget(10**6, 10**6)
TEXTS = [*DOCS.values(), "", "mill", " ".join(DOCS.values())]


def make_bi(init, **options):
    return bi_encoder.Kind.create(bi_encoder.BiEncoderOptions(init=str(init), **options), "cpu")


def make_ce(init, **options):
    return cross_encoder.Kind.create(cross_encoder.CrossEncoderOptions(init=str(init), **options), "cpu")


def moved(student):
    """The student after one step uphill, so that it is not what it was made from."""
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter.mul_(1.01).add_(0.001)
    return student


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_saved_bi_encoder_is_a_plain_folder_that_gives_the_same_vectors(tiny, tmp_path, similarity):
    from sentence_transformers import SentenceTransformer

    student = moved(make_bi(tiny, layers=2, similarity=similarity, query_prefix="ask: ", doc_prefix="read: "))
    student.save(tmp_path / "saved")
    wanted = {role: student.encoder().encode(TEXTS, role) for role in ("query", "doc")}
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert plain.similarity_fn_name == similarity
    normal = similarity == "cosine"
    texts = TEXTS[:-1]  # ours cuts documents at 256 tokens and queries at 64, the library both at the model's limit
    np.testing.assert_allclose(plain.encode_query(texts, normalize_embeddings=normal), wanted["query"][:-1], atol=1e-5)
    np.testing.assert_allclose(plain.encode_document(texts, normalize_embeddings=normal), wanted["doc"][:-1], atol=1e-5)
    ours = open_encoder(str(tmp_path / "saved"), device="cpu", max_tokens={"query": 64, "doc": 256})
    np.testing.assert_allclose(ours.encode(TEXTS, "doc"), wanted["doc"], atol=1e-6)
    np.testing.assert_allclose(ours.encode(TEXTS, "query"), wanted["query"], atol=1e-6)


def test_a_bi_encoder_is_opened_for_a_second_stage_as_it_was_saved(tiny, tmp_path):
    options = bi_encoder.BiEncoderOptions(init=str(tiny), layers=2)
    student = moved(bi_encoder.Kind.create(options, "cpu"))
    student.save(tmp_path / "saved")
    again = bi_encoder.Kind.open(tmp_path / "saved", options, "cpu")
    assert len(again.network[0].model.encoder.layer) == 2
    np.testing.assert_array_equal(again.encoder().encode(TEXTS, "doc"), student.encoder().encode(TEXTS, "doc"))


@pytest.mark.parametrize("budget", [Budget(1, 10**6), Budget(40, 10**6), Budget(200, 10**6), Budget(40, 0)])
def test_embedding_in_chunks_changes_no_vector_and_no_gradient(tiny, budget):
    student = make_bi(tiny)
    student.ready(training=True)
    target = torch.linspace(0, 1, 32)

    def run(held):
        student.network.zero_grad()
        vectors = student.embed(TEXTS, "doc", held)
        (vectors @ target).square().sum().backward()
        grads = [p.grad.clone() for p in student.network.parameters() if p.grad is not None]
        return vectors.detach(), grads

    whole, chunked = run(PLENTY), run(budget)
    torch.testing.assert_close(chunked[0], whole[0], atol=1e-5, rtol=0)
    for one, other in zip(chunked[1], whole[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_and_inference_see_the_same_vectors(tiny):
    student = make_bi(tiny)
    wanted = student.encoder().encode(TEXTS, "doc")
    student.ready(training=True)
    np.testing.assert_allclose(student.embed(TEXTS, "doc", PLENTY).detach().numpy(), wanted, atol=1e-5)


def test_a_bi_encoder_scores_every_query_against_every_document(tiny):
    student = make_bi(tiny)
    batch = list_batch(LESSONS[:3], read, "batch")
    docs = student.encoder().encode(batch.docs, "doc")
    queries = student.encoder().encode(batch.queries, "query")
    [reading] = student.read(batch, Budget(64, 10**6), frozenset({"docs"}))
    np.testing.assert_allclose(reading.scores.detach().numpy(), queries @ docs.T, atol=1e-5)
    np.testing.assert_allclose(reading.docs.detach().numpy(), docs @ docs.T, atol=1e-5)


def test_vectors_to_match_stay_beside_their_texts(tiny):
    student = make_bi(tiny)
    targets = torch.arange(6.0).reshape(2, 3)
    pair = student.vectors(VectorBatch(["the mill of arden", "visitors"], "doc", targets), PLENTY)
    np.testing.assert_allclose(
        pair.student.detach().numpy(), student.encoder().encode(["the mill of arden", "visitors"], "doc"), atol=1e-5
    )
    assert torch.equal(pair.teacher, targets)


def test_dropout_is_off_unless_it_is_asked_for(tiny):
    quiet, noisy = make_bi(tiny), make_bi(tiny, dropout=0.5)
    for student, same in ((quiet, True), (noisy, False)):
        student.ready(training=True)
        one, other = student.embed(TEXTS, "doc", PLENTY), student.embed(TEXTS, "doc", PLENTY)
        assert torch.equal(one, other) is same


def test_a_saved_cross_encoder_is_a_plain_folder_that_gives_the_same_scores(tiny_ce, tmp_path):
    from sentence_transformers import CrossEncoder

    student = moved(make_ce(tiny_ce))
    student.save(tmp_path / "saved")
    pairs = [(query, doc) for query in QUERIES[:3] for doc in list(DOCS.values())[:5]]
    wanted = student.score(pairs)
    plain = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(plain.predict(pairs, activation_fn=torch.nn.Identity()), wanted, atol=1e-5)
    options = cross_encoder.CrossEncoderOptions(init=str(tiny_ce))
    again = cross_encoder.Kind.open(tmp_path / "saved", options, "cpu")
    np.testing.assert_allclose(again.score(pairs), wanted, atol=1e-6)
    assert again.fingerprint != make_ce(tiny_ce).fingerprint, "a trained model is another model"


@pytest.mark.parametrize("budget", [Budget(1, 10**6), Budget(64, 10**6), Budget(64, 0), PLENTY])
def test_cross_encoder_scores_land_in_the_cells_they_are_about(tiny_ce, budget):
    student = make_ce(tiny_ce)
    examples = [LESSONS[0], *LESSONS[4:6]]
    short = examples[1]
    examples[1] = type(short)(
        short.query_id, short.query, short.doc_ids[:3], short.scores[:3], short.labels[:3], short.positive
    )
    batch = list_batch(examples, read, "lists")
    found = student.read(batch, budget, frozenset())[0].scores
    for row, example in enumerate(examples):
        wanted = student.score([(example.query, text) for text in read(example.doc_ids)])
        np.testing.assert_allclose(found[row, : len(wanted)].detach().numpy(), wanted, atol=1e-5)
        assert not found[row, len(wanted) :].any(), "padding has no score"
    found.sum().backward()
    assert any(parameter.grad is not None for parameter in student.network.parameters())


def test_the_query_arrives_whole_however_long_the_document(tiny_ce):
    student = make_ce(tiny_ce, max_tokens=24)
    long = " ".join(DOCS.values())
    one, other = student.score([(QUERIES[0], long), (QUERIES[1], long)])
    assert one != other, "a cut query would leave both pairs alike"


def test_a_model_without_a_head_gets_the_same_one_from_the_same_seed(tiny):
    def head():
        torch.manual_seed(3)
        return make_ce(tiny.with_name("bi-raw")).score([(QUERIES[0], DOCS["d0"])])

    np.testing.assert_array_equal(head(), head())


@pytest.mark.parametrize("make", [make_bi, make_ce])
def test_a_folder_that_is_no_model_is_one_clear_error(make, tmp_path):
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(DataError, match="not a model folder"):
        make(tmp_path)


@pytest.mark.parametrize("kind", [bi_encoder, cross_encoder])
def test_other_weights_are_another_starting_point(kind, tiny, tiny_ce, tmp_path):
    options = kind.BiEncoderOptions if kind is bi_encoder else kind.CrossEncoderOptions
    init = tiny if kind is bi_encoder else tiny_ce
    student = (make_bi if kind is bi_encoder else make_ce)(init)
    student.save(tmp_path / "one")
    moved(student).save(tmp_path / "two")
    marks = [kind.Kind.source_fingerprint(options(init=str(tmp_path / name))) for name in ("one", "two", "one")]
    assert marks[0] == marks[2] != marks[1]
