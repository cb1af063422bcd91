"""A sparse student is a plain SPLADE folder, its gradients are those of the whole batch, and its weights cost it."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, NAMES, QUERIES, lists, read
from tiny_models import tiny_mlm
from typer.testing import CliRunner

from rerankdistill.cli.app import app
from rerankdistill.errors import CardError, RerankDistillWarning, UsageError
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.sparse import Kind, SparseOptions
from rerankdistill.students.splade import flops, l1, pooled, word_states
from rerankdistill.students.train import StageOptions, step_loss, train

TEXTS = [*[*DOCS.values()][:12], "", "mill", " ".join(list(DOCS.values())[:4])]
PLENTY = Budget(10**6, 10**6)


@pytest.fixture(scope="module")
def mlm(tmp_path_factory):
    return tiny_mlm(tmp_path_factory.mktemp("mlm") / "mlm", [*DOCS.values(), *QUERIES])


@pytest.fixture(params=["mlm", "encoder", "static"])
def made(request, mlm, tiny):
    """A student around a masked language model, one with a made-up head, and one with static queries."""
    init = mlm if request.param == "mlm" else tiny
    queries = "static" if request.param == "static" else "encoder"
    return lambda **more: make(init, queries=queries, **more)


def make(init, **options):
    torch.manual_seed(1)
    return Kind.create(SparseOptions(init=str(init), **options), "cpu")


def moved(student):
    """Not what it was made from any more."""
    with torch.no_grad():
        for name, parameter in student.network.named_parameters():
            parameter.mul_(1.05).add_(0.001 if "bias" in name else 0)
    return student


def plain(folder):
    from sentence_transformers import SparseEncoder

    return SparseEncoder(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_a_saved_student_is_a_plain_folder_that_gives_the_same_scores(made, tmp_path, pooling):
    student = moved(made(layers=2, pooling=pooling, query_prefix="where ", doc_tokens=10, query_tokens=6))
    student.save(tmp_path / "saved")
    ours = {role: student.encoder().encode(TEXTS, role) for role in ("query", "doc")}
    model = plain(tmp_path / "saved")
    theirs = {"query": model.encode_query(TEXTS), "doc": model.encode_document(TEXTS)}
    for role, rows in ours.items():
        np.testing.assert_allclose(rows.toarray(), theirs[role].to_dense().numpy(), atol=1e-5)
        assert rows.nnz
    scores = student.encoder().similarity(ours["query"], ours["doc"])
    np.testing.assert_allclose(scores, model.similarity(theirs["query"], theirs["doc"]).numpy(), rtol=1e-4, atol=1e-4)
    again = Kind.open(tmp_path / "saved", student.options, "cpu").encoder()
    for role, rows in ours.items():
        np.testing.assert_allclose(again.encode(TEXTS, role).toarray(), rows.toarray(), atol=1e-6)
    made_of = Kind.create(student.options.model_copy(update={"init": str(tmp_path / "saved"), "layers": None}), "cpu")
    np.testing.assert_allclose(made_of.encoder().encode(TEXTS, "doc").toarray(), ours["doc"].toarray(), atol=1e-6)


def test_the_plain_folder_prunes_as_the_student_does(mlm, tmp_path):
    student = make(mlm, doc_terms=3, query_terms=3)
    student.save(tmp_path / "saved")
    ours = student.encoder().encode(TEXTS[:4], "doc")
    assert int(np.diff(ours.indptr).max()) == 3
    np.testing.assert_allclose(
        plain(tmp_path / "saved").encode_document(TEXTS[:4]).to_dense(), ours.toarray(), atol=1e-5
    )
    other = make(mlm, doc_terms=3)
    other.save(tmp_path / "other")
    model = plain(tmp_path / "other")
    np.testing.assert_allclose(
        model.encode_query(TEXTS[:4]).to_dense(), other.encoder().encode(TEXTS[:4], "query").toarray(), atol=1e-5
    )


def test_what_is_encoded_in_pieces_keeps_its_order(made, monkeypatch):
    encoder = made().encoder()
    whole = encoder.encode(TEXTS, "doc").toarray()
    monkeypatch.setattr("rerankdistill.students.kinds.sparse.HELD", 4)
    np.testing.assert_allclose(encoder.encode(TEXTS, "doc").toarray(), whole, atol=1e-6)
    assert encoder.encode([], "doc").shape == (0, encoder.dimension)


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("budget", [Budget(40, 10**6), Budget(40, 0)])
def test_gradients_in_chunks_are_those_of_the_whole_batch(made, pooling, budget):
    student = made(pooling=pooling, doc_weight=0.1, query_weight=0.1)
    student.network.double()
    student.ready(training=True)
    batch = list_batch(LESSONS[:4], read, "batch")
    loss = parse("kl_div", {"kl_div": {}}, lambda name: open_kind("losses", name))

    def run(held):
        student.network.zero_grad()
        value = step_loss(student, loss, batch, held)
        value.backward()
        return value.item(), {n: p.grad.clone() for n, p in student.network.named_parameters() if p.grad is not None}

    value, wanted = run(PLENTY)
    again, found = run(budget)
    assert again == pytest.approx(value, rel=1e-9)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_logits_are_pooled_as_the_library_does(strategy, activation):
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    pooling = SpladePooling(strategy, activation)
    logits, mask = torch.randn(3, 5, 7), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    wanted = pooling({"token_embeddings": logits.clone(), "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(pooled(logits, mask, pooling), wanted)


def test_training_reads_what_inference_reads(made):
    student = made()
    batch = list_batch(LESSONS[:3], read, "batch")
    encoder = student.encoder()
    queries, docs = encoder.encode(batch.queries, "query"), encoder.encode(batch.docs, "doc")
    student.ready(training=True)
    [reading] = student.read(batch, PLENTY, frozenset({"docs"}))
    np.testing.assert_allclose(reading.scores.detach(), (queries @ docs.T).toarray(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(reading.docs.detach(), (docs @ docs.T).toarray(), rtol=1e-4, atol=1e-4)


def test_costs_by_hand():
    rows = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert flops(rows).item() == 2.0**2 + 1.0**2
    assert l1(rows).item() == 3.0


def test_the_cost_rises_with_the_square_of_the_steps_and_spares_static_queries(mlm):
    student = make(mlm, query_weight=0.5, doc_weight=2.0, query_cost="l1", cost_warmup=0.5)
    queries, docs = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    whole = 0.5 * 2 + 2.0 * (1 + 4)
    for done, share in ((0.0, 0.0), (0.25, 0.25), (0.5, 1.0), (1.0, 1.0)):
        student.share_done = done
        assert float(student.cost(queries, docs)) == pytest.approx(share * whole)
    static = make(mlm, queries="static", query_weight=0.5, doc_weight=2.0, cost_warmup=0.0)
    assert float(static.cost(queries, docs)) == pytest.approx(2.0 * 5)


def test_training_tells_how_much_is_done(mlm, tmp_path):
    student, seen = make(mlm), []
    cost = student.cost
    student.cost = lambda *sides: seen.append(student.share_done) or cost(*sides)
    run(student, tmp_path, steps=4)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def run(student, folder, **options):
    loss = parse("kl_div", {"kl_div": {"tau_student": 2.0}}, lambda name: open_kind("losses", name))
    stage = StageOptions(**{"steps": 30, "batch": 8, "learning_rate": 1e-3, **options})
    return train(student, lists(size=6), loss, stage, folder, 1)


def mrr(student):
    encoder = student.encoder()
    scores = encoder.similarity(encoder.encode(QUERIES, "query"), encoder.encode(read(NAMES), "doc"))
    own = np.diag(scores)[:, None]
    return float(np.mean(1 / (1 + (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1))))


def test_it_learns(made, tmp_path):
    student = made(doc_weight=0.005, query_weight=0.005)
    before = mrr(student)
    run(student, tmp_path, steps=60)
    assert mrr(student) > before + 0.03


def test_what_costs_is_used_less(tiny, tmp_path):
    filled = []
    for weight in (0.0, 0.02):
        student = make(tiny, doc_weight=weight, query_weight=weight)
        run(student, tmp_path / str(weight), steps=20)
        filled.append(student.encoder().encode(read(NAMES), "doc").nnz)
    assert 0 < filled[1] < 0.7 * filled[0]


def test_a_student_that_has_no_weight_left_is_told_of(mlm):
    student = make(mlm)
    with torch.no_grad():
        student.body.model.cls.predictions.decoder.bias.fill_(-1e6)
    with pytest.warns(RerankDistillWarning, match="no weight left"):
        student.read(list_batch(LESSONS[:2], read, "batch"), PLENTY, frozenset())


def test_a_made_up_head_stays_tied_through_a_checkpoint_and_a_folder(tiny, tmp_path):
    student = make(tiny)
    words = student.body.model.get_input_embeddings().weight
    before = words.detach().clone()
    run(student, tmp_path / "work", steps=4)
    decoder = student._modules[-2].linear.weight
    assert decoder is words
    assert not torch.equal(words, before)
    student.save(tmp_path / "saved")
    again = Kind.open(tmp_path / "saved", student.options, "cpu")
    assert again._modules[-2].linear.weight is again.body.model.get_input_embeddings().weight
    torch.testing.assert_close(again._modules[-2].linear.weight, words)


def test_a_made_up_head_is_the_same_every_time_and_leaves_most_words_out(tiny):
    one, other = (make(tiny, threshold=1.5) for _ in range(2))
    torch.testing.assert_close(one._modules[-2].linear.bias, other._modules[-2].linear.bias)
    states = word_states(one.body)
    words = one.body.model.get_input_embeddings().weight.detach()
    bias = -(states @ words.T).mean() - 1.5 * (states @ words.T).std()
    torch.testing.assert_close(one._modules[-2].linear.bias[0].detach(), bias)


def test_static_queries_are_sums_of_their_words(tiny):
    student = make(tiny, queries="static")
    rows = student.encoder().encode(["mill of arden", "arden", "of mill mill", ""], "query").toarray()
    np.testing.assert_allclose(rows.sum(1), [3, 1, 2, 0])
    np.testing.assert_array_equal(rows[0] > 0, (rows[1] > 0) | (rows[2] > 0))


def test_another_kind_of_sparse_model_is_refused(tiny, tmp_path):
    from sentence_transformers import SparseEncoder

    SparseEncoder(str(tiny), device="cpu").save_pretrained(str(tmp_path / "csr"), create_model_card=False)
    assert "SparseAutoEncoder" in json.dumps(json.loads((tmp_path / "csr/modules.json").read_text()))
    with pytest.raises(CardError, match="another way than SPLADE"):
        make(tmp_path / "csr")


def collection_of(folder):
    folder.mkdir()
    rows = [{"_id": name, "text": text} for name, text in DOCS.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "queries.jsonl").write_text("", "utf-8")
    return str(folder)


def test_its_index_is_built_by_the_command_line_and_finds_what_the_student_says(mlm, tmp_path):
    student = moved(make(mlm))
    student.save(tmp_path / "student")
    collection, model = collection_of(tmp_path / "c"), str(tmp_path / "student")
    words = ["indexes", "build", str(tmp_path / "x"), "--collection", collection, "--model", model]
    done = CliRunner().invoke(app, [*words, "--card", "sparse"])
    assert done.exit_code == 0, done.output
    encoder = Kind.open(tmp_path / "student", student.options, "cpu").encoder()
    asked = encoder.encode(QUERIES[:3], "query")
    wanted = encoder.similarity(asked, encoder.encode(list(DOCS.values()), "doc"))
    found = open_index(tmp_path / "x", open_kind("index", "sparse")).search(asked, 5)
    for row, hits in zip(wanted, found, strict=True):
        np.testing.assert_allclose([score for _, score in hits], np.sort(row)[::-1][:5], atol=1e-4)
    for card, model, why in (
        ("maxsim", str(tmp_path / "student"), "'sparse' goes into an index of kind 'sparse'"),
        ("sparse", "", "weights of terms"),
    ):
        refused = CliRunner().invoke(
            app, ["indexes", "build", str(tmp_path / "y"), "--collection", collection, "--card", card, "--model", model]
        )
        assert isinstance(refused.exception, UsageError)
        assert why in refused.exception.what


@pytest.mark.java
def test_lucenes_impact_index_finds_nearly_the_same(mlm, tmp_path):
    if not all(map(find_spec, ("pyserini", "jnius"))):
        pytest.skip("pyserini is not installed: pip install 'rerankdistill[lucene]'")
    student = moved(make(mlm))
    student.save(tmp_path / "student")
    words = ["indexes", "build", str(tmp_path / "x"), "--collection", collection_of(tmp_path / "c")]
    done = CliRunner().invoke(app, [*words, "--model", str(tmp_path / "student"), "--card", "lucene-impact"])
    assert done.exit_code == 0, done.output
    encoder = Kind.open(tmp_path / "student", student.options, "cpu").encoder()
    asked = encoder.encode(QUERIES[:8], "query")
    wanted = encoder.similarity(asked, encoder.encode(list(DOCS.values()), "doc"))
    found = open_index(tmp_path / "x", open_kind("index", "lucene_impact")).search(asked, 5)
    names = list(DOCS)
    for row, hits in zip(wanted, found, strict=True):
        scores = [row[names.index(doc_id)] for doc_id, _ in hits]
        np.testing.assert_allclose([score for _, score in hits], scores, rtol=0.05, atol=0.05)
        assert scores[0] == pytest.approx(row.max(), rel=0.02)
