"""Any ir-datasets id: the library's own objects, streamed; nothing is copied by us.

An id that has judgements is one split: the last part of its id that says ``train``, ``dev``, ``validation`` or
``test`` (``beir/scifact/test`` → test, ``msmarco-passage/train/judged`` → train), else ``test``. An id without is a
family, whose splits are its children of those names. A caller may name an id for each split instead; they must all be
of one collection.

ir-datasets reads ``IR_DATASETS_HOME`` when it is first imported. Texts by id come from its document store, which it
builds in its home the first time (once for a collection; a few minutes for 8.8 M passages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from rerankdistill.artifacts import fingerprint
from rerankdistill.collections.memory import hash_records, no_split
from rerankdistill.errors import DataError, RerankDistillError
from rerankdistill.types import Doc, Judgement, Query, Run, View

SPLIT_NAMES = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "test": "test"}
WHOLE = 100_000
"""Collections above this many documents are fingerprinted by their count and a sample of them."""
SAMPLE = 64


class IrdsCollection:
    """A :class:`~rerankdistill.contracts.Source` over ir-datasets.

    Args:
        name: the id whose documents are read.
        splits: an id for each split; without, see the module.

    Raises:
        DataError: no such id, or nothing in it to search or to judge. A download that fails raises DataError when the
            data is first needed.
    """

    def __init__(self, name: str, splits: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._base = open_id(name)
        self._ids = dict(splits) if splits else split_ids(name)
        self._parts = {split: open_id(child) for split, child in self._ids.items()}
        if not self._base.has_docs():
            children = [child for child in known_ids() if child.startswith(f"{name}/")]
            fix = f"name one of: {', '.join(children[:8])}{', …' if len(children) > 8 else ''}"
            raise DataError(f"ir-datasets id {name!r} has no documents of its own", fix=fix)
        for split, part in self._parts.items():
            child = self._ids[split]
            if not (part.has_qrels() and part.has_queries()):
                raise DataError(f"ir-datasets id {child!r} has no judged queries", where=f"split {split!r}")
            if docs_id(child) != docs_id(name):
                what = f"{child!r} has other documents than {name!r}"
                raise DataError(what, where=f"split {split!r}", fix="name splits of one collection")

    @cached_property
    def fingerprint(self) -> str:
        parts = [(s, self.queries_fingerprint(s), self.judgements_fingerprint(s)) for s in self.splits()]
        return fingerprint(self.docs_fingerprint(), parts)

    @cached_property
    def _docs_mark(self) -> str:
        with reading(self.name):
            store = self._base.docs_store()
            count = store.count()
            if count <= WHOLE:
                return hash_records(self.docs())
            rows = self._base.docs_iter()
            sample = [rows[row * (count - 1) // (SAMPLE - 1)] for row in range(SAMPLE)]
            return fingerprint(docs_id(self.name), count, hash_records(map(as_doc, sample)))

    def docs_fingerprint(self) -> str:
        """Of every document; above :data:`WHOLE`, of the id, the count and evenly spaced ones: what ir-datasets
        publishes under an id is checked by its hash when it is downloaded, and does not change."""
        return self._docs_mark

    def queries_fingerprint(self, split: str) -> str:
        return hash_records(self.queries(split))

    def judgements_fingerprint(self, split: str) -> str:
        return hash_records(self.judgements(split))

    def docs(self) -> Iterator[Doc]:
        with reading(self.name):
            for doc in self._base.docs_iter():
                yield as_doc(doc)

    def doc_ids(self) -> Sequence[str]:
        return self._doc_ids

    @cached_property
    def _doc_ids(self) -> list[str]:
        with reading(self.name):
            found = [doc.doc_id for doc in self._base.docs_iter()]
        if not found:
            raise DataError("no documents", where=self.name)
        return found

    def texts(self, doc_ids: Sequence[str], view: View) -> list[str]:
        with reading(self.name):
            found = self._base.docs_store().get_many(set(doc_ids))
        for doc_id in doc_ids:
            if doc_id not in found:
                raise DataError(f"no document is called {doc_id!r}", where=self.name)
        return [as_doc(found[doc_id]).view(view) for doc_id in doc_ids]

    def splits(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def queries(self, split: str) -> list[Query]:
        if not self._parts and self._base.has_queries():
            with reading(self.name):
                return [as_query(query) for query in self._base.queries_iter()]
        judged = {judgement.query_id for judgement in self.judgements(split)}
        with reading(self._ids[split]):
            found = [as_query(query) for query in self._parts[split].queries_iter()]
        return [query for query in found if query.query_id in judged]

    def all_queries(self) -> Iterator[Query]:
        """Of the id and its splits; read from the ancestors that hold them unfiltered, since ``…/judged`` and BEIR's
        ``…/test`` would open the judgements to filter by."""
        seen: set[str] = set()
        for name in dict.fromkeys(unfiltered(child) for child in [self.name, *self._ids.values()]):
            dataset = open_id(name)
            if not dataset.has_queries():
                continue
            with reading(name):
                for query in map(as_query, dataset.queries_iter()):
                    if query.query_id not in seen:
                        seen.add(query.query_id)
                        yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """The judgements of a split; grades below 0 (no interest, spam) are read as 0."""
        if split not in self._parts:
            raise no_split(self.name, split, self.splits())
        with reading(self._ids[split]):
            for judged in self._parts[split].qrels_iter():
                yield Judgement(judged.query_id, judged.doc_id, max(0, int(judged.relevance)))

    def runs(self, split: str) -> Mapping[str, Run]:  # noqa: ARG002
        return {}


def open_id(name: str) -> Any:
    """The library's own dataset. Raises DataError for an unknown id, naming a near one."""
    import ir_datasets

    try:
        return ir_datasets.load(name)
    except KeyError as error:
        near = get_close_matches(name, known_ids(), 1)
        hint = f"did you mean {near[0]!r}?" if near else "see https://ir-datasets.com for the ids"
        fix = f"{hint} A collection is 'pydocs', a folder, or an ir-datasets id"
        raise DataError(f"no folder and no ir-datasets id is called {name!r}", fix=fix) from error


