"""A session of judging: two runs of a folder of products, the pairs that tell them apart, and a collection of answers.

What comes out is a folder in BEIR's layout with people's judgements as its split ``test``: ``adapt --evaluate`` and the
``evaluate`` of a pipeline read it as any other collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankdistill.artifacts import write_text
from rerankdistill.collections.work import recall
from rerankdistill.collections.write import doc_line, qrels, query_line
from rerankdistill.errors import DataError, UsageError
from rerankdistill.evaluation.judging import MOST, Answers, Pair, difference, telling_pairs
from rerankdistill.runs.store import open_run
from rerankdistill.runs.trec import read_run
from rerankdistill.types import Run

ANSWERS = "answers.jsonl"


class Session:
    """Questions and answers.

    Args:
        work: the ``--out`` of ``train``, ``eval`` or ``adapt``.
        one, other: names of runs in ``work``, or paths of TREC runs; empty: the trained student and the first stage.
        out: the folder of answers; what is in it already is not asked again.

    Raises:
        DataError: no runs, or runs that agree on everything.
        UsageError: no run is called so.
    """

    def __init__(self, work: Path, one: str, other: str, split: str, out: Path, collection: str = "") -> None:
        self.source = recall(work, collection).source
        offered = _offered(work, split)
        self.names = one or _student(offered, work), other or _first(offered, work)
        self.queries = {query.query_id: query.text for query in self.source.queries(split)}
        known = set(self.source.doc_ids())
        found = telling_pairs(_run(self.names[0], offered, work), _run(self.names[1], offered, work))
        self.pairs = [pair for pair in found if pair.query_id in self.queries and pair.doc_id in known]
        if not self.pairs:
            what = f"{self.names[0]} and {self.names[1]} do not differ on any query of {split!r}"
            raise DataError(what, where=str(work), fix="name two other runs with --one and --other")
        self.out = out
        self.answers = Answers(out / ANSWERS)
        self._docs: dict[str, tuple[str, str]] = {}
        self._saved = False

    def next(self) -> Pair | None:
        """The most telling pair that nobody was asked about; None when there is none left."""
        return next((pair for pair in self.pairs if (pair.query_id, pair.doc_id) not in self.answers.grades), None)

    def shown(self, pair: Pair) -> dict[str, Any]:
        """What a person is shown of a pair, and how far they are. Which system found it is not told."""
        title, text = self._doc(pair.doc_id)
        done = sum(grade is not None for grade in self.answers.grades.values())
        left = len(self.pairs) - len(self.answers.grades)
        about = {"query_id": pair.query_id, "doc_id": pair.doc_id, "done": done, "left": max(left, 0)}
        return {**about, "query": self.queries[pair.query_id], "title": title, "text": text}

    def _doc(self, doc_id: str) -> tuple[str, str]:
        if not self._docs:
            wanted = {pair.doc_id for pair in self.pairs}
            self._docs = {doc.doc_id: (doc.title, doc.text) for doc in self.source.docs() if doc.doc_id in wanted}
        return self._docs[doc_id]

    def answer(self, query_id: str, doc_id: str, grade: int | None) -> None:
        """Take down a grade of 0 to 3, or None for a pair that is skipped. Raises UsageError: no such pair or grade."""
        if grade is not None and not 0 <= grade <= MOST:
            raise UsageError(f"a grade of {grade}", fix=f"0 (not relevant) to {MOST}")
        if not any((pair.query_id, pair.doc_id) == (query_id, doc_id) for pair in self.pairs):
            raise UsageError(f"query {query_id!r} and document {doc_id!r} are not among the pairs")
        self.answers.give(query_id, doc_id, grade)
        self.save()

    def undo(self) -> bool:
        """Take back the last answer; whether there was one."""
        taken = self.answers.undo() is not None
        if taken:
            self.save()
        return taken

    def save(self) -> None:
        """Write the answers as a collection."""
        corpus, judged = self.out / "corpus.jsonl", list(self.answers.judgements())
        if not self._saved:
            part = self.out / ".corpus.jsonl.part"
            with part.open("w", encoding="utf-8") as file:
                file.writelines(map(doc_line, self.source.docs()))
            part.replace(corpus)
            self._saved = True
        asked = dict.fromkeys(each.query_id for each in judged)
        told = "".join(query_line(query_id, self.queries[query_id]) for query_id in asked)
        write_text(self.out / "queries.jsonl", told)
        (self.out / "qrels").mkdir(exist_ok=True)
        write_text(self.out / "qrels" / "test.tsv", qrels(judged))

    def verdict(self) -> str:
        """What the answers say so far, in words."""
        judged = sum(grade is not None for grade in self.answers.grades.values())
        queries = len({key[0] for key, grade in self.answers.grades.items() if grade is not None})
        ahead = difference(self.pairs, self.answers.grades)
        better, worse = self.names if ahead > 0 else reversed(self.names)
        lead = f"{better} is ahead of {worse} by {abs(ahead):.2f} of DCG@10 in all"
        lead = lead if abs(ahead) > 1e-9 else "neither is ahead"
        return f"{judged} pairs of {queries} queries judged: {lead}"


def _offered(work: Path, split: str) -> Mapping[str, Path]:
    """The runs of a split in a folder of products, by their names."""
    home = work / "runs" / split
    return {path.name: path for path in sorted(home.glob("*")) if (path / "manifest.json").is_file()}


def _student(offered: Mapping[str, Path], work: Path) -> str:
    trained = {path.name for path in (work / "students").glob("*")}
    found = [name for name in offered if name in trained and "." not in name]
    return _only(found, offered, work, "--one")


def _first(offered: Mapping[str, Path], work: Path) -> str:
    return _only([name for name in ("bm25", *offered) if name in offered][:1], offered, work, "--other")


def _only(found: list[str], offered: Mapping[str, Path], work: Path, option: str) -> str:
    if not found:
        fix = f"name one of {', '.join(offered)}" if offered else "run 'eval' or 'adapt' first, or name TREC runs"
        raise DataError(f"it is not known which run to compare: {option}", where=str(work), fix=fix)
    return found[0]


def _run(name: str, offered: Mapping[str, Path], work: Path) -> Run:
    if name in offered:
        return open_run(offered[name])
    if Path(name).is_file():
        return read_run(Path(name))
    known = ", ".join(offered) or "none"
    raise UsageError(f"no run is called {name!r}", where=str(work), fix=f"a TREC file, or one of: {known}")
