"""A collection that is held in memory, and what every collection's fingerprints are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from rerankdistill.artifacts import fingerprint
from rerankdistill.errors import DataError
from rerankdistill.types import Doc, Judgement, Query, Run, View


def hash_records(records: Iterable[Sequence[object]]) -> str:
    """Sixteen hex digits of a stream of records; changes with any field of any record, and with their order."""
    digest = hashlib.sha256()
    for record in records:
        for value in record:
            data = str(value).encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def no_split(name: str, split: str, splits: Sequence[str]) -> DataError:
    """The error for a split without judgements."""
    known = f"it has judgements for: {', '.join(splits)}" if splits else "it has no judgements at all"
    fix = 'name the judgements to use, e.g. splits = {"test" = "..."}'
    return DataError(f"no judgements for split {split!r}; {known}", where=name, fix=fix)


class MemoryCollection:
    """A :class:`~rerankdistill.contracts.Source` whose parts are all given."""

    def __init__(
        self,
        name: str,
        docs: Sequence[Doc],
        queries: Sequence[Query],
        judgements: Mapping[str, Sequence[Judgement]],
    ) -> None:
        self.name = name
        self._docs = {doc.doc_id: doc for doc in docs}
        self._queries = list(queries)
        self._judgements = judgements

    @cached_property
    def fingerprint(self) -> str:
        parts = [(self.queries_fingerprint(split), self.judgements_fingerprint(split)) for split in self.splits()]
        return fingerprint(self.docs_fingerprint(), self.splits(), parts)

    @cached_property
    def _docs_mark(self) -> str:
        return hash_records(self._docs.values())

    def docs_fingerprint(self) -> str:
        return self._docs_mark

    def queries_fingerprint(self, split: str) -> str:
        return hash_records(self.queries(split))

    def judgements_fingerprint(self, split: str) -> str:
        return hash_records(self.judgements(split))

    def docs(self) -> Iterator[Doc]:
        yield from self._docs.values()

    def doc_ids(self) -> Sequence[str]:
        return list(self._docs)

    def texts(self, doc_ids: Sequence[str], view: View) -> list[str]:
        try:
            return [self._docs[doc_id].view(view) for doc_id in doc_ids]
        except KeyError as error:
            raise DataError(f"no document is called {error.args[0]!r}", where=self.name) from error

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split, judged in self._judgements.items() if judged)

    def queries(self, split: str) -> list[Query]:
        judged = {judgement.query_id for judgement in self.judgements(split)}
        return [query for query in self._queries if query.query_id in judged]

    def all_queries(self) -> Iterator[Query]:
        yield from self._queries

    def judgements(self, split: str) -> Iterator[Judgement]:
        if split not in self.splits():
            raise no_split(self.name, split, self.splits())
        yield from self._judgements[split]

    def runs(self, split: str) -> Mapping[str, Run]:  # noqa: ARG002
        return {}
