"""Re-rankers that answer with a word: whoever loads one without us must get the scores that we measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, QUERIES, gradients, lists, read
from tiny_models import SPACE, tiny_llama, tiny_t5
from torch import nn

from rerankdistill.cards import parse
from rerankdistill.errors import CardError, DataError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse as loss_of
from rerankdistill.prompting import next_ids
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds import causal, seq2seq
from rerankdistill.students.lora import is_adapted
from rerankdistill.students.model_card import write_card
from rerankdistill.students.train import StageOptions, last_checkpoint, train

PLENTY = Budget(10**6, 10**6)
KINDS = {"seq2seq": seq2seq.Kind, "causal": causal.Kind}
SHORT = "Query: {query} Document: {document} Relevant:"
CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}Answer:"
PAIRS = [(query, doc) for query in QUERIES[:3] for doc in [*list(DOCS.values())[:5], ""]]
LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def inits(tmp_path_factory):
    home, texts = tmp_path_factory.mktemp("words"), [*DOCS.values(), *QUERIES]
    return {"seq2seq": tiny_t5(home / "t5", texts), "causal": tiny_llama(home / "llama", texts)}


@pytest.fixture(params=["seq2seq", "causal"])
def kind(request):
    return request.param


def options_of(kind, init, **options):
    return parse(KINDS[kind].Options, {"init": str(init), "template": SHORT, **options}, "test")


def make(kind, inits, **options):
    torch.manual_seed(4)
    return KINDS[kind].create(options_of(kind, options.pop("init", None) or inits[kind], **options), "cpu")


def moved(student):
    """The student as a training might leave it."""
    torch.manual_seed(9)
    student.ready(training=True)
    with torch.no_grad():
        for parameter in student.network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    student.ready(training=False)
    return student


def plain(kind, folder, pairs):
    """``[n, 2]`` logits of a saved folder by transformers alone, one unpadded prompt at a time."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    opener = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
    model, tokenizer = opener.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.get_vocab()[f"{SPACE}{word}"] for word in (
        ("true", "false") if kind == "seq2seq" else ("yes", "no"))]  # fmt: skip
    rows = []
    for query, doc in pairs:
        inputs = tokenizer(SHORT.format(query=query, document=doc), return_tensors="pt")
        more = {"decoder_input_ids": torch.tensor([[0]])} if kind == "seq2seq" else {}
        with torch.inference_mode():
            rows.append(model(**inputs, **more).logits[0, -1, ids].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("how", ["whole", "lora", "cut"])
def test_a_saved_student_is_a_plain_folder_that_gives_the_same_scores(kind, how, inits, tmp_path):
    more = {"lora": {"lora": LORA}, "cut": {"layers": 1}, "whole": {}}[how]
    student = moved(make(kind, inits, **more))
    wanted = student.score(PAIRS)
    assert len(set(wanted.tolist())) > len(PAIRS) // 2
    student.save(tmp_path / "saved")
    logits = plain(kind, tmp_path / "saved", PAIRS)
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], wanted, atol=2e-5)
    options = options_of(kind, inits[kind], **more)
    again = KINDS[kind].open(tmp_path / "saved", options, "cpu")
    np.testing.assert_allclose(again.score(PAIRS), wanted, atol=2e-5)
    assert again.fingerprint != make(kind, inits, **more).fingerprint, "a trained model is another model"
    np.testing.assert_allclose(student.score(PAIRS), wanted, atol=1e-6, err_msg="saving changed the student")


@pytest.mark.parametrize("template", ["{document} Query: {query} Relevant:", "Query: {query} Document: {document}"])
def test_what_a_folder_says_of_itself_is_how_it_is_asked(kind, template, inits, tmp_path):
    words = ["no", "yes"]
    student = make(kind, inits, template=template, tokens=words, output="logprob")
    student.save(tmp_path / "saved")
    bare = parse(KINDS[kind].Options, {"init": str(tmp_path / "saved")}, "test")
    again = KINDS[kind].open(tmp_path / "saved", bare, "cpu")
    assert again.question == student.question
    np.testing.assert_array_equal(again.score(PAIRS), student.score(PAIRS))
    assert (again.score(PAIRS) < 0).all(), "a log-probability"


def test_one_token_is_scored_by_its_logit(kind, inits, tmp_path):
    student = make(kind, inits, tokens=["<extra_id_0>"] if kind == "seq2seq" else ["yes"])
    two = make(kind, inits, tokens=["<extra_id_0>", "true"] if kind == "seq2seq" else ["yes", "no"])
    batch = list_batch(LESSONS[:2], read, "lists")
    both = two.read(batch, PLENTY, frozenset({"logits"}))[0].logits
    one = student.read(batch, PLENTY, frozenset())[0].scores
    torch.testing.assert_close(one, both[..., 1])
    with pytest.raises(CardError, match="two logits"):
        student.read(batch, PLENTY, frozenset({"logits"}))


