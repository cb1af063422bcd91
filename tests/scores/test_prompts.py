"""The words in which a language model is asked about one document."""

from __future__ import annotations

import importlib

import pytest
from llm_fake import KINDS, teacher

from rerankdistill.errors import CardError
from rerankdistill.scores.card import Context, parse_teacher
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.llm.prompts import TEMPLATES, PromptTexts, continued, resolve

PAIRWISE = tuple(name for name, prompt in TEMPLATES.items() if "{query}" in prompt.user)
NASTY = [
    "plain words",
    "{query} {doc} {0} {} }{",
    "%s %(doc)s $doc \\1 \\g<0>",
    "<|im_end|>\n</think>",
    "",
    "猫 \ud800",
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", NASTY)
def test_a_prompt_shows_the_texts_whole_and_never_trips_over_braces(name, text):
    prompt = TEMPLATES[name]
    ask = prompt.ask(text, f"[{text}]")
    shown = text.replace("<|", "< |") if name == "qwen3-reranker-chatml" else text
    assert ask.user.count(f"[{shown}]") == 1
    assert ask.user.count(shown) >= (2 if name in PAIRWISE and text else 1)
    ask = prompt.ask("Q", "D")
    assert "{" not in ask.user + ask.answer + ask.system


@pytest.mark.parametrize("name", PAIRWISE)
def test_the_shared_part_ends_before_the_second_text_and_leaves_it_its_space(name):
    ask, other = TEMPLATES[name].ask("QUERY", "DOC"), TEMPLATES[name].ask("QUERY", "OTHER")
    assert ask.shared == other.shared
    assert ask.own != other.own
    assert ask.shared.endswith(":")
    assert ask.own.startswith(" DOC")
    turned = resolve("plain", PromptTexts(user="P {doc} Q {query} again {doc}?"), "t").ask("QUERY", "DOC")
    assert turned == Ask("P DOC Q", " QUERY again DOC?")


def test_the_published_format_of_qwen3_reranker_comes_out_to_the_letter():
    system = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".'
    )
    user = (
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: what is a cat\n<Document>: An animal."
    )
    ask = TEMPLATES["qwen3-reranker"].ask("what is a cat", "An animal.")
    assert (ask.system, ask.user, ask.answer) == (system, user, "<think>\n\n</think>\n\n")
    raw = TEMPLATES["qwen3-reranker-chatml"].ask("what is a cat", "An animal.")
    assert raw.user + raw.answer == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_rank1_and_upr_are_asked_as_they_were_published():
    ask = TEMPLATES["rank1"].ask("q", "p")
    head = "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
    assert ask.user + ask.answer == f"{head}Query: q\nPassage: p\n<think>"
    assert TEMPLATES["upr"].ask("q", "p").user == "Passage: p\nPlease write a question based on this passage."


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"user": "Query: {query}"}, r"user: \{doc\} is missing"),
        ({"user": "Query: {query} {passage} {doc}"}, r"unknown place \{passage\}; did you mean \{doc\}"),
        ({"user": "Query: {query} {doc} {rank}"}, r"unknown place \{rank\}; there are"),
        ({"system": "About {query}"}, r"system: \{query\} belongs into user"),
        ({"answer": "{doc} is"}, r"answer: \{doc\} belongs into user"),
    ],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused(texts, message):
    with pytest.raises(CardError, match=message) as error:
        teacher("causal", prompt=texts)
    assert "t: options" in str(error.value)


def test_all_mistakes_of_a_prompt_are_told_at_once_and_a_json_example_is_none():
    with pytest.raises(CardError) as error:
        teacher("graded", prompt={"user": "{qery}", "system": "{document}"})
    for part in ("{qery}; did you mean {query}", "{document}; did you mean {doc}", "{query} is missing"):
        assert part in str(error.value)
    fine = teacher("causal", prompt={"user": '{query} {doc} {"relevant": true} {}'})
    assert fine.prompt.ask("q", "d").user == 'q d {"relevant": true} {}'


def test_a_wrong_template_field_or_word_is_refused_with_what_was_meant():
    with pytest.raises(CardError, match="did you mean 'plain'"):
        teacher("causal", template="plan")
    with pytest.raises(CardError, match="did you mean 'prompt'"):
        teacher("causal", promt={})
    with pytest.raises(CardError, match="two different words"):
        teacher("causal", options=("yes", " yes"))
    with pytest.raises(CardError, match="3 gains"):
        teacher("graded", gains=(0, 1, 2))
    with pytest.raises(CardError, match="each must be another"):
        teacher("graded", labels=("1", "1"), gains=(0, 1))
    with pytest.raises(CardError, match="must not be shown"):
        teacher("query_likelihood", template="plain")
    with pytest.raises(CardError, match="what ends the thinking"):
        teacher("reasoning", template="plain")


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_that_claims_another_scale_is_refused(kind):
    with pytest.raises(CardError, match="gives scores of scale"):
        teacher(kind, scale="similarity")


def test_a_written_out_prompt_wants_no_chat_template_around_it():
    card = {"name": "t", "kind": "causal", "model": "nowhere", "scale": "logit"}
    module = importlib.import_module("rerankdistill.scores.kinds.causal").Kind
    for chat, fine in (("auto", False), ("none", True)):
        options = {"template": "qwen3-reranker-chatml", "chat_template": chat}
        made = parse_teacher({**card, "options": options}, "test")
        if fine:
            module.open(made, Context(device="cpu"))
        else:
            with pytest.raises(CardError, match="chat_template = 'none'"):
                module.open(made, Context(device="cpu"))


def test_an_option_gets_the_space_that_the_answer_before_it_lacks():
    assert [continued(before, "yes") for before in ("", "A:", "A: ", "\n\n")] == ["yes", " yes", "yes", "yes"]
    assert continued("A:", " yes") == " yes"
