"""The kinds that ask a language model, asked of one behind an endpoint."""

from __future__ import annotations

import numpy as np
import pytest
from endpoint_servers import DROP
from score_fakes import make_groups, value

from rerankdistill import kinds
from rerankdistill.cards import parse
from rerankdistill.contracts import Teacher
from rerankdistill.errors import CardError, RerankDistillWarning
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.purse import BudgetReached
from rerankdistill.scores.llm.wire import EndpointStopped
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store, read_store
from rerankdistill.types import Answer

GROUPS = make_groups(3, 6)
QUESTIONS = {
    "yes": ("causal", {}, "logit"),
    "yes-probability": ("causal", {"output": "probability"}, "probability"),
    "grade": ("graded", {}, "grade"),
    "likelihood": ("query_likelihood", {"template": "upr-plain"}, "logprob"),
    "verdict": ("reasoning", {"template": "step-by-step", "options": ["yes", "no"], "max_thinking": 5}, "probability"),
}


def card(server, ask, question, scale, **options):
    table = {"ask": ask, "question": question, "url": server.url, "backoff": 0.01, "retries": 1, **options}
    return ScorerCard(name="api", kind="chat_api", model="tiny", scale=scale, view="text", options=table)


def opened(server, ask="causal", question=None, scale="logit", **options):
    of = card(server, ask, question or {}, scale, **options)
    return kinds.open_kind("scores", of.kind).open(of, Context())


def flat(said):
    return np.concatenate([each.scores if isinstance(each, Answer) else each for each in said])


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_is_asked_over_http_kept_in_the_store_and_not_asked_again(server, tmp_path, name):
    ask, question, scale = QUESTIONS[name]
    server.says_grades, server.weight = ask == "graded", lambda prompt: 20 + value("", prompt)
    teacher = opened(server, ask, question, scale)
    typed: Teacher = teacher
    assert str(typed.scale) == scale
    with open_store(tmp_path, "api", teacher) as store:
        score(store, teacher, GROUPS)
        found = np.concatenate(store.lookup(GROUPS))
    assert np.isfinite(found).all()
    assert len(set(found.tolist())) > 6
    asked = len(server.requests)
    assert store.usage["requests"] == asked >= 18
    again = opened(server, ask, question, scale)
    with open_store(tmp_path, "api", again) as store:
        score(store, again, GROUPS)
    assert len(server.requests) == asked
    assert np.array_equal(np.concatenate(read_store(store.folder).lookup(GROUPS)), found)


@pytest.mark.parametrize("ask", ["listwise", "first_token"])
def test_lists_are_judged_whole_by_one_request_each(server, tmp_path, ask):
    server.says, server.letters = "[3] > [1] > [2] > [6] > [5] > [4]", True
    teacher = opened(server, ask, {}, "rank")
    assert teacher.unit == "list"
    with open_store(tmp_path, "api", teacher) as store:
        score(store, teacher, GROUPS)
        found = store.lookup(GROUPS)
    wanted = [4, 3, 5, 0, 1, 2] if ask == "listwise" else [3, 4, 5, 2, 1, 0]
    assert [row.tolist() for row in found] == [wanted] * 3
    assert len(server.requests) == store.usage["windows"] == 3


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("aggregate", "scale"), [("wins", "probability"), ("bradley_terry", "logit")])
def test_pairs_of_documents_are_compared_in_both_orders(server, tmp_path, aggregate, scale, told):
    server.letters, server.logprobs, server.says = True, told, "Passage A"
    teacher = opened(server, "pairwise", {"aggregate": aggregate}, scale, without_logprobs="text")
    with open_store(tmp_path, "api", teacher) as store:
        with pytest.warns(RerankDistillWarning, match="teaches nothing"):
            score(store, teacher, GROUPS[:1])
        answer = store.answers(GROUPS[:1])[0]
    # It likes the first of two (or the second) whichever that is: averaged over both orders, it has no preference.
    assert answer.scores.tolist() == pytest.approx([0.5 if scale == "probability" else 0.0] * 6, abs=1e-3)
    assert store.usage["requests"] == 6 * 5 + (0 if told else 1)


def test_what_the_question_keeps_is_kept(server, tmp_path):
    server.says = "Because of the rain."
    teacher = opened(server, *QUESTIONS["verdict"])
    with open_store(tmp_path, "api", teacher) as store:
        score(store, teacher, GROUPS)
        answer = store.answers(GROUPS)[0]
    assert answer.traces[0] == "Because of the rain."
    assert len(answer.details[0]) == 2


