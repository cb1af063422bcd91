"""Codebooks: a few vectors that stand for many, so that a document costs an index bytes instead of floats (faiss).

Product quantisation cuts a vector into ``m`` parts and keeps of each part the number of the nearest of ``2^bits``
codewords: ``m * bits / 8`` bytes a document (Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor
Search", 2011). An inverted file sorts the documents into lists by the nearest of ``nlist`` centroids, codes what the
centroid leaves over, and a search opens a few lists alone. OPQ turns the space beforehand so that the parts share the
work (Ge et al., "Optimized Product Quantization", 2013).

The index room stores documents by codebooks, the students' room learns them; both speak of them here. On disk they are
one faiss index without documents: whoever has faiss adds vectors to it and searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill.errors import CardError, DamagedArtifact, DataError, MissingArtifact
from rerankdistill.kinds import missing
from rerankdistill.types import FloatArray

FILE = "codebooks.faiss"
POINTS = 256
"""Training vectors for each codeword (or centroid) beyond which faiss itself takes a sample."""
FEWEST = 39
"""Training vectors for each centroid below which faiss warns that its place is a matter of luck."""


@dataclass(frozen=True)
class Layout:
    """How vectors are cut and sorted.

    Attributes:
        m: parts of a vector; 0: one for every eight dimensions, as nearly as the dimension can be divided.
        bits: 2^bits codewords a part; 0: 8, and fewer where the vectors to train on are few.
        nlist: lists of the inverted file; 0: none.
        opq: turn the space first.
    """

    m: int = 0
    bits: int = 0
    nlist: int = 0
    opq: bool = False


@dataclass(frozen=True)
class Codebooks:
    """What quantises a vector ``x``: it is turned, ``x' = rotation x``; of ``x'`` less its nearest centroid each part
    is replaced by its nearest codeword.

    Attributes:
        codewords: ``[m, 2^bits, d / m]``.
        centroids: ``[nlist, d]`` of length one, in the turned space; None without an inverted file.
        rotation: ``[d, d]`` orthonormal; None: the space as it is.
    """

    codewords: FloatArray
    centroids: FloatArray | None = None
    rotation: FloatArray | None = None

    @property
    def dimension(self) -> int:
        return int(self.codewords.shape[0] * self.codewords.shape[2])

    @property
    def bits(self) -> int:
        return int(self.codewords.shape[1] - 1).bit_length()

    @property
    def bytes_a_vector(self) -> int:
        return -(-int(self.codewords.shape[0]) * self.bits // 8)


def load_faiss() -> Any:
    """The faiss module. Raises MissingDependency with the command that brings it."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise missing(error, "a vector index") from error
    return faiss


