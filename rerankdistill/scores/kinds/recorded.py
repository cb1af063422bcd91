"""Scores that somebody published, read from their file: a teacher that costs nothing and answers what it was asked.

Three formats, plain or .gz: a TREC run (``query_id Q0 doc_id rank score tag``), ``query_id doc_id score``, and the
``pos_score neg_score query_id pos_id neg_id`` of Margin-MSE (Hofstätter et al., 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from rerankdistill.artifacts import fingerprint, hash_file
from rerankdistill.cards import Card, parse
from rerankdistill.errors import DataError
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.kinds._formats import Recorded, read_scores
from rerankdistill.types import FloatArray, Group, Scale, View


class RecordedOptions(Card):
    """``path``: the file. ``format``: found by looking, where not named."""

    path: str
    format: Literal["auto", "trec", "tsv", "margin_mse"] = "auto"


class Kind:
    """Published scores; a pair that the file lacks is NaN, and not an error. Their scale is for the card to say."""

    Options = RecordedOptions
    needs_texts = False
    partial = True
    """It may have no answer."""

    def __init__(
        self,
        path: Path,
        scale: Scale,
        view: View = View.TITLE_TEXT,
        format: Literal["auto", "trec", "tsv", "margin_mse"] = "auto",  # noqa: A002
    ) -> None:
        self.path, self.scale, self.view, self.format = path, scale, view, format
        if not path.is_file():
            raise DataError("no such scores file", where=str(path), fix="set options.path in the teacher's card")

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        options = parse(RecordedOptions, card.options, f"{card.name}: options")
        return cls(context.base / Path(options.path).expanduser(), card.scale, card.view, options.format)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("recorded", hash_file(self.path), self.format, self.scale)

    @cached_property
    def scores(self) -> Recorded:
        """The file's scores, read when first needed. Raises DataError, naming the line."""
        return read_scores(self.path, self.format)

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """The recorded scores, NaN where there is none."""
        return [self.scores.find(group.query.query_id, group.doc_ids) for group in groups]
