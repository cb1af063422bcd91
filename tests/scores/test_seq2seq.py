"""monoT5 and RankT5 on tiny random models made here, against transformers' own full logits."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import CardError, DataError
from rerankdistill.prompting import MONOT5, fill
from rerankdistill.scores.card import Context, Lengths, load_teacher, parse_teacher
from rerankdistill.scores.kinds.seq2seq import Kind, Seq2SeqOptions
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store
from rerankdistill.types import Group, Query, Scale

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
WORDS = ["Query:", "Document:", "Relevant:", "true", "false", "the", "cat", "sat", "on", "mat", "dog", "what", "is"]
GROUPS = [
    Group(Query("1", "what is the cat"), ("a", "b", "c"), ("the cat sat on the mat", "dog", "")),
    Group(Query("2", "dog"), (), ()),
    Group(Query("3", "is the dog"), ("a",), ("the mat " * 20,)),
]
PAIRS = [(group.query.text, text) for group in GROUPS for text in group.texts]
RANKT5 = Seq2SeqOptions(template="Query: {query} Document: {document}", tokens=("<extra_id_10>",))


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{n}>" for n in range(12))]
    vocabulary = [*special, *(SPACE + word for word in WORDS), "true"]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = [name for name in special if name.startswith("<extra")]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        extra_special_tokens=extra,
        **names,
    )


def t5(folder, kind="T5", **more):
    import torch
    import transformers

    torch.manual_seed(5)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 48}
    config = getattr(transformers, f"{kind}Config")(**sizes, decoder_start_token_id=0, **more)
    getattr(transformers, f"{kind}ForConditionalGeneration")(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return t5(tmp_path_factory.mktemp("t5"))


def open_kind(model, dtype="float32", **more):
    return Kind(model, device="cpu", dtype=dtype, **more)


def full_logits(folder, prompt):
    """The whole vocabulary's logits at the first decoder position, one unpadded prompt."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0].numpy()


def wanted(folder, pairs, template, ids):
    return np.stack([full_logits(folder, template.format(query=q, document=d))[ids] for q, d in pairs])


@pytest.mark.parametrize(
    ("kind", "more"), [("T5", {}), ("T5", {"tie_word_embeddings": False}), ("MT5", {}), ("UMT5", {})]
)
def test_both_logits_are_those_of_the_models_own_full_forward_scaled_as_it_scales(tmp_path, kind, more):
    folder = t5(tmp_path, kind, **more)
    teacher = open_kind(folder, options=Seq2SeqOptions(token_budget=64))
    known = teacher.tokenizer.get_vocab()
    assert teacher.token_ids == [known[SPACE + "true"], known[SPACE + "false"]], "not the pieces that begin a word"
    found = teacher.judge(GROUPS)
    logits = wanted(folder, PAIRS, MONOT5, teacher.token_ids)
    assert np.ptp(logits) > 0.01
    details = np.concatenate([np.stack(each.details) for each in found if each.details])
    assert np.abs(details - logits).max() < 1e-4 * max(1, np.abs(logits).max())
    scores = np.concatenate([each.scores for each in found])
    by_hand = [np.log(np.exp(true) / (np.exp(true) + np.exp(false))) for true, false in logits.astype(np.float64)]
    assert np.abs(scores - by_hand).max() < 1e-3
    assert scores.dtype == np.float32
    assert [len(each.scores) for each in found] == [3, 0, 1]


def test_the_margin_is_kept_where_a_card_asks_for_it(tied):
    teacher = open_kind(tied, options=Seq2SeqOptions(output="margin"))
    logits = wanted(tied, PAIRS, MONOT5, teacher.token_ids)
    assert teacher.scale is Scale.LOGIT
    scores = np.concatenate([each.scores for each in teacher.judge(GROUPS)])
    assert np.abs(scores - (logits[:, 0] - logits[:, 1])).max() < 1e-4


def test_rankt5_is_the_raw_logit_of_one_special_token(tied):
    teacher = open_kind(tied, options=RANKT5)
    assert teacher.scale is Scale.LOGIT
    assert teacher.keeps == ()
    assert teacher.token_ids == [13]
    logits = wanted(tied, PAIRS, RANKT5.template, [13])
    assert np.abs(np.concatenate(teacher.judge(GROUPS)) - logits[:, 0]).max() < 1e-4


def test_only_the_named_rows_and_one_decoder_position_are_computed(tied):
    teacher = open_kind(tied)
    seen = []
    head = teacher.model.get_output_embeddings()
    head.register_forward_hook(lambda _, given, result: seen.append((tuple(given[0].shape[1:]), result.shape[-1])))
    teacher.judge(GROUPS)
    assert set(seen) == {((1, 32), 2)}
    assert head.weight.shape == (2, 32)
    assert teacher.model.get_input_embeddings().weight.shape[0] == 48, "the tied input embedding was cut too"


