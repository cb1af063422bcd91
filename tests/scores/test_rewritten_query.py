"""A teacher that is shown other queries: by id, through the store, and never mixed up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from score_fakes import FakeTeacher, value

from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.card import Context, parse_teacher
from rerankdistill.scores.kinds.rewritten_query import Kind, read_queries
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store
from rerankdistill.types import Answer, Group, Query, Scale, View

TEXTS = {"1": "who founded the city of Rome", "2": "when was the city of Rome founded"}
GROUPS = [
    Group(Query("1", "who founded it?"), ("a", "b"), ("Romulus did", "it rains")),
    Group(Query("2", "and when?"), ("a",), ("Romulus did",)),
]
CARD = {"name": "disco", "kind": "rewritten_query", "scale": "similarity", "view": "text"}


def inner_card(folder, **more):
    lines = {"name": "behind", "kind": "bi_encoder", "model": "m", "scale": "similarity", **more}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
    (folder / "behind.toml").write_text(text, "utf-8")


def card(**options):
    given = {"teacher": "behind.toml", "queries": "rewritten.tsv", **options}
    return parse_teacher({**CARD, "options": given}, "disco.toml")


@pytest.fixture
def home(tmp_path):
    inner_card(tmp_path)
    (tmp_path / "rewritten.tsv").write_text("".join(f"{i}\t{text}\n" for i, text in TEXTS.items()), "utf-8")
    return tmp_path


def test_the_teacher_behind_sees_the_rewritten_query_and_the_same_documents():
    found = Kind(FakeTeacher(), TEXTS).judge(GROUPS)
    wanted = [[value(TEXTS[g.query.query_id], text) for text in g.texts] for g in GROUPS]
    assert [scores.tolist() for scores in found] == wanted
    assert found[0][0] != np.float32(value(GROUPS[0].query.text, "Romulus did"))


def test_scores_are_stored_under_the_students_own_query(tmp_path):
    kind = Kind(FakeTeacher(), TEXTS)
    with open_store(tmp_path, "disco", kind) as store:
        score(store, kind, GROUPS)
        rows = store.lookup(GROUPS)
    assert rows[1].tolist() == [value(TEXTS["2"], "Romulus did")]


def test_everything_but_the_query_is_the_teachers_behind():
    class Costly(FakeTeacher):
        scale, view, unit, keeps, partial, batch_pairs = Scale.LOGPROB, View.TITLE_TEXT, "list", ("details",), True, 7

        def __init__(self):
            super().__init__()
            self.usage, self.told = {"requests": 3.0}, None

        def spent(self, usage):
            self.told = usage

        def judge(self, groups):
            return [Answer(scores, tuple(scores[:, None])) for scores in super().judge(groups)]

    inner = Costly()
    kind = Kind(inner, TEXTS)
    for name in ("scale", "view", "unit", "keeps", "partial", "batch_pairs", "needs_texts", "usage"):
        assert getattr(kind, name) == getattr(inner, name), name
    kind.spent({"requests": 1.0})
    assert inner.told == {"requests": 1.0}
    assert kind.judge(GROUPS)[0].details[1].tolist() == [value(TEXTS["1"], "it rains")]
    plain = Kind(FakeTeacher(), TEXTS)
    assert (plain.unit, plain.keeps, plain.partial, plain.usage) == ("pair", (), False, {})
    assert not hasattr(plain, "batch_pairs")
    plain.spent({})


def test_queries_that_nobody_rewrote_are_named_or_scored_as_they_are():
    lost = [Group(Query(f"n{n}", f"new {n}"), ("a",), ("text",)) for n in range(9)]
    with pytest.raises(DataError, match=r"9 queries have no rewritten text: n0, n1, n2, n3, n4, …") as refused:
        Kind(FakeTeacher(), TEXTS).judge([*GROUPS, *lost])
    assert "missing = 'original'" in refused.value.fix
    found = Kind(FakeTeacher(), TEXTS, "original").judge([*GROUPS, *lost])
    assert found[-1].tolist() == [value("new 8", "text")]
    assert found[0].tolist() == Kind(FakeTeacher(), TEXTS).judge(GROUPS)[0].tolist()


def test_two_queries_of_one_text_that_were_rewritten_differently_are_refused_before_they_share_a_score():
    same = [Query("1", "and then?"), Query("2", "and then?")]
    with pytest.raises(DataError, match="'1' and '2' have the same text"):
        Kind(FakeTeacher(), TEXTS).check(same)
    Kind(FakeTeacher(), {"1": "x", "2": "x"}).check(same)
    by_id = FakeTeacher()
    by_id.needs_texts = False  # keyed by the query's id as well
    Kind(by_id, TEXTS).check(same)


def test_the_fingerprint_follows_the_texts_and_the_teacher_behind():
    marks = [
        Kind(FakeTeacher(), TEXTS).fingerprint,
        Kind(FakeTeacher(), {**TEXTS, "2": "when?"}).fingerprint,
        Kind(FakeTeacher(), TEXTS, "original").fingerprint,
        Kind(FakeTeacher(fingerprint="fedcba9876543210"), TEXTS).fingerprint,
        FakeTeacher().fingerprint,
    ]
    assert len(set(marks)) == len(marks)
    assert Kind(FakeTeacher(), dict(reversed(TEXTS.items()))).fingerprint == marks[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.tsv", '1\tone query\n2\ttwo, "quoted\n'),
        ("q.tsv", 'query_id\ttext\n1\tone query\n2\ttwo, "quoted\n'),
        (
            "q.jsonl",
            '{"query_id": "1", "text": "one query"}\n\n{"query_id": 2, "text": "two, \\"quoted", "by": "me"}\n',
        ),
    ],
)
def test_both_shapes_of_file_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, "utf-8")
    assert read_queries(tmp_path / name) == {"1": "one query", "2": 'two, "quoted'}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.tsv", "1\tone\n2 two\n", "line 2"),
        ("q.tsv", "1\tone\n1\tuno\n", "line 2.*'1' has two texts"),
        ("q.tsv", "1\t \n", "line 1"),
        ("q.jsonl", '{"query_id": "1", "text": "one"}\n{"text": "two"}\n', "line 2"),
        ("q.jsonl", '{"query_id": "1", "text": null}\n', "line 1"),
        ("q.jsonl", "one\n", "line 1"),
        ("q.tsv", "", "no query"),
    ],
)
def test_a_line_that_is_no_query_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_queries(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_queries(tmp_path / "elsewhere.tsv")
    (tmp_path / name).write_bytes(b"1\t\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_queries(tmp_path / name)


def test_a_card_opens_it_with_the_teacher_behind_in_its_own_view(home):
    opened = []

    def open_card(inner):
        opened.append(inner)
        fake = FakeTeacher()
        fake.scale, fake.view = inner.scale, inner.view
        return fake

    kind = Kind.open(card(), Context(base=home, open_card=open_card))
    assert opened[0].name == "behind"
    assert opened[0].view is View.TEXT, "the card's own view is another"
    assert kind.scale is Scale.SIMILARITY
    assert kind.texts == TEXTS
    placed, mark = Kind.wraps(card(), Context(base=home))
    assert placed.base == home
    assert mark != Kind.wraps(card(missing="original"), Context(base=home))[1]


def test_a_card_that_cannot_be_is_refused(home):
    context = Context(base=home, open_card=lambda _: FakeTeacher())
    with pytest.raises(CardError, match="nobody here can open"):
        Kind.open(card(), Context(base=home))
    with pytest.raises(CardError, match="is an ensemble"):
        Kind.open(card(teacher="bm25+minilm"), context)
    inner_card(home, scale="logit", kind="cross_encoder")
    with pytest.raises(CardError, match="write scale = 'logit'"):
        Kind.open(card(), context)
    inner_card(home, kind="rewritten_query")
    with pytest.raises(CardError, match="rewrites queries itself"):
        Kind.open(card(), context)
    with pytest.raises(CardError, match="did you mean 'queries'"):
        Kind.open(parse_teacher({**CARD, "options": {"teacher": "bm25", "querys": "x"}}, "c"), context)
