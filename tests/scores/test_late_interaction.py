"""MaxSim of tiny random multi-vector encoders made here, against the library and against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.card import Context, Lengths, load_teacher, parse_teacher
from rerankdistill.scores.kinds.late_interaction import Kind, LateInteractionOptions
from rerankdistill.types import Group, Query, Scale

GROUPS = [
    Group(Query("1", "rain cat"), ("a", "b", "c"), ("rain . cloud , wind", "dog", "stock market bond " * 9)),
    Group(Query("2", "dog"), (), ()),
    Group(Query("3", "a bird and a fish"), ("b", "c"), ("dog", "stock market bond " * 9)),
]
PAIRS = [(group.query.text, text) for group in GROUPS for text in group.texts]


def build(folder, expansion=None, similarity="maxsim", skip=(".", ",")):
    """A two-layer BERT over a few words, with a projection to four dimensions."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "rain",
        "sun",
        "cloud",
        "wind",
        "cat",
        "dog",
        "bird",
        "fish",
        "stock",
        "bond",
        "market",
        "a",
        "and",
        ".",
        ",",
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "asked", "told"]
    names = {word: n for n, word in enumerate([*special, *words])}
    plain = Path(folder) / "plain"
    BertTokenizerFast(vocab=names, model_max_length=64).save_pretrained(plain)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=64, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(plain)
    body = Transformer(
        str(plain), query_length=None if expansion else 12, document_length=24, query_expansion=expansion
    )
    dense = Dense(16, 4, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    parts = [body, dense, MultiVectorMask(list(skip)), Normalize(module_input_name="token_embeddings")]
    prompts = {"query": "asked ", "document": "told "}
    made = MultiVectorEncoder(modules=parts, device="cpu", prompts=prompts, similarity_fn_name=similarity)
    made.save(str(Path(folder) / "model"))
    return str(Path(folder) / "model")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def expanded(tmp_path_factory):
    return build(tmp_path_factory.mktemp("expanded"), {"strategy": "fixed", "attend": False, "length": 10})


def open_kind(model, dtype="float32", **more):
    return Kind(model, device="cpu", dtype=dtype, **more)


def library(model, pairs=PAIRS):
    """Each pair encoded alone: vectors of the query, of the document, and the library's own score."""
    from sentence_transformers import MultiVectorEncoder

    opened = MultiVectorEncoder(model, device="cpu")
    found = []
    for query, document in pairs:
        q, d = opened.encode_query([query]), opened.encode_document([document])
        found.append((q[0].numpy(), d[0].numpy(), float(opened.similarity(q, d)[0, 0])))
    return found


def by_hand(query, document):
    """The sum over query tokens of the largest dot product, in plain Python."""
    return sum(max(sum(float(x) * float(y) for x, y in zip(q, d, strict=True)) for d in document) for q in query)


@pytest.mark.parametrize("which", ["plain", "expanded"])
def test_maxsim_is_the_librarys_and_the_sum_by_hand_whatever_the_batch(which, request):
    model = request.getfixturevalue(which)
    known = library(model)
    for budget in (48, 16384):
        found = open_kind(model, options=LateInteractionOptions(token_budget=budget)).judge(GROUPS)
        assert [len(scores) for scores in found] == [3, 0, 2]
        assert found[0].dtype == np.float32
        scores = np.concatenate(found)
        assert np.ptp(scores) > 0.1
        assert np.abs(scores - [score for *_, score in known]).max() < 1e-5
        assert np.abs(scores - [by_hand(query, document) for query, document, _ in known]).max() < 1e-5


def test_query_expansion_and_the_skip_list_are_the_models_own(plain, expanded):
    query, document, _ = library(plain)[0]
    assert len(query) == len(["[CLS]", "asked", "rain", "cat", "[SEP]"])
    assert len(document) == len(["[CLS]", "told", "rain", "cloud", "wind", "[SEP]"]), "punctuation takes part"
    assert all(len(query) == 10 for query, _, _ in library(expanded))
    assert not np.allclose(open_kind(plain).judge(GROUPS)[0], open_kind(expanded).judge(GROUPS)[0], atol=1e-2)


def test_every_distinct_text_is_encoded_once_a_call(plain):
    kind = open_kind(plain)
    seen = {"query": [], "document": []}
    for role, name in (("query", "encode_query"), ("document", "encode_document")):
        inner = getattr(kind.model, name)
        setattr(
            kind.model,
            name,
            lambda texts, inner=inner, role=role, **more: seen[role].extend(texts) or inner(texts, **more),
        )
    kind.judge([*GROUPS, *GROUPS])
    assert sorted(seen["query"]) == ["a bird and a fish", "rain cat"], "a query without documents need not be encoded"
    assert sorted(seen["document"]) == sorted({text for _, text in PAIRS})


@pytest.mark.parametrize("remembered", [0, 7, 500_000])
def test_a_whole_batch_has_the_scores_of_its_pairs_whatever_is_remembered(plain, remembered):
    kind = open_kind(plain, options=LateInteractionOptions(remembered=remembered))
    texts = {"a": "rain . cloud , wind", "b": "dog", "c": "stock market bond " * 9, "d": ". ,"}
    kind.read_docs = lambda ids: [texts[doc_id] for doc_id in ids]
    queries = [Query("1", "rain cat"), Query("2", "dog"), Query("3", "rain cat")]
    names = tuple(texts)
    judged = np.stack(kind.judge([Group(query, names, tuple(texts.values())) for query in queries]))
    for _ in range(2):
        np.testing.assert_allclose(kind.matrix(queries, names), judged, atol=1e-5)
        assert kind._size == sum(len(vectors) for vectors in kind._remembered.values()) <= remembered
    np.testing.assert_allclose(kind.matrix(queries[1:2], ["c", "a"]), judged[1:2, [2, 0]], atol=1e-5)


def test_a_text_that_is_remembered_is_not_encoded_again(plain, monkeypatch):
    kind = open_kind(plain)
    kind.read_docs = lambda ids: [f"dog {doc_id}" for doc_id in ids]
    asked: list[str] = []
    stream = kind._stream
    monkeypatch.setattr(kind, "_stream", lambda texts, role: asked.extend(texts) or stream(texts, role))
    kind.matrix([Query("1", "rain")], ["sun", "bird"])
    kind.matrix([Query("1", "rain"), Query("2", "fish")], ["bird", "wind"])
    assert asked == ["rain", "dog sun", "dog bird", "fish", "dog wind"]


def test_without_the_documents_texts_no_batch_is_scored(plain):
    with pytest.raises(DataError, match="no texts"):
        open_kind(plain).matrix([Query("1", "rain")], ["a"])


def test_a_model_that_averages_its_matches_is_averaged(tmp_path, plain):
    mean = open_kind(build(tmp_path, similarity="meanmaxsim")).judge(GROUPS)
    tokens = [len(query) for query, _, _ in library(plain)]
    assert np.allclose(np.concatenate(mean) * tokens, np.concatenate(open_kind(plain).judge(GROUPS)), atol=1e-5)


def test_a_document_of_nothing_that_counts_ranks_last_and_is_finite(tmp_path):
    model = build(tmp_path, skip=("[CLS]", "[SEP]", "told", ".", ","))
    found = open_kind(model).judge([Group(Query("1", "rain"), ("a", "b"), (". , .", "sun"))])[0]
    assert found[0] == -4  # [CLS] asked rain [SEP], each as badly as can be
    assert found[1] > found[0]


def test_lengths_of_the_card_replace_the_models_own(plain, expanded):
    long = Group(Query("q", "rain cat dog sun"), ("d",), ("stock market bond " * 9,))
    cut = Group(Query("q", "rain"), ("d",), ("stock market",))
    short = open_kind(plain, lengths=Lengths(query=4, doc=5))  # with three special tokens each
    assert np.allclose(short.judge([long])[0], open_kind(plain).judge([cut])[0], atol=1e-5)
    with pytest.raises(CardError, match="expands queries to 10 tokens"):
        open_kind(expanded, lengths=Lengths(query=4)).judge(GROUPS)


def test_bfloat16_products_are_summed_in_float32(plain):
    found = np.concatenate(open_kind(plain, "bfloat16").judge(GROUPS))
    assert ((found.view(np.uint32) & np.uint32(0xFFFF)) == 0).mean() < 0.5
    assert np.allclose(found, np.concatenate(open_kind(plain).judge(GROUPS)), atol=0.2)


def test_a_model_without_a_trained_projection_is_refused_since_its_scores_are_random(plain, tiny_bert):
    for model in (str(Path(plain).parent / "plain"), tiny_bert):
        with pytest.raises(DataError, match="scores would be random"):
            open_kind(model).judge(GROUPS)


def test_the_fingerprint_follows_what_changes_a_score_and_not_the_batch(plain, expanded):
    marks = [
        open_kind(plain).fingerprint,
        open_kind(expanded).fingerprint,
        open_kind(plain, "bfloat16").fingerprint,
        open_kind(plain, lengths=Lengths(doc=16)).fingerprint,
    ]
    assert len(set(marks)) == len(marks)
    assert open_kind(plain, options=LateInteractionOptions(token_budget=64)).fingerprint == marks[0]
    about = Path(plain) / "config_sentence_transformers.json"
    before = about.read_text("utf-8")
    try:
        about.write_text(json.dumps({**json.loads(before), "similarity_fn_name": "meanmaxsim"}), "utf-8")
        assert open_kind(plain).fingerprint != marks[0]
    finally:
        about.write_text(before, "utf-8")


def test_a_card_opens_it(plain):
    data = {"name": "t", "kind": "late_interaction", "model": plain, "scale": "similarity", "dtype": "float32"}
    kind = Kind.open(parse_teacher(data, "t"), Context(device="cpu"))
    assert kind.scale is Scale.SIMILARITY
    assert kind.judge(GROUPS[:1])[0].shape == (3,)
    with pytest.raises(CardError, match=r"lengths\.total"):
        Kind.open(parse_teacher({**data, "lengths": {"total": 20}}, "t"), Context(device="cpu"))
    for name in ("colbertv2", "gte-moderncolbert"):
        assert Kind.open(load_teacher(name), Context(device="cpu")).scale is Scale.SIMILARITY