@pytest.mark.parametrize("budget", [Budget(1, 10**6), Budget(64, 10**6), Budget(64, 0), PLENTY])
def test_scores_land_in_the_cells_they_are_about(kind, budget, inits):
    student = make(kind, inits)
    examples = [LESSONS[0], *LESSONS[4:6]]
    short = examples[1]
    examples[1] = type(short)(
        short.query_id, short.query, short.doc_ids[:3], short.scores[:3], short.labels[:3], short.positive
    )
    batch = list_batch(examples, read, "lists")
    [reading] = student.read(batch, budget, frozenset({"student", "logits"}))
    for row, example in enumerate(examples):
        wanted = student.score([(example.query, text) for text in read(example.doc_ids)])
        np.testing.assert_allclose(reading.scores[row, : len(wanted)].detach().numpy(), wanted, atol=1e-5)
        assert not reading.scores[row, len(wanted) :].any(), "padding has no score"
        assert not reading.logits[row, len(wanted) :].any()
    torch.testing.assert_close(reading.logits[..., 1] - reading.logits[..., 0], reading.scores, msg="(no, yes)")
    assert student.read(batch, budget, frozenset())[0].logits is None


@pytest.mark.parametrize("lora", [None, LORA])
def test_gradients_in_chunks_are_those_of_the_whole_batch(kind, lora, inits):
    student = moved(make(kind, inits, lora=lora))
    student.network.double()
    student.ready(training=True)
    batch = list_batch(LESSONS[:4], read, "lists")
    loss = loss_of("kl_div", {}, lambda name: open_kind("losses", name))

    (value, wanted), (again, found) = (gradients(student, loss, batch, budget) for budget in (PLENTY, Budget(200, 0)))
    assert again == pytest.approx(value, rel=1e-9)
    assert found.keys() == wanted.keys()
    assert wanted
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-12, msg=name)


def test_the_query_arrives_whole_however_long_the_document(kind, inits):
    student = make(kind, inits, max_tokens=24)
    long = " ".join(DOCS.values())
    tokens = student._tokens([(QUERIES[0], long), (QUERIES[1], long)])
    assert tokens.lengths == [24, 24]
    for row, query in zip(tokens.columns["input_ids"], QUERIES, strict=False):
        text = "".join(student.tokenizer.convert_ids_to_tokens(row)).replace(SPACE, " ").removesuffix("</s>")
        assert text.strip().startswith(f"Query: {query} Document: the old bridge")
        assert text.endswith("Relevant:"), "the end at which the answer is read"


def test_a_query_that_leaves_no_room_is_halved_and_a_template_that_leaves_none_is_an_error(kind, inits):
    student = make(kind, inits, max_tokens=24)
    long = " ".join(QUERIES)
    tokens = student._tokens([(long, DOCS["d0"]), (long, DOCS["d7"])])
    assert max(tokens.lengths) <= 24
    assert tokens.columns["input_ids"][0] != tokens.columns["input_ids"][1], "the document is still read"
    student.training_tokens = 4
    with pytest.raises(CardError, match="without a document"):
        student.read(list_batch(LESSONS[:1], read, "lists"), PLENTY, frozenset())


def test_a_stage_reads_fewer_tokens_and_use_does_not(kind, inits):
    student = make(kind, inits)
    before = student.score(PAIRS)
    student.training_tokens = 12
    batch = list_batch(LESSONS[:2], read, "lists")
    short = student.read(batch, PLENTY, frozenset())[0].scores
    student.training_tokens = 0
    assert not torch.allclose(short, student.read(batch, PLENTY, frozenset())[0].scores)
    np.testing.assert_array_equal(student.score(PAIRS), before)


