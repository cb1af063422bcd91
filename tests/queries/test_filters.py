"""Each filter throws out what it is for and nothing else, and says so."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rerankdistill.queries import filters
from rerankdistill.queries.filters import Funnel
from rerankdistill.queries.generate import Generated
from rerankdistill.queries.leakage import find_leaks
from rerankdistill.queries.styles import StyleCard
from rerankdistill.types import Query

TEXT = "The old mill of Arden grinds corn for seven villages and draws visitors from far away every autumn."
STYLES = {
    "q": StyleCard(name="q", rule="question", least=2, most=12),
    "s": StyleCard(name="s", rule="sentence", most=40, copies=True),
}


def made(text: str, style: str = "q", number: int = 0) -> Generated:
    return Generated(f"{style}{number}", text, "d", style)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("who grinds corn in arden", True),
        ("corn", False),
        ("a b c d e f g h i j k l m", False),
        ("what does the passage say about corn", False),
        ("see https://x.example for corn", False),
        ("corn corn corn corn corn", False),
        ("?? !!", False),
        ("12 34", False),
        ("wer mahlt das Korn", True),
        ("what is passage time", True),
    ],
)
def test_form(text: str, fine: bool) -> None:
    assert list(filters.well_formed(STYLES)([made(text)])) == [fine]


def test_a_copy_is_thrown_out_unless_its_style_allows_it() -> None:
    passes = filters.not_copied(STYLES, {"d": TEXT})
    copied, asked = "mill of Arden grinds corn for seven villages", "which mill of Arden grinds corn for us"
    assert list(passes([made(copied), made(asked), made(copied, "s")])) == [False, True, True]
    assert filters.longest_run(["a", "b", "c"], ["x", "b", "c", "a"]) == 2


def test_another_script_is_noticed() -> None:
    passes = filters.same_script({"d": TEXT})
    assert list(passes([made("мельница в Ардене"), made("alte Mühle"), made("1984 2001")])) == [False, True, True]


def test_the_same_question_in_other_words_order_is_asked_once() -> None:
    queries = [
        made(t, number=n) for n, t in enumerate(("old mills of Arden", "the Arden mill, old", "new mills of Arden"))
    ]
    assert filters.distinct(queries) == [True, False, True]


def test_round_trip_and_percentile() -> None:
    queries = [made("x", number=n) for n in range(4)]
    assert list(filters.found_again({"q0": 1, "q1": 20, "q2": 21}, 20)(queries)) == [True, True, False, False]
    scores = {"q0": 1.0, "q1": 2.0, "q2": 3.0, "q3": float("nan")}
    assert list(filters.scored_above(scores, 50)(queries)) == [False, True, True, False]


def test_a_funnel_remembers_what_every_filter_did() -> None:
    funnel = Funnel([made(t, number=n) for n, t in enumerate(("corn", "mills of arden", "arden mill"))])
    funnel.apply("form", filters.well_formed(STYLES)).apply("distinct", filters.distinct)
    assert [(s.name, s.came, s.passed, s.examples) for s in funnel.sieves] == [
        ("form", 3, 2, ("corn",)),
        ("distinct", 2, 1, ("arden mill",)),
    ]
    assert [query.text for query in funnel.queries] == ["mills of arden"]
    assert Funnel([]).apply("form", filters.well_formed(STYLES)).sieves[0].passed == 0


WORDS = (
    "river", "stone", "castle", "market", "winter", "copper", "signal", "engine", "orchard", "harbour", "museum",
    "glacier", "violin", "theory", "pepper", "saddle",
)  # fmt: skip


def sentence(seed: int) -> str:
    ending = "".join(chr(ord("a") + int(digit)) for digit in str(seed))
    words = [word + ending for word in random.Random(seed).sample(WORDS, 5)]
    return "how does the " + " and the ".join(words) + " change"


def test_what_is_a_test_query_but_for_case_order_and_endings_is_found() -> None:
    test = [Query(f"t{n}", sentence(n)) for n in range(60)]

    def light(text: str, seed: int) -> str:
        words = text.upper().split()
        random.Random(seed).shuffle(words)
        return " ".join(word + "S" if word.isalpha() and len(word) > 4 else word for word in words if word != "AND")

    training = [Query(f"x{n}", light(sentence(n), n)) for n in range(60)]
    training += [Query(f"y{n}", sentence(n + 1000)) for n in range(200)]
    leaks = find_leaks(training, test)
    assert {leak.query_id: leak.test_id for leak in leaks} == {f"x{n}": f"t{n}" for n in range(60)}
    assert all(leak.by == "words" for leak in leaks)


def test_a_synonym_is_found_by_vectors_and_only_with_some_words_in_common() -> None:
    test = [Query("t", "cost of grinding corn in arden")]
    training = [Query("a", "price of milling corn in arden"), Query("b", "price of an old violin"), Query("c", "corn")]
    near = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    leaks = find_leaks(training, test, near, near[:1])
    assert [(leak.query_id, leak.by) for leak in leaks] == [("a", "vectors")]
    assert find_leaks(training, []) == []
    assert find_leaks([], test) == []
