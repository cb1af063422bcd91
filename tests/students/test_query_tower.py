"""A query encoder learns in front of documents that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, lists, read
from tiny_models import tiny_bi_encoder

from rerankdistill.encoding import open_encoder
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.query_tower import Kind, QueryTowerOptions
from rerankdistill.students.train import StageOptions, train

PLENTY = Budget(10**6, 10**6)
TEXTS = list(DOCS.values())


@pytest.fixture
def options(tiny):
    return QueryTowerOptions(init=str(tiny), layers=1)


def trained(options, folder, documents=None):
    torch.manual_seed(1)
    student = Kind.create(options, "cpu")
    student.documents = documents
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.1}}, lambda name: open_kind("losses", name))
    stage = StageOptions(steps=12, batch=8, learning_rate=2e-3)
    return student, train(student, lists(), loss, stage, folder, 1)


def test_queries_are_learnt_and_documents_stay(options, tiny, tmp_path):
    before = open_encoder(str(tiny), device="cpu")
    student, _ = trained(options, tmp_path)
    found = student.encoder()
    np.testing.assert_array_equal(found.encode(TEXTS, "doc"), before.encode(TEXTS, "doc"))
    untrained = Kind.create(options, "cpu").encoder()
    assert np.abs(found.encode(QUERIES, "query") - untrained.encode(QUERIES, "query")).max() > 1e-3
    assert len(student.network[0].model.encoder.layer) == 1, "the query tower alone is cut"


def test_scores_compare_both_towers_and_no_gradient_reaches_the_documents(options):
    student = Kind.create(options, "cpu")
    batch = list_batch(LESSONS[:3], read, "batch")
    both = student.encoder()
    student.ready(training=True)
    scores = student.read(batch, PLENTY, frozenset())[0].scores
    wanted = both.encode(batch.queries, "query") @ both.encode(batch.docs, "doc").T
    np.testing.assert_allclose(scores.detach().numpy(), wanted, atol=1e-5)
    scores.sum().backward()
    assert all(parameter.grad is None for parameter in student._docs.parameters())


def test_vectors_that_are_there_already_are_looked_up_and_change_nothing(options, tiny, tmp_path):
    known = dict(zip(DOCS, open_encoder(str(tiny), device="cpu").encode(TEXTS, "doc"), strict=True))
    asked = []

    def look_up(doc_ids):
        asked.extend(doc_ids)
        return np.stack([known[doc_id] for doc_id in doc_ids])

    plain, _ = trained(options, tmp_path / "plain")
    quick, _ = trained(options, tmp_path / "quick", look_up)
    assert asked
    for one, other in zip(plain.network.parameters(), quick.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_a_saved_one_is_a_plain_folder_with_two_routes(options, tmp_path):
    from sentence_transformers import SentenceTransformer

    student, _ = trained(options.model_copy(update={"query_prefix": "ask: "}), tmp_path / "work")
    student.save(tmp_path / "saved")
    wanted, plain = student.encoder(), SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert plain.similarity_fn_name == "cosine"
    for encode, role, texts in ((plain.encode_query, "query", QUERIES), (plain.encode_document, "doc", TEXTS)):
        np.testing.assert_allclose(encode(texts, normalize_embeddings=True), wanted.encode(texts, role), atol=1e-5)
        ours = open_encoder(str(tmp_path / "saved"), device="cpu", max_tokens={"query": 64, "doc": 256})
        np.testing.assert_allclose(ours.encode(texts, role), wanted.encode(texts, role), atol=1e-6)
    with pytest.raises(ValueError, match="task"):
        plain.encode("which side is this text on?")
    again = Kind.open(tmp_path / "saved", options, "cpu").encoder()
    np.testing.assert_allclose(again.encode(QUERIES, "query"), wanted.encode(QUERIES, "query"), atol=1e-6)
    np.testing.assert_allclose(again.encode(TEXTS, "doc"), wanted.encode(TEXTS, "doc"), atol=1e-6)


def test_the_towers_may_be_two_models_of_one_width(tiny, tmp_path):
    other = tiny_bi_encoder(tmp_path / "other", [*TEXTS, *QUERIES], seed=5)
    options = QueryTowerOptions(init=str(tiny), docs=str(other))
    found = Kind.create(options, "cpu").encoder().encode(TEXTS, "doc")
    np.testing.assert_allclose(found, open_encoder(str(other), device="cpu").encode(TEXTS, "doc"), atol=1e-6)
    assert Kind.source_fingerprint(options) != Kind.source_fingerprint(QueryTowerOptions(init=str(tiny)))


def test_a_tower_can_be_trained_on_from_its_saved_folder(options, tmp_path):
    student, _ = trained(options, tmp_path / "work")
    student.save(tmp_path / "saved")
    again = Kind.create(QueryTowerOptions(init=str(tmp_path / "saved")), "cpu").encoder()
    for role, texts in (("query", QUERIES), ("doc", TEXTS)):
        np.testing.assert_allclose(again.encode(texts, role), student.encoder().encode(texts, role), atol=1e-6)


def test_documents_that_would_be_read_otherwise_than_they_were_are_refused(tiny):
    with pytest.raises(CardError, match="by cosine, not by dot"):
        Kind.create(QueryTowerOptions(init=str(tiny), similarity="dot"), "cpu")
    with pytest.raises(ValueError, match="leave doc_prefix out"):
        QueryTowerOptions(init=str(tiny), doc_prefix="passage: ")


def test_towers_of_two_widths_are_refused(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    narrow = SentenceTransformer(str(tiny), device="cpu")
    narrow.append(Dense(32, 8))
    narrow.save_pretrained(str(tmp_path / "narrow"), create_model_card=False)
    with pytest.raises(CardError, match="32 dimensions and documents 8"):
        Kind.create(QueryTowerOptions(init=str(tiny), docs=str(tmp_path / "narrow")), "cpu")


@pytest.fixture
def wide(tiny, tmp_path):
    """A documents' model of 48 dimensions that never met the query encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    torch.manual_seed(3)
    other = SentenceTransformer(str(tiny_bi_encoder(tmp_path / "other", [*TEXTS, *QUERIES], seed=5)), device="cpu")
    other.append(Dense(32, 48))
    other.save_pretrained(str(tmp_path / "wide"), create_model_card=False)
    return tmp_path / "wide"