def test_lora_trains_the_adapters_alone_and_starts_where_the_model_is(kind, inits):
    student = make(kind, inits, lora=LORA)
    before = student.score(PAIRS)
    student.ready(training=True)
    trained = [name for name, p in student.network.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    student.ready(training=False)
    np.testing.assert_array_equal(student.score(PAIRS), before)


def test_lora_in_the_last_layers_computes_nothing_backwards_below_them(inits, tmp_path):
    init = tiny_llama(tmp_path / "deep", [*DOCS.values(), *QUERIES], layers=3)
    student = make("causal", {}, init=init, lora={**LORA, "layers": "last:1"})
    student.ready(training=True)
    trained = {name for name, p in student.network.named_parameters() if p.requires_grad}
    assert trained
    assert all(".layers.2." in name for name in trained)
    student.read(list_batch(LESSONS[:2], read, "lists"), PLENTY, frozenset())[0].scores.sum().backward()
    moved(student).save(tmp_path / "saved")
    again = causal.Kind.open(tmp_path / "saved", options_of("causal", init), "cpu")
    np.testing.assert_allclose(again.score(PAIRS), student.score(PAIRS), atol=2e-5)
    for layers in ("last:4", [3], [0, 0]):
        with pytest.raises(DataError, match=r"lora\.layers = .*layers 0 to 2"):
            make("causal", {}, init=init, lora={**LORA, "layers": layers}).ready(training=True)


def test_lora_on_layers_that_are_not_there_names_those_that_are(kind, inits):
    student = make(kind, inits, lora={"targets": ["query_key_value"]})
    with pytest.raises(DataError, match=r"lora\.targets") as error:
        student.ready(training=True)
    assert ("q_proj" if kind == "causal" else "wi") in str(error.value)


def test_frozen_weights_in_bfloat16_have_adapters_in_float32(inits):
    student = make("causal", inits, lora=LORA, weights="bfloat16")
    student.ready(training=True)
    types = {p.requires_grad: p.dtype for p in student.network.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    student.read(list_batch(LESSONS[:2], read, "lists"), PLENTY, frozenset())[0].scores.sum().backward()
    with pytest.raises(CardError, match="bfloat16"):
        options_of("causal", inits["causal"], weights="bfloat16")


@pytest.mark.parametrize(("kind", "lora"), [("seq2seq", None), ("causal", LORA)])
def test_training_improves_on_the_untrained_and_goes_on_from_a_checkpoint(kind, lora, inits, tmp_path):
    def run(folder, stop=0):
        student = make(kind, inits, lora=lora)
        loss = loss_of("kl_div", {}, lambda name: open_kind("losses", name))
        options = StageOptions(steps=30, batch=8, learning_rate=1e-2, evaluate_every=10, warmup=0, keep_best=False)
        heard = []

        def report(step, *_):
            heard.append(step)
            if stop and step == stop + 1:
                raise KeyboardInterrupt

        try:
            train(student, lists("lists"), loss, options, tmp_path / folder, 1, lambda _: 0.0, report)
        except KeyboardInterrupt:
            return heard, None
        return heard, student

    untrained = make(kind, inits)
    _, student = run("whole")
    assert top_one(student) > top_one(untrained) + 0.15
    run("killed", stop=20)
    assert last_checkpoint(tmp_path / "killed").name == "checkpoint-20"
    heard, again = run("killed")
    assert heard == list(range(21, 31))
    np.testing.assert_allclose(again.score(PAIRS), student.score(PAIRS), atol=1e-4)
    if lora:
        assert is_adapted(student.network)
        student.save(tmp_path / "first")
        second = KINDS[kind].open(tmp_path / "first", options_of(kind, inits[kind], lora=lora), "cpu")
        np.testing.assert_allclose(second.score(PAIRS), student.score(PAIRS), atol=1e-4)
        assert not is_adapted(second.network), "the second stage puts its own beside merged weights"


def top_one(student):
    """How often the document that the teacher likes best comes first."""
    hits = [np.argmax(student.score([(e.query, t) for t in read(e.doc_ids)])) == np.argmax(e.scores) for e in LESSONS]
    return float(np.mean(hits))


def test_a_checkpoint_holds_what_is_trained_alone(inits, tmp_path):
    from safetensors.torch import load_file

    student = make("causal", inits, lora=LORA)
    loss = loss_of("kl_div", {}, lambda name: open_kind("losses", name))
    options = StageOptions(steps=2, batch=2, evaluate_every=1)
    train(student, lists("lists"), loss, options, tmp_path, 1)
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert saved
    assert all(".lora_" in name for name in saved)


@pytest.mark.parametrize("tied", [True, False])
def test_a_t5_is_cut_with_the_position_bias_that_all_its_layers_share(tied, tmp_path):
    init = tiny_t5(tmp_path / "deep", [*DOCS.values(), *QUERIES], layers=4, tie_word_embeddings=tied)
    student = make("seq2seq", {}, init=init, layers=[2, 0], decoder_layers=[3])
    wanted = student.score(PAIRS)
    student.save(tmp_path / "cut")
    logits = plain("seq2seq", tmp_path / "cut", PAIRS)
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], wanted, atol=2e-5)
    again = seq2seq.Kind.open(tmp_path / "cut", options_of("seq2seq", init), "cpu")
    assert (len(again.network.encoder.block), len(again.network.decoder.block)) == (2, 1)