def test_a_long_document_is_cut_and_never_the_end_of_the_prompt(tied):
    teacher = open_kind(tied, lengths=Lengths(total=16))
    rows = teacher.tokens([("what is the cat", "the mat " * 50), ("dog " * 50, "cat"), ("dog", "")]).columns[
        "input_ids"
    ]
    texts = [" ".join(teacher.tokenizer.decode(row).replace(SPACE, " ").split()) for row in rows]
    assert all(len(row) <= 16 for row in rows)
    assert all(text.rstrip().endswith("Relevant: </s>") for text in texts), texts
    assert len(rows[0]) == 16, "room was left"
    assert "what is the cat Document: the mat" in texts[0]
    assert texts[1].count("dog") == 8
    assert "Document: cat" in texts[1]
    limited = open_kind(tied, lengths=Lengths(query=1, doc=2))
    short = limited.tokens([("what is", "the cat sat on")]).columns["input_ids"]
    assert short == teacher.tokens([("what", "the cat")]).columns["input_ids"]
    with pytest.raises(CardError, match=r"lengths\.total"):
        open_kind(tied, lengths=Lengths(total=3)).tokens([("what is", "the cat")])


def test_braces_in_a_text_are_no_places_of_the_template():
    assert fill(MONOT5, "{document} {0}", "{query}") == "Query: {document} {0} Document: {query} Relevant:"
    assert fill("{document} | {query} ?", "{document}", "{query}") == "{query} | {document} ?"


def test_bfloat16_does_not_tie_scores_in_its_own_coarse_steps(tied):
    pairs = [(f"what is {a}", f"the {b} {c}") for a in WORDS[5:] for b in WORDS[5:] for c in WORDS[5:8]]
    found = open_kind(tied, "bfloat16").logits(pairs)
    assert ((found.view(np.uint32) & np.uint32(0xFFFF)) == 0).mean() < 0.2, "the logits were rounded to bfloat16"
    assert np.corrcoef(found[:, 0], open_kind(tied).logits(pairs)[:, 0])[0, 1] > 0.98


def test_the_store_keeps_both_logits(tied, tmp_path):
    teacher = open_kind(tied)
    with open_store(tmp_path, "monot5", teacher) as store:
        score(store, teacher, GROUPS)
        kept = store.answers(GROUPS[:1])[0]
    np.testing.assert_array_equal(np.stack(kept.details), teacher.logits(PAIRS[:3]))


def test_the_fingerprint_follows_what_changes_a_score_and_not_the_batch(tied):
    marks = [
        open_kind(tied).fingerprint,
        open_kind(tied, "bfloat16").fingerprint,
        open_kind(tied, lengths=Lengths(total=64)).fingerprint,
        open_kind(tied, options=Seq2SeqOptions(output="margin")).fingerprint,
        open_kind(tied, options=Seq2SeqOptions(template="{query} {document}")).fingerprint,
        open_kind(tied, options=RANKT5).fingerprint,
    ]
    assert len(set(marks)) == len(marks)
    assert open_kind(tied, options=Seq2SeqOptions(token_budget=64)).fingerprint == marks[0]


def test_what_cannot_be_scored_is_refused_with_its_reason(tied, tmp_path):
    with pytest.raises(DataError, match="'unheard' is not one token"):
        open_kind(tied, options=Seq2SeqOptions(tokens=("true", "unheard"))).judge(GROUPS)
    import transformers

    headless = transformers.T5EncoderModel.from_pretrained(tied)
    headless.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="its scores are random"):
        open_kind(str(tmp_path)).judge(GROUPS)


@pytest.mark.parametrize(
    ("options", "scale", "message"),
    [
        ({}, "logit", "write scale = 'logprob'"),
        ({"output": "margin"}, "logprob", "write scale = 'logit'"),
        ({"tokens": ["<extra_id_10>"], "output": "margin"}, "logit", r"of 1 token\(s\)"),
        ({"output": "logit"}, "logit", r"of 2 token\(s\)"),
        ({"template": "Query: {query}"}, "logprob", "{document} once"),
        ({"tokens": ["a", "b", "c"]}, "logprob", "tokens"),
    ],
)
def test_a_card_that_cannot_be_is_refused(tied, options, scale, message):
    data = {"name": "t", "kind": "seq2seq", "model": tied, "scale": scale, "options": options}
    with pytest.raises(CardError, match=message):
        Kind.open(parse_teacher(data, "t"), Context(device="cpu"))


@pytest.mark.parametrize(
    ("name", "scale", "keeps"), [("monot5-base", Scale.LOGPROB, True), ("rankt5-base", Scale.LOGIT, False)]
)
def test_a_shipped_card_opens_without_its_model(name, scale, keeps):
    teacher = Kind.open(load_teacher(name), Context(device="cpu"))
    assert teacher.scale is scale
    assert bool(teacher.keeps) is keeps
