"""A cross-encoder's raw logit, on tiny random models made here."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import DataError
from rerankdistill.scores.card import Context, Lengths, parse_teacher
from rerankdistill.scores.kinds.cross_encoder import CrossEncoderOptions, Kind
from rerankdistill.types import Group, Query, Scale

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "dog",
    "runs",
    "fast",
    "query",
    "what",
    "is",
    "where",
    "house",
    "tree",
    "yes",
    "no",
    "document",
    "search",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GROUPS = [
    Group(Query("1", "what is the cat"), ("a", "b", "c"), ("the cat sat on a mat", "dog", "")),
    Group(Query("2", "where is house"), ("a",), ("tree house on a mat " * 9,)),
    Group(Query("3", "dog"), (), ()),
]
PAIRS = [(group.query.text, text) for group in GROUPS for text in group.texts]
TEMPLATE = (
    "{% for m in messages %}{% if m.role in ['query', 'document'] %}{{ m.role }} {{ m.content }} {% endif %}"
    "{% endfor %}yes no is"
)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*SPECIAL, *WORDS])}, SPECIAL[1]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{word.strip('[]').lower()}_token": word for word in SPECIAL}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, model_input_names=inputs, **names)


def bert(folder, labels=1, headless=False, spread=0.5):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(labels)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=labels,
        initializer_range=spread,
    )
    (BertModel if headless else BertForSequenceClassification)(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return bert(tmp_path_factory.mktemp("two"), labels=2)


def open_kind(model, **more):
    return Kind(model, device="cpu", dtype="float32", **more)


def predict(model, pairs=PAIRS):
    import torch
    from sentence_transformers import CrossEncoder

    return CrossEncoder(model, device="cpu").predict(pairs, activation_fn=torch.nn.Identity())


def test_scores_are_the_librarys_raw_logits_in_the_order_asked(one):
    kind = open_kind(one)
    found = kind.judge(GROUPS)
    assert [len(scores) for scores in found] == [3, 1, 0]
    wanted = predict(one)
    assert np.ptp(wanted) > 0.5
    assert np.abs(np.concatenate(found) - wanted).max() < 1e-5
    assert np.concatenate(found).min() < 0 or np.concatenate(found).max() > 1, "this looks like a sigmoid"
    assert np.concatenate(found).dtype == np.float32


def test_scores_do_not_depend_on_what_else_is_in_the_batch(one):
    kind = open_kind(one, options=CrossEncoderOptions(token_budget=64))
    alone = [kind.score([pair])[0] for pair in PAIRS]
    assert np.allclose(kind.score(PAIRS), alone, atol=1e-5)


def test_bfloat16_does_not_tie_scores_in_its_own_coarse_steps(one):
    kind = Kind(one, device="cpu", dtype="bfloat16")
    pairs = [(f"what is {word}", f"the {other} sat") for word in WORDS[:8] for other in WORDS[:8]]
    found = kind.score(pairs)
    coarse = (found.view(np.uint32) & np.uint32(0xFFFF)) == 0
    assert coarse.mean() < 0.2, "the logits were rounded to bfloat16"
    assert np.corrcoef(found, open_kind(one).score(pairs))[0, 1] > 0.99


def test_of_two_labels_the_margin_is_kept_or_the_named_logit(two):
    logits = predict(two)
    assert logits.shape == (len(PAIRS), 2)
    for options, wanted in (
        (CrossEncoderOptions(), logits[:, 1] - logits[:, 0]),
        (CrossEncoderOptions(positive=0), logits[:, 0] - logits[:, 1]),
        (CrossEncoderOptions(output="logit"), logits[:, 1]),
        (CrossEncoderOptions(output="logit", positive=0), logits[:, 0]),
    ):
        assert np.abs(open_kind(two, options=options).score(PAIRS) - wanted).max() < 1e-4
    with pytest.raises(DataError, match="label 2 of a model with 2 labels"):
        open_kind(two, options=CrossEncoderOptions(positive=2)).score(PAIRS)


def test_lengths_cut_the_document_and_never_the_end_of_the_query(one):
    long = Group(Query("q", "what is the cat where"), ("d",), ("tree house " * 100,))
    cut = Group(Query("q", "what is the"), ("d",), ("tree house tree house",))
    kind = open_kind(one, lengths=Lengths(query=3, doc=4))
    assert np.allclose(kind.judge([long])[0], open_kind(one).judge([cut])[0], atol=1e-6)
    total = open_kind(one, lengths=Lengths(total=12))
    assert np.allclose(
        total.judge([long])[0],
        open_kind(one).judge([Group(long.query, ("d",), ("tree house tree house",))])[0],
        atol=1e-6,
    )


def test_the_fingerprint_follows_what_changes_a_score_and_not_the_batch(one, two):
    marks = [
        open_kind(one).fingerprint,
        open_kind(two).fingerprint,
        open_kind(one, lengths=Lengths(total=32)).fingerprint,
        open_kind(one, options=CrossEncoderOptions(output="logit")).fingerprint,
        Kind(one, device="cpu", dtype="bfloat16").fingerprint,
    ]
    assert len(set(marks)) == len(marks)
    assert open_kind(one, options=CrossEncoderOptions(token_budget=64)).fingerprint == marks[0]


def test_a_model_without_a_scoring_head_is_refused_since_its_scores_are_random(tmp_path):
    with pytest.raises(DataError, match="no scoring head"):
        open_kind(bert(tmp_path, headless=True)).judge(GROUPS)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="not a model folder"):
        open_kind(str(empty)).judge(GROUPS)


def test_a_card_opens_it(one):
    data = {"name": "t", "kind": "cross_encoder", "model": one, "scale": "logit", "dtype": "float32"}
    kind = Kind.open(parse_teacher({**data, "lengths": {"total": 32}}, "t"), Context(device="cpu"))
    assert kind.scale is Scale.LOGIT
    assert kind.total == 32


@pytest.fixture(scope="module")
def generative(tmp_path_factory):
    """A causal language model behind a chat template, read by a LogitScore: how Qwen re-rankers are published."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("generative")
    torch.manual_seed(3)
    vocabulary = {token: n for n, token in enumerate(["<|endoftext|>", "yes", "no", *sorted(ByteLevel.alphabet())])}
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=512)
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return str(folder)


def test_a_generative_reranker_is_read_at_its_last_token_whatever_its_batch(generative):
    kind = open_kind(generative, options=CrossEncoderOptions(token_budget=256))
    wanted = predict(generative, PAIRS)
    assert "message" in kind.model[0].modality_config, "the template is not used: this tests nothing"
    assert np.ptp(wanted) > 0.1
    assert np.abs(kind.score(PAIRS) - wanted).max() < 1e-4


def test_a_long_document_does_not_cut_off_what_the_template_asks(generative):
    kind = open_kind(generative, lengths=Lengths(total=100))
    seen = []
    forward = kind._forward
    kind._forward = lambda features: seen.append(features["input_ids"]) or forward(features)
    kind.score([("what is the cat", "tree house " * 200)])
    text = kind.model.tokenizer.decode(seen[0][0])
    assert seen[0].shape[1] <= 100
    assert text.startswith("query what is the cat document tree house tree house")
    assert text.endswith("yes no is")
