"""A model behind an endpoint, against real servers on loopback: one that conforms, and several that do not."""

from __future__ import annotations

import logging
import math
import socket
import time

import numpy as np
import pytest
from endpoint_servers import DROP, TRICKLE, log_odds, logprobs_of, serve
from score_fakes import make_groups

from rerankdistill.artifacts import read
from rerankdistill.cards import parse
from rerankdistill.errors import CardError, MissingDependency, RerankDistillError
from rerankdistill.scores.kinds.chat_api import ChatApiOptions
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.llm.purse import BudgetReached
from rerankdistill.scores.llm.wire import EndpointRefused, EndpointStopped
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store, read_store
from rerankdistill.types import Scale, View

KEY = "sk-very-secret-4711"
ASKS = [Ask(f"Query: rain {n}. ", f"Passage: cloud {n}. Relevant?") for n in range(20)]
GARBAGE = {
    "no json": b"<html><body>Bad Gateway</body></html>",
    "half": b'{"choices": [{"mess',
    "list": b"[]",
    "null": b"null",
    "no choices": b'{"error": "what?"}',
    "empty": b'{"choices": []}',
    "odd": b'{"choices": [17]}',
    "no message": b'{"choices": [{"index": 0}]}',
    "binary": bytes(range(128, 256)),
    "nothing": b"",
}


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def connect(server, **options):
    """An endpoint that is impatient, unless told otherwise."""
    table = {"url": server.url, "backoff": 0.01, "retries": 2, "timeout": 10.0, "concurrency": 4, **options}
    return ChatEndpoint("tiny", parse(EndpointOptions, table, "test"), where="teacher 'tiny'")


class YesNo:
    """The least of a teacher that asks: the difference of two log-probabilities."""

    scale, view, needs_texts, partial = Scale.LOGIT, View.TEXT, True, True

    def __init__(self, model, batch_pairs=8):
        self.model, self.batch_pairs, self.spent = model, batch_pairs, model.spent

    @property
    def fingerprint(self):
        return self.model.fingerprint

    @property
    def usage(self):
        return self.model.usage

    def judge(self, groups):
        asks = [Ask(f"{group.query.text}\n", text) for group in groups for text in group.texts]
        rows = self.model.choose(asks, ["Yes", "No"])
        return np.split(rows[:, 0] - rows[:, 1], np.cumsum([len(group.doc_ids) for group in groups])[:-1])


def run(folder, model, groups, **options):
    """Score groups into a store, batch after batch of the same size; the store, read again."""
    teacher = YesNo(model, **options)
    with open_store(folder, "tiny", teacher) as store:
        score(store, teacher, groups, max_batch_pairs=teacher.batch_pairs)
        return store.folder


def kept(folder):
    return read_store(next(folder.iterdir()))


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


# A server that misbehaves.


def test_a_busy_server_is_asked_again_when_it_says(server):
    server.misbehave = lambda number, body: (429, {"Retry-After": "1"}, b"slow down") if number == 1 else None
    model = connect(server)
    assert np.isfinite(model.choose(ASKS[:2], ["Yes", "No"])).all()
    assert server.at[1] - server.at[0] >= 1
    assert model.usage["retries"] == 1
    assert "unconfirmed_tokens" not in model.usage


@pytest.mark.parametrize("odd", [(503, {}, b""), (500, {}, b"oops"), (200, {}, b"<html>"), DROP], ids=str)
def test_a_fault_that_passes_costs_a_retry_and_nothing_else(server, odd):
    server.misbehave = lambda number, body: odd if number % 3 == 0 else None
    found = connect(server, retries=8).choose(ASKS, ["Yes", "No"])
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx([log_odds(ask.user) for ask in ASKS], abs=1e-4)


def test_429_for_ever_ends_in_one_message_after_the_retries(server):
    server.misbehave = lambda number, body: (429, {}, b'{"error": "rate limit"}')
    with pytest.raises(EndpointStopped, match=r"429.*rate limit.*3 times in a row") as error:
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 3, "the others are not begun"
    assert "run again" in error.value.fix


def test_a_server_that_wants_hours_is_not_waited_for(server):
    server.misbehave = lambda number, body: (429, {"Retry-After": "7200"}, b"quota")
    with pytest.raises(EndpointStopped, match="7200 s"):
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_in_one_message(server, content):
    server.misbehave = lambda number, body: (200, {}, content)
    with pytest.raises(EndpointStopped, match="answers"):
        connect(server, retries=1).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 2


