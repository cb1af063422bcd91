"""A model behind an endpoint, against real servers on loopback: one that conforms, and several that do not."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from endpoint_asks import ASKS, connect, kept, run
from endpoint_servers import DROP, log_odds, logprobs_of
from score_fakes import make_groups

from rerankdistill.cards import parse
from rerankdistill.errors import CardError
from rerankdistill.scores.kinds.chat_api import ChatApiOptions
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.llm.purse import BudgetReached

pytestmark = pytest.mark.usefixtures("no_key")

# What a server that conforms is read as.


def test_an_option_is_worth_the_sum_of_its_ways_to_be_written(server):
    found = connect(server).choose(ASKS, ["Yes", "No", "Never"])
    for ask, row in zip(ASKS, found, strict=True):
        told = logprobs_of(ask.user)
        assert row[0] == pytest.approx(np.logaddexp(told["Yes"], told[" yes"]), abs=1e-5)
        assert row[1] == pytest.approx(told["No"], abs=1e-5)
        assert math.isnan(row[2])
        assert row[0] - row[1] == pytest.approx(log_odds(ask.user), abs=1e-4)


def test_what_is_not_among_the_likeliest_has_no_value(server):
    found = connect(server, top_logprobs=1).choose(ASKS, ["Yes", "No"])
    assert (np.isnan(found).sum(1) == 1).all()


def test_an_option_of_several_tokens_is_known_by_the_first_that_it_alone_begins_with(server):
    found = connect(server).choose(ASKS[:1], ["Yesterday", "Perhaps so"])[0]
    told = logprobs_of(ASKS[0].user)
    assert found[0] == pytest.approx(np.logaddexp(told["Yes"], told[" yes"]), abs=1e-5)
    assert found[1] == pytest.approx(told["Perhaps"], abs=1e-5)


@pytest.mark.parametrize("options", [["Yes", " yes"], ["No", ""]])
def test_options_that_cannot_be_told_apart_are_refused_before_anything_is_sent(server, options):
    with pytest.raises(CardError, match="begin alike"):
        connect(server).choose(ASKS, options)
    assert not server.requests


def test_questions_are_asked_at_temperature_0_with_a_seed_and_further_fields(server):
    connect(server, seed=7, extra={"chat_template_kwargs": {"enable_thinking": False}}).choose(ASKS[:2], ["Yes", "No"])
    body = server.requests[1]
    assert (body["temperature"], body["seed"], body["max_tokens"], body["model"]) == (0, 7, 1, "tiny")
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["messages"] == [{"role": "user", "content": ASKS[1].user}]


def test_a_field_can_be_left_out_for_a_server_that_rejects_it(server):
    connect(server, omit=["seed", "temperature"]).choose(ASKS[:1], ["Yes", "No"])
    assert not {"seed", "temperature"} & set(server.requests[0])


@pytest.mark.parametrize(
    ("prefill", "roles", "more"),
    [("user", ["system", "user"], False), ("message", ["system", "user", "assistant"], False),
     ("continue", ["system", "user", "assistant"], True)],
)  # fmt: skip
def test_the_beginning_of_an_answer_goes_where_the_server_reads_it(server, prefill, roles, more):
    ask = Ask("Which? ", "A or B", "Passage", "You rank.")
    connect(server, prefill=prefill).write([ask], 3)
    body = server.requests[0]
    assert [message["role"] for message in body["messages"]] == roles
    assert body["messages"][-1]["content"].endswith("Passage")
    assert ("continue_final_message" in body) is more


def test_what_is_written_ends_before_the_first_stop(server):
    server.says = "one two\nthree"
    assert connect(server).write(ASKS[:2], 10, ["\n", "nine"]) == ["one two"] * 2
    assert server.requests[0]["stop"] == ["\n", "nine"]
    assert connect(server).write(ASKS[:1], 2) == ["one two"]


def test_answers_come_in_the_order_of_the_questions_whoever_is_first(server):
    server.misbehave = lambda number, body: time.sleep(0.2 if number % 4 == 2 else 0)
    found = connect(server).choose(ASKS, ["Yes", "No"])
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx([log_odds(ask.user) for ask in ASKS], abs=1e-4)


def test_as_many_requests_are_under_way_as_the_card_says(server):
    server.pause = 0.05
    connect(server, concurrency=5).write(ASKS, 2)
    assert server.most_busy == 5


def test_the_likelihood_of_a_text_is_the_mean_over_its_own_tokens(server):
    asks = [Ask("Passage: cat\n", "Question:"), Ask("Passage: dög\n", "Question:")]
    found = connect(server).likelihood(asks, [" a bird", " fish fish fish"])
    assert found.tolist() == pytest.approx([-(2 + 5) / 20, -0.5])
    assert server.requests[0]["echo"] is True


def test_a_server_without_echo_is_told_apart_and_a_local_model_is_named(server):
    server.echo = False
    with pytest.raises(CardError, match=r"query_likelihood.*local model"):
        connect(server).likelihood(ASKS[:1], ["rain"])
    reply = b'{"choices": [{"text": "rain", "logprobs": null}]}'
    server.misbehave = lambda number, body: (200, {}, reply)
    with pytest.raises(CardError, match="local model"):
        connect(server).likelihood(ASKS[:1], ["rain"])


def test_a_text_is_cut_by_characters_behind_a_word():
    model = ChatEndpoint("m", EndpointOptions(characters_per_token=3))
    assert model.fit("the rain in spain", 3) == "the rain"
    assert model.fit("rain", None) == "rain"
    assert model.fit("incomprehensible", 2) == "incomp"


# A server that tells no log-probabilities.


@pytest.mark.parametrize("how", [False, "reject"])
def test_without_logprobs_a_server_is_refused_or_read_by_its_text(server, how):
    server.logprobs = how
    with pytest.raises(CardError):
        connect(server).choose(ASKS, ["Yes", "No"])
    before = len(server.requests)
    found = connect(server, without_logprobs="text").choose(ASKS, ["Yes", "No"])
    chance = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    assert chance[:, 0].tolist() == [float(log_odds(ask.user) > 0) for ask in ASKS]
    assert len(server.requests) - before == len(ASKS) + 1, "only the first is asked twice"


def test_a_text_that_names_no_option_counts_as_malformed_and_has_no_value(server):
    server.logprobs, server.says = False, "I am not sure. Yes"
    model = connect(server, without_logprobs="text")
    assert np.isnan(model.choose(ASKS[:3], ["Yes", "No"])).all()
    assert model.usage["malformed"] == 3
    server.says = " **no**, it is not"
    assert model.choose(ASKS[:1], ["Yes", "No"])[0].tolist() == [-1000, 0]
    server.says = "Nothing"
    assert np.isnan(model.choose(ASKS[:1], ["Yes", "No"])).all()


# Counting.


def test_tokens_and_money_are_counted_as_the_server_tells_them(server):
    model = connect(server, price_per_million_prompt=2.0, price_per_million_generated=10.0)
    model.choose(ASKS, ["Yes", "No"])
    prompt, generated = server.charged["prompt_tokens"], server.charged["generated_tokens"]
    cost = prompt * 2e-6 + generated * 1e-5
    assert dict(model.usage) == pytest.approx(
        {"requests": 20, "prompt_tokens": prompt, "generated_tokens": generated, "cost": cost}
    )


def test_a_server_that_tells_no_tokens_is_counted_at_its_worst(server):
    server.bill = False
    model = connect(server)
    model.choose(ASKS, ["Yes", "No"])
    assert model.usage["prompt_tokens"] >= server.charged["prompt_tokens"]


@pytest.mark.parametrize("limit", ["budget", "budget_tokens"])
@pytest.mark.parametrize("bill", [True, False])
def test_over_two_runs_a_budget_is_used_and_never_passed(server, tmp_path, limit, bill):
    server.bill = bill
    price = {"price_per_million_prompt": 1.0, "price_per_million_generated": 4.0}

    def charged():
        prompt, generated = server.charged["prompt_tokens"], server.charged["generated_tokens"]
        return prompt + generated if limit == "budget_tokens" else prompt * 1e-6 + generated * 4e-6

    groups = make_groups(10, 40)
    small, large = (2500, 4500) if limit == "budget_tokens" else (0.0025, 0.0045)
    with pytest.raises(BudgetReached, match="run again") as error:
        run(tmp_path, connect(server, **price, **{limit: small}), groups)
    assert error.value.exit_code == 3
    first = charged()
    assert 0 < first <= small
    done = len(kept(tmp_path))
    assert done > 0
    with pytest.raises(BudgetReached):
        run(tmp_path, connect(server, **price, **{limit: small}), groups)
    assert charged() <= small
    with pytest.raises(BudgetReached):
        run(tmp_path, connect(server, **price, **{limit: large}), groups)
    assert first < charged() <= large
    assert done < len(kept(tmp_path)) < 400
    spent = kept(tmp_path).usage
    assert spent["requests"] == len(server.requests) == len(kept(tmp_path)), "nothing is asked for twice"
    if bill:
        assert spent["prompt_tokens"] == server.charged["prompt_tokens"]


def test_a_batch_that_the_budget_cannot_take_is_not_begun(server):
    model = connect(server, budget_tokens=1000)
    with pytest.raises(BudgetReached, match="budget_tokens"):
        model.choose(ASKS, ["Yes", "No"])
    assert not server.requests


def test_a_request_that_was_never_answered_counts_against_the_budget(server):
    server.misbehave = lambda number, body: DROP
    model = connect(server, budget_tokens=1000, retries=20)
    with pytest.raises(BudgetReached):
        model.write(ASKS[:1], 10)
    assert len(server.requests) * (len(ASKS[0].user) + 10) <= model.usage["unconfirmed_tokens"] <= 1000


def test_a_budget_without_prices_is_a_mistake():
    with pytest.raises(CardError, match="without prices"):
        parse(EndpointOptions, {"budget": 1.0}, "card")


def test_a_fingerprint_knows_the_model_and_the_question_and_not_the_server():
    def mark(model="m", revision="main", **options):
        return ChatEndpoint(model, EndpointOptions(**options), revision).fingerprint

    same = [mark(url="http://127.0.0.1:9/v1"), mark(concurrency=1), mark(timeout=1), mark(retries=0), mark(backoff=1)]
    same += [mark(budget_tokens=5), mark(key_env="X"), mark(price_per_million_prompt=3)]
    assert set(same) == {mark()}
    other = [mark("n"), mark(revision="2"), mark(seed=1), mark(top_logprobs=5), mark(prefill="message")]
    other += [mark(without_logprobs="text"), mark(extra={"top_k": 1}), mark(characters_per_token=3)]
    assert len({mark(), *other}) == len(other) + 1


def test_an_unknown_option_is_told_with_what_was_meant():
    with pytest.raises(CardError, match="did you mean 'concurrency'"):
        parse(ChatApiOptions, {"ask": "causal", "concurency": 3}, "card")
