"""What the student kept of its teacher: order, first choice, overlap, share of the gain."""

from __future__ import annotations

import pytest

from rerankdistill.errors import DataError
from rerankdistill.evaluation.fidelity import fidelity, share_of_gain
from rerankdistill.types import Run


def ranked(name: str, **lists: str) -> Run:
    """Each list is a word: its letters are the documents, best first."""
    hits = {q: [(doc, float(len(word) - at)) for at, doc in enumerate(word)] for q, word in lists.items()}
    return Run.from_hits(name, hits)


def test_a_student_that_copies_its_teacher_keeps_everything() -> None:
    teacher = ranked("teacher", q="abcd", p="xyz")
    found = fidelity(teacher.renamed("student"), teacher)
    assert (found.tau, found.top1, found.overlap, found.queries) == (1.0, 1.0, 1.0, 2)


def test_a_reversed_student_has_tau_minus_one() -> None:
    assert fidelity(ranked("student", q="dcba"), ranked("teacher", q="abcd")).tau == -1.0


def test_tau_by_hand_reads_the_teachers_top_only() -> None:
    # of abc the student swaps one of three pairs: (2 - 1) / 3; d and e are below the teacher's top 3
    found = fidelity(ranked("student", q="edbac"), ranked("teacher", q="abcde"), depth=3)
    assert found.tau == pytest.approx(1 / 3)
    assert (found.top1, found.overlap) == (0.0, pytest.approx(1 / 3))


def test_documents_the_student_never_listed_stand_below_its_own() -> None:
    assert fidelity(ranked("student", q="ab"), ranked("teacher", q="abcd")).tau == pytest.approx(5 / 30**0.5)
    found = fidelity(ranked("student", q="cd"), ranked("teacher", q="abcd"))
    assert found.tau is not None
    assert found.tau < 0


def test_queries_the_student_skipped_count_against_it() -> None:
    found = fidelity(ranked("student", q="ab"), ranked("teacher", q="ab", p="xy"))
    assert (found.tau, found.top1, found.overlap, found.queries) == (0.5, 0.5, 0.5, 2)
    assert fidelity(ranked("student", q="ab"), ranked("teacher", q="ab", p="xy"), query_ids=["q"]).top1 == 1.0


def test_a_student_that_cannot_tell_documents_apart_has_tau_zero_not_nan() -> None:
    flat = Run.from_hits("flat", {"q": [("a", 1.0), ("b", 1.0)]})
    assert fidelity(flat, ranked("teacher", q="ab")).tau == 0.0
    blind = fidelity(ranked("student", q="ab"), flat)
    assert (blind.tau, blind.tau_queries) == (None, 0)


def test_a_teacher_without_documents_is_refused() -> None:
    with pytest.raises(DataError, match="no document"):
        fidelity(ranked("student", q="ab"), ranked("teacher", q=""))


def test_share_of_gain() -> None:
    assert share_of_gain(0.4, 0.6, 0.8) == pytest.approx(0.5)
    assert share_of_gain(0.4, 0.3, 0.8) == pytest.approx(-0.25)
    assert share_of_gain(0.4, 0.9, 0.8) == pytest.approx(1.25)
    assert share_of_gain(0.5, 0.6, 0.5) is None, "a teacher that gains nothing has no gain to share"
    assert share_of_gain(0.5, 0.6, 0.4) is None
