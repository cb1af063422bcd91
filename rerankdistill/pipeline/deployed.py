"""What is in use today, as a run: how much of its top ten a student would change (churn).

A student that is no better than what it replaces and answers differently costs its users their habits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rerankdistill import artifacts
from rerankdistill.errors import CardError, DataError
from rerankdistill.evaluation.fidelity import fidelity
from rerankdistill.pipeline.card import EvaluateCard
from rerankdistill.runs.trec import read_run
from rerankdistill.types import Query, Run

CHURN = "churn@10"
NOTE = f"{CHURN}: the share of the deployed run's top ten that is not in the row's own top ten."


ROW = "row:"


class Deployed:
    """The deployed run of an evaluation, where it names one: a file, or a row of the report itself."""

    def __init__(self, target: EvaluateCard) -> None:
        named = target.deployed
        self.row = named.removeprefix(ROW) if named.startswith(ROW) else ""
        self.path = Path(named).expanduser() if named and not self.row else None
        self._run: Run | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """What a report depends on. Raises DataError: no such file."""
        if self.path is None:
            return {"deployed": self.row} if self.row else {}
        if not self.path.is_file():
            what = f"there is no run {str(self.path)!r}"
            raise DataError(what, where="evaluate: deployed", fix="give the path of a TREC run")
        return {"deployed": artifacts.hash_file(self.path)}

    @property
    def notes(self) -> list[str]:
        return [NOTE + (f" Deployed: {self.row}." if self.row else "")] if self.path or self.row else []

    def check(self, rows: Iterable[str]) -> None:
        """Raises CardError where the report has no such row."""
        known = list(dict.fromkeys(rows))
        if self.row and self.row not in known:
            fix = f"rows: {', '.join(known)}"
            raise CardError(f"deployed: the report has no row {self.row!r}", where="evaluate", fix=fix)

    def churn(self, run: Run, queries: Sequence[Query], row: Callable[[str], Run]) -> dict[str, float]:
        """``{"churn@10": …}`` of a run; empty where nothing is deployed. ``row`` gives the run of a row."""
        if self.path is None and not self.row:
            return {}
        self._run = self._run or (read_run(self.path) if self.path else row(self.row))
        kept = fidelity(run, self._run, query_ids=[query.query_id for query in queries]).overlap
        return {CHURN: round(1 - kept, 4)}
