"""Generation costs what is new and nothing twice, whatever happens to it on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerankdistill.errors import CardError, DamagedArtifact, DataError
from rerankdistill.queries.generate import Log, Request, generate, requests_for
from rerankdistill.queries.rules import write
from rerankdistill.queries.salient import Salient
from rerankdistill.queries.styles import StyleCard, shares
from rerankdistill.types import Doc

DOCS = [
    Doc(f"d{n}", f"Mill number {n} grinds corn for the town. It has {n} stones. Nobody knows why.", f"Mill {n}")
    for n in range(50)
]
TITLE = StyleCard(name="title", rule="title")
WORDS = [f"w{n}" for n in range(50)]
SENTENCE = StyleCard(name="sentence", rule="sentence", least=3)


class Counting:
    def __init__(self, dies_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self.dies_after = dies_after

    def __call__(self, requests):  # type: ignore[no-untyped-def]
        if len(self.asked) + len(requests) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += [request.query_id for request in requests]
        return [f"query about {request.doc.title}" if request.doc.doc_id != "d7" else "" for request in requests]


def run(log: Path, writer: Counting, docs=DOCS, mark: str = "w"):  # type: ignore[no-untyped-def]
    return list(generate([Request(doc, TITLE) for doc in docs], writer, mark, Log(log), batch=8))


def test_a_kill_costs_one_batch_and_the_rest_is_written_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    first = Counting(dies_after=20)
    with pytest.raises(KeyboardInterrupt):
        run(log, first)
    assert len(first.asked) == 16
    second = Counting()
    found = run(log, second)
    assert not set(first.asked) & set(second.asked)
    assert [query.doc_id for query in found] == [doc.doc_id for doc in DOCS if doc.doc_id != "d7"], (
        "an empty one is none"
    )
    third = Counting()
    assert run(log, third) == found
    assert third.asked == []


def test_a_torn_line_is_written_again_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    whole = run(log, Counting())
    with log.open("rb+") as file:
        file.truncate(log.stat().st_size - 5)
    again = Counting()
    assert run(log, again) == whole
    assert len(again.asked) == 1
    log.write_text("no json\n" + log.read_text("utf-8"), "utf-8")
    with pytest.raises(DamagedArtifact, match="line 1"):
        Log(log)


def test_ten_new_documents_cost_ten_queries_and_a_changed_one_costs_one(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    run(log, Counting())
    more = Counting()
    run(log, more, [*DOCS, *(Doc(f"new{n}", "Something else entirely.", f"New {n}") for n in range(10))])
    assert more.asked == [f"title:new{n}" for n in range(10)]
    changed = Counting()
    run(log, changed, [DOCS[0]._replace(text="Other words."), *DOCS[1:]])
    assert changed.asked == ["title:d0"]
    other = Counting()
    run(log, other, mark="another writer")
    assert len(other.asked) == len(DOCS)


def test_a_writer_that_forgets_a_query_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 queries for 8"):
        list(generate([Request(doc, TITLE) for doc in DOCS], lambda _: [], "w", Log(tmp_path / "log"), batch=8))


def test_queries_are_spread_over_all_documents_before_any_gets_a_second() -> None:
    asked = list(requests_for(DOCS, [(TITLE, 70), (SENTENCE, 10)]))
    titles = [request for request in asked if request.style is TITLE]
    assert {request.doc.doc_id for request in titles[:50]} == {doc.doc_id for doc in DOCS}
    assert len({request.query_id for request in asked}) == 80
    places = sorted(int(request.doc.doc_id[1:]) for request in asked if request.style is SENTENCE)
    assert places[0] < 10, "ten of fifty come from all over"
    assert places[-1] >= 40


def test_shares_add_up() -> None:
    assert shares({"a": 1, "b": 1, "c": 1}, 10) == {"a": 4, "b": 3, "c": 3}
    assert sum(shares({"a": 0.37, "b": 2.2, "c": 5}, 997).values()) == 997


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wings . they bend at high speed . nobody knows why .", {"they bend at high speed .", "nobody knows why ."}),
        (" ".join(WORDS), {" ".join(WORDS[:20]), " ".join(WORDS[20:40]), " ".join(WORDS[40:])}),
        ("too short", {""}),
    ],
)  # fmt: skip
def test_texts_without_capitals_or_full_stops_have_sentences_too(text: str, expected: set[str]) -> None:
    found = {write(Doc("d", text), SENTENCE, Salient([text]), seed) for seed in range(40)}
    assert found == expected


def test_rules_draw_the_same_every_time_and_from_the_document() -> None:
    salient = Salient(f"{doc.title} {doc.text}" for doc in DOCS)
    doc = DOCS[3]
    assert write(doc, TITLE, salient, 1) == "Mill 3"
    drawn = {write(doc, SENTENCE, salient, seed) for seed in range(30)}
    assert drawn == {"Mill number 3 grinds corn for the town.", "It has 3 stones.", "Nobody knows why."}
    assert write(doc, SENTENCE, salient, 1) == write(doc, SENTENCE, Salient([]), 1)
    assert write(Doc("x", "", ""), SENTENCE, salient, 1) == ""
    assert write(Doc("x", "", "Guide · Setup"), TITLE, salient, 1) == "Setup"


def test_a_gist_is_the_rarest_words_of_one_sentence_in_their_order() -> None:
    said = "The town mill grinds corn with heavy granite wheels and wooden gears"
    salient = Salient([*(doc.text for doc in DOCS), f"{said}. It is old."])
    style = StyleCard(name="gist", rule="gist", least=8)
    found = write(Doc("new", f"{said}. It is old.", ""), style, salient, 1).split()
    words = said.lower().split()
    assert 3 <= len(found) <= 8
    assert found == [word for word in words if word in found], "one sentence, in its order, each word once"
    assert {"granite", "wheels"} & set(found)
    assert not {"the", "with", "and"} & set(found)
    assert "corn" not in found or {"heavy", "granite", "wheels", "wooden", "gears"} <= set(found), "rarest first"


def test_telling_words_are_rare_elsewhere_and_frequent_here() -> None:
    texts = [
        "the mill grinds corn",
        "the mill stands",
        "the mill turns",
        "lighthouse lamps turn and lighthouse lamps glow",
    ]
    salient = Salient(texts)
    assert salient.terms(texts[3], 3)[0] == "lighthouse lamps"
    assert "mill" not in salient.terms(texts[0], 1)
    assert salient.terms("", 3) == []
    assert len(set(salient.terms("relapse relapsed relapses", 3))) == 1, "one word in three forms is one word"


def test_a_style_that_cannot_be_made_is_refused() -> None:
    from rerankdistill.cards import parse

    for table in (
        {"name": "x"},
        {"name": "x", "prompt": "no place"},
        {"name": "x", "rule": "title", "least": 9, "most": 3},
    ):
        with pytest.raises(CardError):
            parse(StyleCard, table, "x.toml")