def known_ids() -> list[str]:
    import ir_datasets

    return list(ir_datasets.registry)


def docs_id(name: str) -> str:
    """The id that owns the documents of another: ``msmarco-passage`` for ``msmarco-passage/dev/small``."""
    import ir_datasets

    found: str = ir_datasets.docs_parent_id(name)
    return found


def unfiltered(name: str) -> str:
    """The id itself; where its queries are only a filter over others, the nearest ancestor with queries of its own."""
    from ir_datasets.datasets.base import FilteredQueries

    known, parts = set(known_ids()), name.split("/")
    for length in range(len(parts), 0, -1):
        up = "/".join(parts[:length])
        dataset = open_id(up) if up in known else None
        if dataset and dataset.has_queries() and not isinstance(dataset.queries_handler(), FilteredQueries):
            return up
    return name


def split_ids(name: str) -> dict[str, str]:
    """The id of each split of an id or family, in the order train, dev, test."""
    if open_id(name).has_qrels():
        said = [SPLIT_NAMES[part] for part in name.split("/") if part in SPLIT_NAMES]
        return {said[-1] if said else "test": name}
    known, children = set(known_ids()), dict[str, str]()
    for part, split in SPLIT_NAMES.items():
        child = f"{name}/{part}"
        if child in known and open_id(child).has_qrels():
            children.setdefault(split, child)
    return children


def as_doc(doc: Any) -> Doc:
    """Any of the library's documents: its ``title`` and ``text`` (or ``body``), else its default text."""
    text = getattr(doc, "text", None) or getattr(doc, "body", None)
    if not isinstance(text, str):
        return Doc(doc.doc_id, doc.default_text().strip())
    return Doc(doc.doc_id, text.strip(), (getattr(doc, "title", None) or "").strip())


def as_query(query: Any) -> Query:
    return Query(query.query_id, query.default_text().strip())


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong inside ir-datasets (no network, a damaged file) into one clear error."""
    try:
        yield
    except RerankDistillError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"its files are not UTF-8: {error}", where=f"ir-datasets {name}") from error
    except Exception as error:
        fix = (
            "check the network, or put the downloaded files where https://ir-datasets.com says and set IR_DATASETS_HOME"
        )
        what = f"ir-datasets cannot read it: {type(error).__name__}: {str(error)[:300]}"
        raise DataError(what, where=f"ir-datasets {name}", fix=fix) from error
