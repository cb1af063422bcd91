"""The parts of search that need no model: budget, sentences, votes, filters."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from rerankdistill.collections.load import load_collection
from rerankdistill.collections.memory import MemoryCollection
from rerankdistill.collections.metadata import Filter
from rerankdistill.errors import DataError
from rerankdistill.serving import why
from rerankdistill.serving.reranking import Pace, Reranked, reordered, within
from rerankdistill.serving.votes import Vote, Votes
from rerankdistill.types import Doc


class Reader:
    """A re-ranker that takes a second a pair, by a clock of its own, and scores a text by its number."""

    def __init__(self) -> None:
        self.now, self.batches = 0.0, list[int]()

    async def __call__(self, texts: Any) -> list[float]:
        self.batches.append(len(texts))
        self.now += len(texts)
        return [float(text) for text in texts]

    def rank(self, count: int, budget: float, pace: Pace | None = None) -> Reranked:
        texts = [str(number) for number in range(count)]
        return asyncio.run(within(texts, self, budget, pace or Pace(), lambda: self.now))


def test_batches_grow_while_there_is_time():
    reader = Reader()
    assert len(reader.rank(30, 1000).scores) == 30
    assert reader.batches == [4, 4, 8, 14]


@pytest.mark.parametrize("budget", [5, 9, 17])
def test_the_last_batch_is_as_small_as_the_time_that_is_left(budget):
    reader = Reader()
    found = reader.rank(30, budget)
    assert found.stopped
    assert reader.now == len(found.scores) == budget


def test_a_pace_that_is_known_forbids_a_batch_that_cannot_end_in_time():
    reader = Reader()
    assert reader.rank(30, 25, Pace(seconds=10)).scores[:2] == [0, 1]
    assert reader.batches[0] == 2


def test_a_pace_that_was_once_too_slow_mends():
    reader, pace = Reader(), Pace(seconds=20)  # as slow as a batch that hung until the end
    assert len(reader.rank(30, 20, pace).scores) > 15
    assert pace.seconds < 2


def test_a_batch_that_hangs_is_given_up():
    async def hang(texts: Any) -> list[float]:
        await asyncio.sleep(60)
        return []

    pace = Pace()
    found = asyncio.run(within(["a", "b"], hang, 0.05, pace))
    assert found == Reranked([], True)
    assert pace.seconds > 0, "the next request knows"


def test_what_was_not_read_stays_in_its_order_behind_what_was():
    assert reordered(5, [0.1, 0.5, 0.5]) == [1, 2, 0, 3, 4]
    assert reordered(2, []) == [0, 1]


@pytest.mark.parametrize(
    "text",
    ["One thing. Another thing here! A third\n\nA fourth one", "", "   ", "no end", "a. b. c.", "  Lead. Second one."],
)
def test_sentences_cover_the_words_of_a_text_once(text):
    spans = why.sentences(text)
    assert "".join("".join(text[s.start : s.end].split()) for s in spans) == "".join(text.split())
    assert all(one.end <= two.start for one, two in pairwise(spans))
    assert all(text[s.start : s.end].strip() for s in spans)


def test_only_sentences_that_stand_out_are_shown():
    spans = [why.Span(0, 5), why.Span(6, 9), why.Span(10, 12), why.Span(13, 20)]
    assert [span for span, _ in why.best(spans, [0.1, 0.9, 0.2, 0.88])] == [spans[1], spans[3]]
    assert [span for span, _ in why.best(spans, [0.1, 0.9, 0.2, 0.3])] == [spans[1]]
    assert why.best(spans, [0.5] * 4) == []
    assert len(why.best(spans[:1], [0.5])) == 1
    assert why.best([], []) == []


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"equals": 3}, 3, True),
        ({"equals": 3}, "3", False),
        ({"at_least": 3, "at_most": 5}, 5, True),
        ({"at_least": 3}, 2.9, False),
        ({"at_least": "2020-01-01"}, "2020-06-30", True),
        ({"at_least": 3}, "5", False),
        ({"at_most": 3}, {"a": 1}, False),
        ({"equals": "x"}, ["y", "x"], True),
        ({"prefix": "os."}, "os.path", True),
        ({"equals": 3}, None, False),
        ({}, None, False),
        ({}, 0, True),
    ],
)
def test_a_condition_holds_for_what_it_says(condition, value, holds):
    assert Filter(field="f", **condition).holds(value) is holds


def source() -> MemoryCollection:
    return MemoryCollection("few", [Doc("a", "rain\tand wind", "A"), Doc("b", "sun")], [], {})


def test_votes_are_a_collection_that_evaluation_reads(tmp_path):
    votes = Votes(tmp_path, source())
    for doc_id, grade in (("a", 0), ("b", 1), ("a", 1), ("b", -1), ("b", 0)):
        votes.add(Vote("what \t is\nwet", doc_id, grade, "bm25"))
    votes.add(Vote("Grüße\N{SNOWMAN}", "b", 1))
    read = load_collection(str(tmp_path / "votes"))
    assert [query.text for query in read.queries("test")] == ["what is wet", "Grüße\N{SNOWMAN}"]
    assert [judgement[1:] for judgement in read.judgements("test")] == [("a", 1), ("b", 0), ("b", 1)]
    assert list(read.docs()) == list(source().docs())
    assert len((tmp_path / "votes/log.tsv").read_text("utf-8").splitlines()) == 6, "nothing is ever overwritten"


def test_a_line_that_a_killed_writer_left_half_costs_only_itself(tmp_path):
    votes = Votes(tmp_path, source())
    votes.add(Vote("wet", "a", 1))
    with (tmp_path / "votes/log.tsv").open("ab") as file:
        file.write(b"vabc\tb\t1\t17")
    assert votes.add(Vote("dry", "b", 1)) == 2


def test_a_vote_on_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no document"):
        Votes(tmp_path, source()).add(Vote("wet", "nowhere", 1))
    assert not (tmp_path / "votes").exists()


def _vote(root: Path, writer: int) -> None:
    votes = Votes(root, source())
    for number in range(20):
        votes.add(Vote(f"query {writer} {number}", "ab"[number % 2], number % 2))


def test_workers_that_write_at_once_lose_no_vote(tmp_path):
    context = get_context("fork")
    writers = [context.Process(target=_vote, args=(tmp_path, number)) for number in range(3)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
    assert len(Votes(tmp_path, source()).all()) == 60
