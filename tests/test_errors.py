"""Errors speak in three parts, and their number is the exit code."""

from __future__ import annotations

import inspect

import pytest

from rerankdistill import errors
from rerankdistill.errors import CardError, DataError, RerankDistillError, UsageError

FAMILY = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, RerankDistillError)]
CODES = {
    "RerankDistillError": 1,
    "UsageError": 2,
    "MissingDependency": 3,
    "ArtifactError": 4,
    "MissingArtifact": 4,
    "StaleArtifact": 4,
    "DamagedArtifact": 4,
    "BadInput": 5,
    "CardError": 5,
    "DataError": 5,
    "ScaleError": 5,
    "ExpectationNotMet": 6,
}


def test_a_message_says_what_where_and_what_to_do():
    error = DataError("two documents have the id 'a'", where="corpus.jsonl:7", fix="remove one")
    assert str(error) == "corpus.jsonl:7: two documents have the id 'a'\n  → remove one"
    assert str(DataError("empty")) == "empty"


def test_every_error_has_the_exit_code_that_is_documented():
    assert {each.__name__: each.exit_code for each in FAMILY} == CODES


@pytest.mark.parametrize("each", FAMILY, ids=lambda each: each.__name__)
def test_the_tree_in_the_docstring_names_every_error(each):
    assert each.__name__ in (errors.__doc__ or "")


def test_a_warning_is_no_error_of_the_family():
    assert not issubclass(errors.RerankDistillWarning, RerankDistillError)
    assert not issubclass(UsageError, CardError)
