"""What the pipeline tests do again and again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankdistill.cards import parse
from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.card import PipelineCard
from rerankdistill.pipeline.step import Quiet


class Heard(Quiet):
    """Notes that remember which steps ran, why, which were fresh, and what was said."""

    def __init__(self) -> None:
        self.ran: dict[str, str] = {}
        self.fresh: list[str] = []
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def started(self, step: Any, reason: str) -> None:
        self.ran[step.name] = reason

    def skipped(self, step: Any) -> None:
        self.fresh.append(step.name)


def card_of(table: Mapping[str, Any]) -> PipelineCard:
    return parse(PipelineCard, table, "mini")


def train(table: Mapping[str, Any], out: Path) -> Heard:
    heard = Heard()
    verbs.train(card_of(table), out, heard)
    return heard


def evaluate(table: Mapping[str, Any], out: Path) -> tuple[Heard, list[dict[str, Any]]]:
    heard = Heard()
    folders = verbs.evaluate(card_of(table), out, heard)
    return heard, [json.loads((folder / "report.json").read_text()) for folder in folders]


def planned(table: Mapping[str, Any], out: Path, proof: bool = True) -> set[str]:
    return {each.step.name for each in verbs.plan(card_of(table), out, proof) if each.reason}


def figures(report: Mapping[str, Any], measure: str = "ndcg@10") -> dict[str, float]:
    return {row["name"]: row["measures"][measure] for row in report["rows"]}