def bridged(tiny, wide, start, **more):
    torch.manual_seed(1)
    return Kind.create(QueryTowerOptions(init=str(tiny), docs=str(wide), projection=start, **more), "cpu")


def alike(student):
    """How near a text that is read as a query is to itself as a document, beyond what any two texts are."""
    both = student.encoder()
    scores = both.encode(TEXTS, "query") @ both.encode(TEXTS, "doc").T
    return float(np.diag(scores).mean() - scores.mean())


def test_a_projection_begins_where_queries_meet_the_documents(tiny, wide):
    fitted, turned = (bridged(tiny, wide, start) for start in ("least_squares", "orthogonal"))
    for student in (fitted, turned):
        student.prepare(lists())
    assert alike(fitted) > 10 * abs(alike(turned))
    both = fitted.encoder()
    scores = both.encode(TEXTS, "query") @ both.encode(TEXTS, "doc").T
    assert (scores.argmax(1) == np.arange(len(TEXTS))).mean() > 0.9


def test_a_projection_is_learnt_and_saved_with_the_query_encoder(tiny, wide, tmp_path):
    from sentence_transformers import SentenceTransformer

    student = bridged(tiny, wide, "least_squares", exits=(1,))
    reference = bridged(tiny, wide, "least_squares")
    reference.prepare(lists())
    loss = parse("infonce", {"infonce": {"tau": 0.05}}, lambda name: open_kind("losses", name))
    train(student, lists(), loss, StageOptions(steps=12, batch=8, learning_rate=2e-3), tmp_path / "work", 1)
    weight = student.network[-1].linear.weight
    assert 0 < float((weight - reference.network[-1].linear.weight).detach().abs().max()) < 0.1, "it began elsewhere"
    student.save(tmp_path / "saved")
    plain, wanted = SentenceTransformer(str(tmp_path / "saved"), device="cpu"), student.encoder()
    for encode, role, texts in ((plain.encode_query, "query", QUERIES), (plain.encode_document, "doc", TEXTS)):
        np.testing.assert_allclose(encode(texts, normalize_embeddings=True), wanted.encode(texts, role), atol=1e-5)
    again = Kind.open(tmp_path / "saved", student.options, "cpu")
    again.prepare(lists())  # a second stage goes on from what was learnt
    np.testing.assert_allclose(again.encoder().encode(QUERIES, "query"), wanted.encode(QUERIES, "query"), atol=1e-6)
    early = open_encoder(str(tmp_path / "saved/exits/1"), device="cpu")
    assert early.encode(QUERIES, "query").shape[1] == 48
