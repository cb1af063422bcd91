"""Search by Milvus: Milvus Lite inside the index's folder, or a cluster by its URI, where one machine is not enough.

The same student and card fill and query either; ``uri = "http://host:19530"`` makes the difference. With ``FLAT`` the
answer is exact; Milvus' other index types are approximate. Scores are computed again from the vectors that Milvus gives
back, so that ties are broken by doc_id here as everywhere. In a cluster each build fills a collection of its own, whose
name the folder keeps; collections of earlier builds are yours to drop. ``device`` is checked and has no other effect.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import ArtifactError, UsageError
from rerankdistill.index import milvus, vectors
from rerankdistill.index.ids import DocIds, damaged, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

OPTIONS = "options.json"
BATCH, QUERIES = 1000, 64
"""Documents sent, and queries asked, at a time."""
MOST = 16_384
"""The deepest search that Milvus allows."""


class MilvusOptions(Card):
    """Where and how.

    Attributes:
        uri: of a cluster; empty: Milvus Lite in the index's folder.
        index_type: Milvus' own: FLAT, HNSW, IVF_FLAT, IVF_SQ8, DISKANN, AUTOINDEX …
        build, search: parameters of that type, ``{M = 32, efConstruction = 200}`` and ``{ef = 128}`` say.
        collection: in a cluster, what the collection's name begins with.
        name: the collection's whole name; empty: a new one.
    """

    uri: str = ""
    index_type: str = "FLAT"
    build: dict[str, int | float | str] = Field(default_factory=dict)
    search: dict[str, int | float | str] = Field(default_factory=dict)
    collection: str = Field(default="rerankdistill", pattern=r"^[A-Za-z_]\w*$")
    name: str = ""


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    Options = MilvusOptions

    def __init__(self, client: Any, options: MilvusOptions, ids: DocIds, dimension: int) -> None:
        self.ids, self._client, self._options, self._dimension = ids, client, options, dimension
        self._exact = options.index_type == "FLAT"

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: Any, options: MilvusOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        options = options.model_copy(update={"name": options.name or f"{options.collection}_{uuid.uuid4().hex[:8]}"})
        if options.uri:
            _fill(milvus.cluster(options.uri), options, content)
        else:
            with milvus.writing(folder) as client:
                _fill(client, options, content)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Any,
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`. In a cluster, what was deleted is gone at once."""
        ids, options = open_ids(source), _options(source)
        if options.uri:
            _change(milvus.cluster(options.uri), options, ids, gone, doc_ids, content)
        else:
            milvus.copy(source / milvus.FOLDER, folder / milvus.FOLDER)
            with milvus.writing(folder) as client:
                _change(client, options, ids, gone, doc_ids, content)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")
        save_ids(folder, [*ids.names, *doc_ids], np.union1d(ids.dead, ids.rows(gone)))

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:
        vectors.gpu_number(device)
        ids, options = open_ids(folder), _options(folder)
        if options.uri:
            client = milvus.cluster(options.uri)
            if not client.has_collection(options.name):
                what = f"the cluster has no collection {options.name!r}"
                raise ArtifactError(what, where=options.uri, fix="delete the index; the next run builds it again")
            return cls(client, options, ids, _dimension(client, options))
        snapshot = milvus.Snapshot(folder)
        try:
            opened = cls(snapshot.client, options, ids, _dimension(snapshot.client, options))
        except milvus.pymilvus().MilvusException as error:
            snapshot.close()
            raise damaged(folder / milvus.FOLDER, error) from error
        weakref.finalize(opened, snapshot.close)
        return opened

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query. Raises UsageError: too deep."""
        matrix = vectors.check_queries(queries, self._dimension)
        if min(depth, len(self.ids)) > MOST - vectors.SLACK:
            raise UsageError(f"Milvus searches no deeper than {MOST - vectors.SLACK}", fix="ask for fewer documents")
        out: list[list[tuple[str, float]]] = []
        for start in range(0, len(matrix), QUERIES):
            found = _Found(self, matrix[start : start + QUERIES])
            out += vectors.search(found.propose, found, self.ids, found.queries, depth, widen=self._exact)
        return out


class _Found:
    """The vectors that Milvus gave with its answers: all that is needed to score them again."""

    def __init__(self, index: Kind, queries: FloatArray) -> None:
        self._index, self.queries = index, queries
        self._vectors: dict[int, FloatArray] = {}

    def propose(self, queries: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        index, fetch = self._index, min(fetch, MOST)
        answers = index._client.search(
            index._options.name,
            data=queries.tolist(),
            anns_field="vector",
            limit=fetch,
            search_params={"metric_type": "IP", "params": index._options.search},
            output_fields=["vector"],
        )
        scores, rows = np.full((len(queries), fetch), -np.inf, np.float32), np.full((len(queries), fetch), -1)
        for at, hits in enumerate(answers):
            known = [hit for hit in hits if hit["row"] < len(index.ids)]  # a cluster may hold the next snapshot
            for place, hit in enumerate(known):
                scores[at, place], rows[at, place] = hit["distance"], hit["row"]
                self._vectors[hit["row"]] = np.asarray(hit["entity"]["vector"], np.float32)
        return scores, rows

    def __getitem__(self, rows: IntArray) -> FloatArray:
        if not len(rows):
            return np.empty((0, self._index._dimension), np.float32)
        return np.stack([self._vectors[row] for row in rows.tolist()])


def _fill(client: Any, options: MilvusOptions, content: Any) -> None:
    """Make the collection and send every vector under its row."""
    module = milvus.pymilvus()
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", module.DataType.INT64, is_primary=True)
    schema.add_field("vector", module.DataType.FLOAT_VECTOR, dim=int(content.shape[1]))
    index = client.prepare_index_params()
    index.add_index("vector", index_type=options.index_type, metric_type="IP", params=options.build)
    client.create_collection(options.name, schema=schema, index_params=index, consistency_level="Strong")
    _send(client, options, content, 0)


def _send(client: Any, options: MilvusOptions, content: Any, first: int) -> None:
    for start in range(0, len(content), BATCH):
        block = np.asarray(content[start : start + BATCH], np.float32).tolist()
        rows = [{"row": first + start + at, "vector": vector} for at, vector in enumerate(block)]
        client.upsert(options.name, rows) if first else client.insert(options.name, rows)
    client.flush(options.name)


def _change(
    client: Any, options: MilvusOptions, ids: DocIds, gone: Collection[str], doc_ids: Sequence[str], content: Any
) -> None:
    """Send what is new, then delete what is gone: a reader in between finds a document twice rather than never."""
    vectors.check_fit(content, doc_ids, _dimension(client, options))
    if len(doc_ids):
        _send(client, options, content, len(ids))
    rows = ids.rows(gone).tolist()
    for start in range(0, len(rows), BATCH):
        client.delete(options.name, ids=rows[start : start + BATCH])
    client.flush(options.name)


def _dimension(client: Any, options: MilvusOptions) -> int:
    client.load_collection(options.name)
    fields = client.describe_collection(options.name)["fields"]
    return int(next(field["params"]["dim"] for field in fields if field["name"] == "vector"))


def _options(folder: Path) -> MilvusOptions:
    try:
        return MilvusOptions.model_validate_json((folder / OPTIONS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder / OPTIONS, error) from error