def fit_layout(layout: Layout, dimension: int, count: int) -> Layout:
    """The layout with every 0 replaced by what suits ``count`` vectors of a dimension.

    Raises:
        CardError: ``m`` does not divide the dimension.
        DataError: more codewords or centroids than vectors to train them on.
    """
    m, bits = layout.m, layout.bits
    if not m:
        m = next(parts for parts in range(max(dimension // 8, 1), 0, -1) if dimension % parts == 0)
    if dimension % m:
        near = [parts for parts in range(1, dimension + 1) if dimension % parts == 0]
        near.sort(key=lambda parts: abs(parts - m))
        fix = f"set m to one of {', '.join(map(str, sorted(near[:4])))}"
        raise CardError(f"m = {m} does not divide vectors of {dimension} dimensions", where="quantiser", fix=fix)
    if not bits:
        bits = min(8, max(1, (count // 4).bit_length() - 1))
    elif 1 << bits > count:
        fix = f"bits = {max(1, count.bit_length() - 1)} at most, or 0: as many as the collection can carry"
        raise DataError(f"{1 << bits} codewords cannot be trained on {count} vectors", where="quantiser", fix=fix)
    if layout.nlist > count:
        fix = f"nlist = {max(1, count // FEWEST)} or so, or 0"
        raise DataError(f"{layout.nlist} centroids cannot be trained on {count} vectors", where="quantiser", fix=fix)
    return Layout(m, bits, layout.nlist, layout.opq)


def lists_for(count: int) -> int:
    """How many lists suit a collection: about 4 times the square root of its size, none trained on fewer than 39."""
    return max(1, min(int(4 * count**0.5), count // FEWEST))


def sample(vectors: Any, size: int, seed: int) -> FloatArray:
    """``[size, d]`` float32: rows drawn by the seed, or all of them where there are no more. Read from disk by rows."""
    rows: Any = slice(None)
    if size < len(vectors):
        rows = np.sort(np.random.default_rng(seed).choice(len(vectors), size, replace=False))
    return np.ascontiguousarray(vectors[rows], np.float32)


def train(vectors: Any, layout: Layout, seed: int, train_size: int = 0) -> Codebooks:
    """Codebooks by faiss's own training: k-means of lists, then of what they leave over.

    Args:
        vectors: ``[n, d]``, also memory-mapped.
        train_size: train on so many of them; 0: on 256 for each codeword and centroid.
    """
    count, dimension = len(vectors), int(vectors.shape[1])
    most = min(count, train_size or count)
    layout = fit_layout(layout, dimension, most)
    most = min(most, train_size or POINTS * max(layout.nlist, 1 << layout.bits))
    points = sample(vectors, most, seed)
    if len(points) < 1 << layout.bits:
        points = np.resize(points, (1 << layout.bits, dimension))  # a lone document is met twice
    rotation = _rotation(points, layout) if layout.opq else None
    index = _inner(dimension, layout, None)
    for clustering in (index.pq.cp, *([index.cp] if layout.nlist else [])):
        clustering.seed, clustering.min_points_per_centroid = seed, 1
    index.train(points if rotation is None else np.ascontiguousarray(points @ rotation.T))
    return Codebooks(*_arrays(index), rotation)


def train_lists(vectors: Any, nlist: int, seed: int, train_size: int = 0) -> Any:
    """An empty faiss ``IndexIVFFlat`` by inner product, whose centroids are trained on vectors."""
    faiss = load_faiss()
    dimension = int(vectors.shape[1])
    most = min(len(vectors), train_size or POINTS * nlist)
    fit_layout(Layout(1, 1, nlist), dimension, max(most, 2))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, nlist, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.min_points_per_centroid = seed, 1
    index.train(sample(vectors, most, seed))
    return index


def index_of(books: Codebooks, nprobe: int = 0) -> Any:
    """An empty faiss index, by inner product, of these codebooks.

    Args:
        nprobe: lists that a search opens; 0: an eighth of them, eight at least.
    """
    faiss = load_faiss()
    m, words, _ = books.codewords.shape
    nlist = 0 if books.centroids is None else len(books.centroids)
    index = _inner(books.dimension, Layout(m, int(words - 1).bit_length(), nlist), books.centroids)
    faiss.copy_array_to_vector(np.ascontiguousarray(books.codewords, np.float32).ravel(), index.pq.centroids)
    index.is_trained = True
    if nlist:
        index.nprobe = probes(nlist, nprobe)
    if books.rotation is None:
        return index
    turn = faiss.LinearTransform(books.dimension, books.dimension, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(books.rotation, np.float32).ravel(), turn.A)
    turn.is_trained = True
    turn.set_is_orthonormal()
    return faiss.IndexPreTransform(turn, index)


def probes(nlist: int, nprobe: int) -> int:
    """How many of ``nlist`` lists a search opens: ``nprobe``, or where that is 0 an eighth of them, eight at least."""
    return min(nlist, nprobe or max(8, nlist // 8))


def codebooks_of(index: Any) -> Codebooks:
    """The codebooks inside a faiss index that :func:`index_of` made, or one of the same make."""
    faiss = load_faiss()
    if not isinstance(index, faiss.IndexPreTransform):
        return Codebooks(*_arrays(index))
    turn = faiss.downcast_VectorTransform(index.chain.at(0))
    rotation = faiss.vector_to_array(turn.A).reshape(index.d, index.d)
    return Codebooks(*_arrays(faiss.downcast_index(index.index)), rotation)  # the whole index outlives its part


def write(books: Codebooks, folder: Path, nprobe: int = 0) -> None:
    """Write ``codebooks.faiss``: an index without documents."""
    load_faiss().write_index(index_of(books, nprobe), str(folder / FILE))


def read(folder: Path) -> Codebooks:
    """Read what :func:`write` wrote. Raises MissingArtifact, DamagedArtifact."""
    path = folder / FILE
    if not path.is_file():
        fix = "give the folder of a student of kind 'quantizer'"
        raise MissingArtifact("no learned codebooks here", where=str(path), fix=fix)
    try:
        return codebooks_of(load_faiss().read_index(str(path)))
    except (RuntimeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        fix = "train the student again"
        raise DamagedArtifact(f"the codebooks cannot be read: {first}", where=str(path), fix=fix) from error


def _inner(dimension: int, layout: Layout, centroids: FloatArray | None) -> Any:
    """An ``IndexPQ``, or an ``IndexIVFPQ`` with its centroids where they are known."""
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT
    if not layout.nlist:
        return faiss.IndexPQ(dimension, layout.m, layout.bits, metric)
    coarse = faiss.IndexFlatIP(dimension)
    if centroids is not None:
        coarse.add(np.ascontiguousarray(centroids, np.float32))
    return faiss.IndexIVFPQ(coarse, dimension, layout.nlist, layout.m, layout.bits, metric)


def _rotation(points: FloatArray, layout: Layout) -> FloatArray:
    faiss = load_faiss()
    dimension = points.shape[1]
    opq = faiss.OPQMatrix(dimension, layout.m)
    words = faiss.ProductQuantizer(dimension, layout.m, layout.bits)
    words.cp.min_points_per_centroid = 1
    opq.pq = words
    opq.train(points)
    found: FloatArray = faiss.vector_to_array(opq.A).reshape(dimension, dimension)
    return found


def _arrays(index: Any) -> tuple[FloatArray, FloatArray | None]:
    """``(codewords, centroids)`` of an ``IndexPQ`` or ``IndexIVFPQ``."""
    faiss = load_faiss()
    pq = index.pq
    codewords = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    if not hasattr(index, "nlist"):
        return codewords, None
    coarse = faiss.downcast_index(index.quantizer)
    return codewords, np.asarray(coarse.reconstruct_n(0, index.nlist))
