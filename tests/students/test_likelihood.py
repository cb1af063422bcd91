"""A causal student that is read by how likely it finds the query: against transformers, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, gradients, lists, read
from tiny_models import tiny_llama

from rerankdistill.cards import parse
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse as loss_of
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds import causal, seq2seq
from rerankdistill.students.model_card import write_card
from rerankdistill.students.train import StageOptions, train

ASKS = "Document: {document} Query: {query}"
PAIRS = [(query, doc) for query in QUERIES[:3] for doc in [*list(DOCS.values())[:5], ""]]
PLENTY = Budget(10**6, 10**6)
LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("words") / "llama", [*DOCS.values(), *QUERIES, "Document: Query:"])


def make(init, **options):
    torch.manual_seed(4)
    given = {"init": str(init), "output": "likelihood", "template": ASKS, **options}
    return causal.Kind.create(parse(causal.CausalOptions, given, "test"), "cpu")


def by_hand(folder, pairs):
    """Mean log-probability of the query's tokens, one token and one forward at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    out = []
    for query, doc in pairs:
        ids = tokenizer(ASKS.format(document=doc, query="").rstrip())["input_ids"]
        found = []
        for token in tokenizer(f" {query}", add_special_tokens=False)["input_ids"]:
            with torch.inference_mode():
                found.append(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item())
            ids = [*ids, token]
        out.append(np.mean(found))
    return np.array(out)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_score_is_the_querys_mean_log_probability_and_a_saved_folder_gives_it_too(lora, init, tmp_path):
    student = make(init, lora=lora)
    np.testing.assert_allclose(student.score(PAIRS), by_hand(init, PAIRS), atol=2e-5)
    taught(student, tmp_path / "work")
    wanted = student.score(PAIRS)
    student.save(tmp_path / "saved")
    np.testing.assert_allclose(by_hand(tmp_path / "saved", PAIRS), wanted, atol=2e-5)
    bare = parse(causal.CausalOptions, {"init": str(tmp_path / "saved")}, "test")
    again = causal.Kind.open(tmp_path / "saved", bare, "cpu")
    assert again.question == student.question, "the folder says how it is read"
    np.testing.assert_allclose(again.score(PAIRS), wanted, atol=2e-5)
    words = causal.Kind.create(bare.model_copy(update={"output": "margin"}), "cpu").question
    assert words.template == causal.QUESTION + causal.ANSWER, "a likelihood's template asks for no word"


def taught(student, folder, steps=30):
    loss = loss_of("kl_div", {}, lambda name: open_kind("losses", name))
    options = StageOptions(steps=steps, batch=8, learning_rate=1e-2, evaluate_every=10, warmup=0, keep_best=False)
    train(student, lists("lists"), loss, options, folder, 1)


def test_training_improves_on_the_untrained(init, tmp_path):
    def top_one(student):
        pairs = [([(e.query, text) for text in read(e.doc_ids)], np.argmax(e.scores)) for e in LESSONS]
        return np.mean([np.argmax(student.score(asked)) == best for asked, best in pairs])

    student = make(init, lora=LORA)
    before = top_one(student)
    taught(student, tmp_path)
    assert top_one(student) > before + 0.15


def test_gradients_in_chunks_are_those_of_the_whole_batch_and_padding_has_no_part(init):
    student = make(init)
    student.network.double()
    student.ready(training=True)
    batch = list_batch(LESSONS[:4], read, "lists")
    loss = loss_of("kl_div", {}, lambda name: open_kind("losses", name))

    (value, wanted), (again, found) = (gradients(student, loss, batch, budget) for budget in (PLENTY, Budget(200, 0)))
    assert again == pytest.approx(value, rel=1e-9)
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-12, msg=name)
    alone = np.concatenate([make(init).score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(make(init).score(PAIRS), alone, atol=1e-5)


def test_documents_are_cut_and_queries_are_not_and_an_empty_query_is_a_number(init):
    student = make(init, max_tokens=24)
    long = " ".join(DOCS.values())
    tokens = student._tokens([(QUERIES[0], long), (QUERIES[1], long)])
    assert tokens.lengths == [24, 24]
    for row, marks, query in zip(tokens.columns["input_ids"], tokens.columns["asked"], QUERIES, strict=False):
        asked = [token for token, mark in zip(row, marks, strict=True) if mark]
        assert asked == student.tokenizer(f" {query}", add_special_tokens=False)["input_ids"]
        assert marks == sorted(marks), "they are the last"
    halved = student._tokens([(" ".join(QUERIES), long)])
    assert halved.lengths[0] <= 24
    assert 0 < sum(halved.columns["asked"][0]) <= 12
    assert np.isfinite(student.score([("", long), ("", "")])).all()


def test_the_snippet_of_the_model_card_gives_our_scores(init, tmp_path, monkeypatch):
    student = make(init)
    student.save(tmp_path / "mine")
    write_card(tmp_path / "mine", "mine", "causal", {"seed": 1})
    text = (tmp_path / "mine" / "README.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names = {"query": QUERIES[0], "documents": read(list(DOCS)[:4])}
    exec(text.partition("```python\n")[2].partition("```")[0], names)  # noqa: S102
    wanted = student.score([(QUERIES[0], text) for text in names["documents"]])
    np.testing.assert_allclose(names["scores"], wanted, atol=2e-5)


def test_options_that_make_no_sense_are_refused(init):
    with pytest.raises(CardError, match="no tokens"):
        make(init, tokens=["yes", "no"])
    with pytest.raises(CardError, match=r"ends with \{query\}"):
        make(init, template="Query: {query} Document: {document}")
    with pytest.raises(CardError, match="behind those of the template"):
        make(init, template="{document}{query}")
    with pytest.raises(CardError, match="output"):
        parse(seq2seq.Seq2SeqOptions, {"init": "x", "output": "likelihood"}, "test")
    with pytest.raises(CardError, match="two logits"):
        make(init).read(list_batch(LESSONS[:1], read, "lists"), PLENTY, frozenset({"logits"}))
