from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rerankdistill.collections import load_collection, pydocs
from rerankdistill.errors import DataError
from rerankdistill.lexical import Bm25Options, Lexical
from rerankdistill.types import View


@pytest.fixture(scope="module")
def source():  # type: ignore[no-untyped-def]
    return load_collection("pydocs")


def test_is_large_enough_to_train_and_small_enough_for_minutes(source) -> None:  # type: ignore[no-untyped-def]
    assert 2_500 <= len(source.doc_ids()) <= 6_000
    assert len(source.queries("train")) >= 1_500
    assert 150 <= len(source.queries("test")) <= 500
    assert 100 <= len(source.queries("dev")) <= 500
    assert max(len(doc.text.split()) for doc in source.docs()) <= pydocs.WORDS


def test_no_query_is_copied_into_its_document(source) -> None:  # type: ignore[no-untyped-def]
    for split in source.splits():
        texts = {query.query_id: pydocs.squeeze(query.text) for query in source.queries(split)}
        for query_id, doc_id, _ in source.judgements(split):
            [text] = source.texts([doc_id], View.TITLE_TEXT)
            assert texts[query_id] not in pydocs.squeeze(text)


def test_no_module_and_no_sentence_in_two_splits(source) -> None:  # type: ignore[no-untyped-def]
    modules = {s: {row.doc_id.split(".")[0].lstrip("_") for row in source.judgements(s)} for s in source.splits()}
    texts = {s: {pydocs.squeeze(query.text) for query in source.queries(s)} for s in source.splits()}
    for found in (modules, texts):
        assert not found["train"] & found["test"]
        assert not found["train"] & found["dev"]
        assert not found["dev"] & found["test"]


def test_every_query_has_a_document_and_one_place(source) -> None:  # type: ignore[no-untyped-def]
    known = set(source.doc_ids())
    everywhere = [query for split in source.splits() for query in source.queries(split)]
    assert len({query.query_id for query in everywhere}) == len(everywhere)
    assert len({pydocs.squeeze(query.text) for query in everywhere}) == len(everywhere)
    assert all(row.doc_id in known for split in source.splits() for row in source.judgements(split))


def test_word_overlap_alone_is_neither_hopeless_nor_enough(source) -> None:  # type: ignore[no-untyped-def]
    docs = list(source.docs())
    queries = source.queries("test")
    relevant = {(row.query_id, row.doc_id) for row in source.judgements("test")}
    found, _ = Lexical.build([doc.text for doc in docs], Bm25Options()).search([query.text for query in queries], 1)
    right = sum((query.query_id, docs[row].doc_id) in relevant for query, [row] in zip(queries, found, strict=True))
    assert 0.25 <= right / len(queries) <= 0.65


def test_well_known_function_is_described_without_its_own_first_sentence(source) -> None:  # type: ignore[no-untyped-def]
    queries = {query.query_id: query.text for split in source.splits() for query in source.queries(split)}
    assert queries["q:textwrap.dedent"] == "Remove any common leading whitespace from every line in `text`."
    [text] = source.texts(["textwrap.dedent"], View.TEXT)
    assert text.startswith("textwrap dedent text This can be used to make triple-quoted strings line up")


def test_same_interpreter_gives_the_same_collection(source) -> None:  # type: ignore[no-untyped-def]
    code = "from rerankdistill.collections import load_collection as load; print(load('pydocs').fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == source.fingerprint


def test_reading_executes_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text('"""A module that must never be imported by anyone."""\nraise SystemExit("executed")\n', "utf-8")
    (tmp_path / "broken.py").write_text("def (:\n", "utf-8")
    assert [thing.name for path in pydocs.module_files(tmp_path) for thing in pydocs.things_of(path, tmp_path)] == []
    with pytest.raises(DataError, match="no documented source"):
        pydocs._load(tmp_path)


@pytest.mark.parametrize(
    ("docstring", "sentence", "rest"),
    [
        ("Return the sum. It is exact.", "Return the sum.", "It is exact."),
        ("Wrapped over\n    two lines.\n\n    More.", "Wrapped over two lines.", "More."),
        ("fsum(xs) -> float\n\nReturn an exact sum.", "Return an exact sum.", ""),
        ("Use e.g. this one, v1.2 or later", "Use e.g. this one, v1.2 or later", ""),
    ],
)
def test_first_sentence_is_cut_where_a_reader_would(docstring: str, sentence: str, rest: str) -> None:
    assert pydocs.first_sentence(docstring) == (sentence, rest)


def test_names_come_apart_as_a_reader_would_say_them() -> None:
    assert pydocs.plain_words("self.getOuterFrames(a_b)") == ["get", "Outer", "Frames", "a", "b"]


def test_code_keeps_its_comments_and_loses_its_docstring() -> None:
    lines = ["def f(x):", '    """Say."""', "    # carefully", "    return x"]
    [node] = ast.parse("\n".join(lines)).body
    assert isinstance(node, ast.FunctionDef)
    assert pydocs._code(node, lines) == "    # carefully\n    return x"


def test_splits_cannot_be_renamed() -> None:
    with pytest.raises(DataError, match="own splits"):
        load_collection("pydocs", splits={"test": "x"})


def test_a_cut_keeps_whole_queries_and_all_three_splits(source) -> None:  # type: ignore[no-untyped-def]
    small = load_collection("pydocs/500")
    known = set(small.doc_ids())
    assert len(known) == 500
    assert known < set(source.doc_ids())
    for split in ("train", "dev", "test"):
        wanted = {q.query_id for q in source.queries(split)} & {q.query_id for q in small.queries(split)}
        every = [row for row in source.judgements(split) if row.query_id in wanted]
        assert every == list(small.judgements(split)), "a query that lost a document would be judged unfairly"
        assert len(wanted) >= 20
        assert all(row.doc_id in known for row in every)
    assert len(small.queries("test")) >= 60
    assert small.fingerprint != source.fingerprint
    assert list(load_collection("pydocs/2000").docs()) == list(load_collection("pydocs/2000").docs())


@pytest.mark.parametrize("name", ["pydocs/many", "pydocs/", "pydocs/5", "pydocs/-300"])
def test_a_size_that_is_none_is_one_clear_error(name: str) -> None:
    with pytest.raises(DataError, match="no number of documents"):
        load_collection(name)
