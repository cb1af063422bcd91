"""What the kinds of index share that keep of a vector less than the vector.

Many documents share one code, and so one score: the cut is widened until every tie at it is in sight, and a tie is
broken by doc_id. Scores are computed again from what the index remembers of a document, so that they depend on the
document alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, computed_field

from rerankdistill import codebooks
from rerankdistill.artifacts import hash_file
from rerankdistill.cards import Card
from rerankdistill.codebooks import Codebooks, Layout
from rerankdistill.errors import CardError
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray


class CodeOptions(Card):
    """How vectors become codes.

    Attributes:
        m: parts a vector is cut into; with 8 bits so many bytes a document. Must divide the dimension. 0: one for every
            eight dimensions.
        bits: 2^bits codewords a part. 0: 8, or fewer where a collection is too small to train so many.
        opq: turn the space first, so that the parts share the work: a better index, and a slower build.
        train_size: documents that codewords are trained on. 0: 256 for each codeword and list.
        seed: of the training: equal seeds give equal indexes.
        codebooks: folder with ``codebooks.faiss``, as a student of kind ``quantizer`` leaves: learned codebooks take
            the place of trained ones, and the options above say nothing.
    """

    m: int = Field(default=0, ge=0)
    bits: int = Field(default=0, ge=0, le=12)
    opq: bool = False
    train_size: int = Field(default=0, ge=0)
    seed: int = 1
    codebooks: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def learned(self) -> str:
        """The content of those codebooks, so that an index notices that its student was trained again."""
        path = Path(self.codebooks).expanduser() / codebooks.FILE
        return hash_file(path) if self.codebooks and path.is_file() else ""


class Quantised(vectors.Renewed):
    """Opens and searches such an index; a kind adds how it is built."""

    accepts: Literal["texts", "vectors"] = "vectors"

    def __init__(self, index: Any, ids: DocIds) -> None:
        self.ids, self._index = ids, index
        faiss = vectors.load_faiss()
        inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
        if hasattr(inner, "make_direct_map"):
            inner.make_direct_map()  # from a row to its place in a list

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Self:
        vectors.gpu_number(device)
        ids = open_ids(folder)
        return cls(vectors.read_index(folder, ids), ids)

    def __getitem__(self, rows: IntArray) -> FloatArray:
        """``[len(rows), d]`` what the index remembers of its documents."""
        found: FloatArray = self._index.reconstruct_batch(rows)
        return found

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product with what is remembered) a query."""
        matrix = vectors.check_queries(queries, self._index.d)
        return vectors.search(self._index.search, self, self.ids, matrix, depth, widen=True)


def books_for(content: Any, options: CodeOptions, nlist: int) -> Codebooks:
    """The learned codebooks that the options name, or new ones trained on the documents.

    Raises:
        CardError: learned ones of another dimension, or with an inverted file where none is wanted, or the reverse.
    """
    if not options.codebooks:
        layout = Layout(options.m, options.bits, nlist, options.opq)
        return codebooks.train(content, layout, options.seed, options.train_size)
    books = codebooks.read(Path(options.codebooks).expanduser())
    width = int(content.shape[1])
    if books.dimension != width:
        what = f"codebooks for {books.dimension} dimensions, and vectors of {width}"
        raise CardError(what, where=options.codebooks, fix="fill the index with the student that learned them")
    if (books.centroids is None) != (not nlist):
        kind = "pq" if books.centroids is None else "ivfpq"
        raise CardError(
            "these codebooks were learned for another kind", where=options.codebooks, fix=f"kind = {kind!r}"
        )
    return books


def fill(index: Any, folder: Path, doc_ids: Sequence[str], content: Any) -> None:
    """Add the documents to a trained index and write it."""
    vectors.add_all(index, content)
    vectors.write_index(index, folder)
    save_ids(folder, doc_ids)