def test_a_document_without_an_answer_has_no_score(server, tmp_path):
    server.logprobs, server.says = False, "Perhaps"
    teacher = opened(server, *QUESTIONS["yes-probability"], without_logprobs="text")
    with open_store(tmp_path, "api", teacher) as store:
        with pytest.warns(RerankDistillWarning, match="no score for 18 of 18"):
            score(store, teacher, GROUPS)
        assert np.isnan(np.concatenate(store.lookup(GROUPS))).all()
    assert store.usage["malformed"] == 18


def test_a_server_that_only_writes_gives_probabilities_and_never_log_odds(server):
    server.logprobs = False
    with pytest.raises(CardError, match="1 or 0 at best"):
        opened(server, without_logprobs="text")
    found = flat(opened(server, *QUESTIONS["yes-probability"], without_logprobs="text").judge(GROUPS))
    assert set(found.tolist()) == {0.0, 1.0}


def test_a_budget_on_record_is_kept_by_the_next_run(server, tmp_path):
    def run(budget):
        teacher = opened(server, budget_tokens=budget, concurrency=1)
        with open_store(tmp_path, "api", teacher) as store:
            score(store, teacher, make_groups(20, 10), max_batch_pairs=teacher.batch_pairs)

    for budget in (3000, 3000, 5000):
        with pytest.raises(BudgetReached):
            run(budget)
        assert 0 < sum(server.charged.values()) <= budget


def test_what_was_spent_on_a_batch_that_failed_counts_against_the_budget(server, tmp_path):
    server.misbehave = lambda number, body: DROP if number % 13 == 0 else None
    for _ in range(8):
        teacher = opened(server, budget_tokens=3000, concurrency=2, retries=0)
        with open_store(tmp_path, "api", teacher) as store:
            with pytest.raises((EndpointStopped, BudgetReached)) as error:
                score(store, teacher, make_groups(20, 10), max_batch_pairs=8)
            assert store.usage["prompt_tokens"] == server.charged["prompt_tokens"]
        assert sum(server.charged.values()) <= 3000
    assert error.type is BudgetReached


def test_a_server_that_is_gone_is_told_in_one_message_naming_the_teacher(server):
    server.misbehave = lambda number, body: (503, {}, b"")
    with pytest.raises(EndpointStopped, match="503") as error:
        opened(server).judge(GROUPS)
    assert error.value.where == "teacher 'api'"


def test_a_fingerprint_holds_the_question_and_the_way_it_is_asked(server):
    marks = {
        opened(server).fingerprint,
        opened(server, question={"options": ["true", "false"]}).fingerprint,
        opened(server, top_logprobs=5).fingerprint,
        opened(server, *QUESTIONS["yes-probability"]).fingerprint,
    }
    assert len(marks) == 4
    assert opened(server, concurrency=2, key_env="OTHER", budget_tokens=9).fingerprint == opened(server).fingerprint
    assert not server.requests


@pytest.mark.parametrize(
    ("ask", "question", "scale", "options", "message"),
    [
        ("causal", {"outptu": "logit"}, "logit", {}, "question.*did you mean 'output'"),
        ("causal", {"engine": "vllm"}, "logit", {}, "how a model is run here"),
        ("causal", {}, "grade", {}, "scale"),
        ("causal", {"template": "qwen3-reranker-chatml"}, "logit", {}, "written out"),
        ("query_likelihood", {}, "logprob", {}, "upr-plain"),
        ("reasoning", {}, "probability", {}, "prefill"),
        ("causal", {}, "logit", {"budget": 3}, "without prices"),
        ("oracle", {}, "logit", {}, "ask"),
    ],
)
def test_a_card_that_cannot_work_is_refused_before_anything_is_sent(server, ask, question, scale, options, message):
    with pytest.raises(CardError, match=f"(?s){message}"):
        opened(server, ask, question, scale, **options)
    assert not server.requests


def test_mistakes_in_the_question_are_found_by_checking_the_options_alone(server):
    of = card(server, "graded", {"labels": ["0", "1"]}, "grade")
    with pytest.raises(CardError, match="one gain a label"):
        parse(kinds.open_kind("scores", "chat_api").Options, of.options, of.name)
