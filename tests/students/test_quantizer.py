"""Codebooks that learn: faiss searches by what was trained, and it has come nearer to the teacher's scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, lists, read

from rerankdistill import codebooks
from rerankdistill.encoding import open_encoder
from rerankdistill.errors import DataError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.data import Lists
from rerankdistill.students.kinds.quantizer import Kind, QuantizerOptions
from rerankdistill.students.train import StageOptions, train

PLENTY = Budget(10**6, 10**6)
TEXTS = list(DOCS.values())
SHAPES = [
    {"m": 4, "bits": 3},
    {"m": 4, "bits": 3, "nlist": 4, "nprobe": 4},
    {"m": 4, "bits": 3, "nlist": 4, "opq": True},
]


@pytest.fixture
def dense(tiny):
    """The teacher: the same encoder's whole vectors; ``(documents, live, vectors)``."""
    encoder = open_encoder(str(tiny), device="cpu", max_tokens={"query": 64, "doc": 256})
    vectors = encoder.encode(TEXTS, "doc")
    rows = {doc_id: row for row, doc_id in enumerate(DOCS)}

    def documents(doc_ids):
        return vectors[[rows[doc_id] for doc_id in doc_ids]]

    def live(examples, doc_ids):
        return encoder.encode([example.query for example in examples], "query") @ documents(doc_ids).T

    return documents, live, vectors


def made(tiny, dense, **options):
    torch.manual_seed(1)
    student = Kind.create(QuantizerOptions(init=str(tiny), **options), "cpu")
    student.documents = dense[0]
    student.start(dense[2])
    return student


def taught(student, dense, folder, steps=60):
    whole = [
        type(each)(
            each.query_id, each.query, each.doc_ids, dense[1]([each], each.doc_ids)[0], each.labels, each.positive
        )
        for each in LESSONS
    ]
    cut = lists(size=8, examples=whole)
    data = Lists(whole, cut.pick, read, "batch", dense[1])
    options = {"kl_div": {"tau_student": 0.02, "tau_teacher": 0.02, "over": "batch"}}
    loss = parse("kl_div", options, lambda name: open_kind("losses", name))
    return train(student, data, loss, StageOptions(steps=steps, batch=8, learning_rate=3e-3), folder, 1)