@pytest.mark.parametrize("decoder_layers", [None, [0, 2]])
def test_an_encoder_gets_a_decoder_and_is_one_model_from_then_on(decoder_layers, tiny, tmp_path):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    words = {"tokens": ["visitors", "old"], "layers": 2, "decoder_layers": decoder_layers}
    student = moved(make("seq2seq", {}, init=tiny.with_name("bi-raw"), **words))
    wanted = student.score(PAIRS)
    student.save(tmp_path / "saved")
    again = seq2seq.Kind.open(tmp_path / "saved", options_of("seq2seq", tmp_path / "saved"), "cpu")
    np.testing.assert_allclose(again.score(PAIRS), wanted, atol=1e-5)
    assert len(again.network.encoder.encoder.layer) == 2
    assert len(again.network.decoder.bert.encoder.layer) == len(decoder_layers or [0])
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    tokenizer, how = AutoTokenizer.from_pretrained(tmp_path / "saved"), model.config.rerankdistill
    inputs = tokenizer([SHORT.format(query=q, document=d) for q, d in PAIRS], padding=True, return_tensors="pt")
    start = torch.full((len(PAIRS), 1), model.config.decoder_start_token_id)
    logits = model(**inputs, decoder_input_ids=start).logits[:, 0, how["token_ids"]].detach().numpy()
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], wanted, atol=2e-5)


def test_a_question_is_put_in_the_models_chat_format(inits, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inits["causal"])
    tokenizer.chat_template = CHAT
    model = causal._load(str(inits["causal"]), None, "float32")[0]
    model.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    student = make("causal", {}, init=tmp_path / "chat")
    assert student.question.template == f"user : {SHORT} </s> Answer:"
    assert not student.question.special_tokens
    student.save(tmp_path / "saved")
    again = causal.Kind.open(tmp_path / "saved", options_of("causal", tmp_path / "chat"), "cpu")
    assert again.question == student.question
    bare = causal.Kind.open(tmp_path / "saved", causal.CausalOptions(init="x"), "cpu")
    assert bare.question.template == student.question.template, "framed once, not twice"
    flat = make("causal", {}, init=tmp_path / "chat", chat_template="none")
    assert flat.question.template == SHORT


def test_the_answers_are_told_apart_by_their_first_token(inits):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(inits["causal"])
    with pytest.raises(DataError, match="begin alike"):
        next_ids(tokenizer, SHORT, ("yes", "yes no"))
    assert next_ids(tokenizer, SHORT, ("yes",)) == [tokenizer.get_vocab()[f"{SPACE}yes"]]


def test_words_that_a_vocabulary_lacks_and_models_of_another_make_are_clear_errors(inits, tiny):
    with pytest.raises(DataError, match="'maybe' is not one token"):
        make("seq2seq", inits, tokens=["maybe", "no"])
    with pytest.raises(DataError, match="lacks"):
        make("causal", {}, init=tiny.with_name("bi-raw"))
    with pytest.raises(DataError, match="cannot be loaded"):
        make("seq2seq", {}, init=inits["causal"])
    with pytest.raises(CardError, match=r"\{query\} once"):
        options_of("causal", inits["causal"], template="{document}")
    with pytest.raises(CardError, match="output"):
        options_of("causal", inits["causal"], tokens=["yes"], output="margin")


def test_dropout_is_off_unless_it_is_asked_for(kind, inits):
    rate = "dropout" if kind == "seq2seq" else "lora"
    noisy = {"dropout": 0.5} if rate == "dropout" else {"lora": {**LORA, "dropout": 0.5}}
    batch = list_batch(LESSONS[:2], read, "lists")
    for more, same in (({}, True), (noisy, False)):
        student = moved(make(kind, inits, **more))
        student.ready(training=True)
        one, other = (student.read(batch, PLENTY, frozenset())[0].scores for _ in range(2))
        assert torch.equal(one, other) is same


def test_the_snippet_of_the_model_card_gives_our_scores(kind, inits, tmp_path, monkeypatch):
    student = moved(make(kind, inits))
    folder = tmp_path / "mine"
    student.save(folder)
    write_card(folder, "mine", kind, {"seed": 1})
    text = (folder / "README.md").read_text("utf-8")
    assert "library_name: transformers" in text
    monkeypatch.chdir(tmp_path)
    names = {"query": QUERIES[0], "documents": read(list(DOCS)[:4])}
    exec(text.partition("```python\n")[2].partition("```")[0], names)  # noqa: S102
    wanted = student.score([(QUERIES[0], text) for text in names["documents"]])
    np.testing.assert_allclose(np.asarray(names["scores"]), wanted, atol=2e-5)


def test_padding_is_where_a_causal_model_cannot_see_it(kind, inits):
    student = make(kind, inits)
    alone = np.concatenate([student.score([pair]) for pair in PAIRS])
    np.testing.assert_allclose(student.score(PAIRS), alone, atol=1e-5)
    assert isinstance(student.network.get_output_embeddings(), nn.Linear)