def test_a_slow_server_ends_in_one_message_also_one_that_trickles(server):
    server.pause = 1.0
    with pytest.raises(EndpointStopped, match=r"no answer within 0.2 s, 2 times"):
        connect(server, timeout=0.2, retries=1).choose(ASKS[:1], ["Yes", "No"])
    server.pause, server.misbehave = 0.0, lambda number, body: TRICKLE
    began = time.monotonic()
    with pytest.raises(EndpointStopped, match=r"no answer within 0.2 s"):
        connect(server, timeout=0.2, retries=0).choose(ASKS[:1], ["Yes", "No"])
    assert time.monotonic() - began < 2


def test_no_server_at_all_is_said_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        model = ChatEndpoint("m", EndpointOptions(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1", backoff=0.01))
        with pytest.raises(EndpointStopped, match="cannot be reached"):
            model.write(ASKS, 2)


@pytest.mark.parametrize("dies", [21, 22, 24, 29])
def test_what_was_scored_before_an_endpoint_dies_is_kept_and_never_asked_for_again(server, tmp_path, dies):
    server.misbehave = lambda number, body: DROP if number >= dies else None
    groups = make_groups(4, 10)
    with pytest.raises(EndpointStopped, match="breaks off"):
        run(tmp_path, connect(server), groups)
    stored = len(kept(tmp_path))
    assert stored == (dies - 1) // 8 * 8
    server.requests.clear()
    server.misbehave = lambda number, body: None
    run(tmp_path, connect(server), groups)
    assert len(server.requests) == 40 - stored
    found = np.concatenate(kept(tmp_path).lookup(groups))
    wanted = [log_odds(f"{group.query.text}\n{text}") for group in groups for text in group.texts]
    assert found.tolist() == pytest.approx(wanted, abs=1e-4)


def test_a_wrong_request_is_not_repeated_and_the_server_is_quoted(server):
    server.misbehave = lambda number, body: (400, {}, b'{"error": "context of 512 tokens"}')
    with pytest.raises(EndpointRefused, match="context of 512 tokens"):
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed(server):
    server.misbehave = lambda number, body: (307, {"Location": "http://192.0.2.1/v1"}, b"")
    with pytest.raises(CardError, match=r"redirects to http://192\.0\.2\.1"):
        connect(server).choose(ASKS, ["Yes", "No"])


# The key.


def test_the_key_is_sent_and_shows_nowhere_else(server, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    model = connect(server, key_env="MY_KEY")
    without = connect(server)
    assert model.fingerprint == without.fingerprint
    folder = run(tmp_path, model, make_groups(2, 5))
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in caplog.text
    assert read(folder, "scores").counts["usage"]["requests"] == 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("status", [200, 307, 400, 401, 429, 500])
def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(server, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.misbehave = lambda number, body: (status, {"Location": f"/{KEY}"}, f"wrong key {KEY}".encode())
    with pytest.raises(RerankDistillError) as error:
        connect(server, retries=0).choose(ASKS[:1], ["Yes", "No"])
    assert KEY not in str(error.value)
    assert KEY not in repr(error.value.__cause__)


def test_a_missing_key_is_named_by_its_variable(server):
    server.misbehave = lambda number, body: (401, {}, b"who are you?")
    with pytest.raises(MissingDependency, match="wants a key") as error:
        connect(server).choose(ASKS, ["Yes", "No"])
    assert "OPENAI_API_KEY" in error.value.fix
    assert len(server.requests) == 1


def test_a_key_that_is_none_is_refused_unseen(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(MissingDependency, match="no key has") as error:
        connect(server)
    assert KEY not in str(error.value)


def test_a_key_meant_for_another_does_not_travel_unencrypted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert EndpointOptions(url="http://192.0.2.1/v1").key() == ""
    assert EndpointOptions(url="http://192.0.2.1/v1", key_env="OPENAI_API_KEY").key() == KEY
    assert EndpointOptions(url="https://192.0.2.1/v1").key() == KEY
    assert EndpointOptions(url="http://localhost:1/v1").key() == KEY


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", f"http://me:{KEY}@host/v1", "http://h/v1?key=1"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url):
    with pytest.raises(CardError, match="url"):
        parse(EndpointOptions, {"url": url}, "card")


def test_loopback_is_reached_whatever_proxy_the_environment_names(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert connect(server).write(ASKS[:1], 3)


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