def divergence(student, dense, tau=0.02):
    """KL of all documents' scores from the teacher's, mean over the queries."""
    queries = student.encoder().encode(QUERIES, "query")
    wanted, found = (
        torch.log_softmax(torch.tensor(queries @ docs.T) / tau, 1) for docs in (dense[2], student.remembered(dense[2]))
    )
    return float((wanted.exp() * (wanted - found)).sum(1).mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_training_brings_scores_nearer_to_the_teachers_than_faisss_codebooks_did(tiny, dense, tmp_path, shape):
    student = made(tiny, dense, **shape)
    before = divergence(student, dense)
    taught(student, dense, tmp_path)
    assert divergence(student, dense) < 0.8 * before


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_faiss_scores_documents_as_the_student_did(tiny, dense, tmp_path, shape):
    import faiss

    student = made(tiny, dense, **shape)
    taught(student, dense, tmp_path / "work", steps=6)
    student.save(tmp_path / "saved")
    index = faiss.read_index(str(tmp_path / "saved" / codebooks.FILE))
    index.add(dense[2])
    queries = student.encoder().encode(QUERIES, "query")
    found, rows = index.search(queries, len(TEXTS))
    wanted = queries @ student.remembered(dense[2]).T
    for query in range(len(QUERIES)):
        known = rows[query] >= 0
        np.testing.assert_allclose(found[query][known], wanted[query][rows[query][known]], atol=1e-5)
    batch = list_batch(LESSONS[:3], read, "batch")
    scores = student.read(batch, PLENTY, frozenset())[0].scores.detach().numpy()
    again = student.encoder().encode(batch.queries, "query") @ student.remembered(dense[0](batch.doc_ids)).T
    np.testing.assert_allclose(scores, again, atol=1e-5)


def test_the_index_of_the_house_gives_the_students_own_scores(tiny, dense, tmp_path):
    from rerankdistill.index.build import IndexCard, build_index, open_index

    student = made(tiny, dense, m=4, bits=3, nlist=4, nprobe=4)
    taught(student, dense, tmp_path / "work", steps=6)
    student.save(tmp_path / "saved")
    card = Kind.index_card(student.options)
    card["options"] = {**card["options"], "codebooks": str(tmp_path / "saved")}
    kind = open_kind("index", card["kind"])
    build_index(tmp_path / "index", IndexCard(**card), list(DOCS), dense[2], {"docs": "d", "encoder": "e"}, kind)
    queries = student.encoder().encode(QUERIES, "query")
    scores = queries @ student.remembered(dense[2]).T
    for query, hits in enumerate(open_index(tmp_path / "index", kind).search(queries, len(TEXTS))):
        assert len(hits) == len(TEXTS), "every list is opened"
        wanted = dict(zip(DOCS, scores[query].tolist(), strict=True))
        np.testing.assert_allclose([score for _, score in hits], [wanted[doc_id] for doc_id, _ in hits], atol=1e-5)


def test_an_untrained_one_is_what_faiss_trains(tiny, dense, tmp_path):
    student = made(tiny, dense, m=4, bits=3, nlist=4)
    student.save(tmp_path)
    plain = codebooks.train(dense[2], codebooks.Layout(4, 3, 4), 1)
    learnt = codebooks.read(tmp_path)
    np.testing.assert_array_equal(learnt.codewords, plain.codewords)
    np.testing.assert_allclose(learnt.centroids, plain.centroids, atol=1e-6)


def test_encoders_stay_unless_queries_are_to_learn(tiny, dense, tmp_path):
    for learn in (False, True):
        student = made(tiny, dense, m=4, bits=3, learn_queries=learn)
        before = student.encoder().encode(QUERIES, "query")
        taught(student, dense, tmp_path / str(learn), steps=6)
        student.save(tmp_path / f"saved-{learn}")
        after = open_encoder(str(tmp_path / f"saved-{learn}"), device="cpu", max_tokens={"query": 64, "doc": 256})
        moved = np.abs(after.encode(QUERIES, "query") - before).max()
        assert bool(moved > 1e-3) is learn
        np.testing.assert_allclose(after.encode(TEXTS, "doc"), dense[2], atol=1e-6)


def test_the_centroids_weight_is_set_once_so_that_both_losses_are_as_large(tiny, dense, tmp_path):
    student = made(tiny, dense, m=4, bits=3, nlist=4)
    one, other, later = (torch.tensor(value) for value in (0.5, 2.0, 100.0))
    assert [float(weight) for weight in student.weigh([one, other])] == [1.0, 0.25]
    assert [float(weight) for weight in student.weigh([one, later])] == [1.0, 0.25]
    given = made(tiny, dense, m=4, bits=3, nlist=4, centroid_weight=3.0)
    assert [float(weight) for weight in given.weigh([one, other])] == [1.0, 3.0]


def test_a_resumed_training_is_the_one_that_was_not_interrupted(tiny, dense, tmp_path):
    def final(folder, *, cut=False):
        student = made(tiny, dense, m=4, bits=3, nlist=4)
        if cut:
            (folder / "checkpoint-12").rename(folder / "gone")
        taught(student, dense, folder, steps=12)
        return student.quantiser.books()

    whole = final(tmp_path)
    resumed = final(tmp_path, cut=True)
    np.testing.assert_allclose(resumed.codewords, whole.codewords, atol=1e-6)
    np.testing.assert_allclose(resumed.centroids, whole.centroids, atol=1e-6)


def test_a_student_that_has_seen_no_document_says_so(tiny, tmp_path):
    student = Kind.create(QuantizerOptions(init=str(tiny)), "cpu")
    with pytest.raises(DataError, match="no codebooks before"):
        student.save(tmp_path)
    with pytest.raises(ValueError, match="set nlist"):
        QuantizerOptions(init="x", nprobe=4)
