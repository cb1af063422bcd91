"""A work folder as something to search: its documents, its indexes, and the students that filled them.

Everything is recognised by manifests: an index belongs to the student whose mark it carries, and to the collection as
it is now. What is stale or damaged is left out and told in ``notes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from rerankdistill import artifacts, devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.collections.metadata import Metadata, read_metadata
from rerankdistill.collections.work import Work, recall
from rerankdistill.contracts import Index
from rerankdistill.encoding import model_fingerprint
from rerankdistill.errors import ArtifactError, MissingArtifact, RerankDistillError
from rerankdistill.index.build import index_kind, open_index
from rerankdistill.kinds import open_kind
from rerankdistill.serving.model import Embedder, Models, Reranker
from rerankdistill.serving.opening import look, open_embedder, open_reranker
from rerankdistill.serving.weights import read_weights
from rerankdistill.students.folder import look as look_inside

LEXICAL = "bm25"
BEFORE = ".before"
LEFT_OUT = (".control", ".shuffled")
"""What stands in the names of students that nobody would search with."""


@dataclass(frozen=True)
class Ranker:
    """One engine: an index, and who makes of a query what it is searched with.

    Attributes:
        embedder: a bi-encoder, which the server's batches may hold; None for any other.
        encode: of a student that makes something else: texts to what the index accepts. None: texts as they are.
        mark: of the student; empty where words alone are compared.
    """

    name: str
    index: Index
    embedder: Embedder | None = None
    encode: Callable[[Sequence[str]], Any] | None = None
    mark: str = ""


@dataclass
class Library:
    """Engines and re-rankers by name, the served student's first."""

    root: Path
    work: Work
    metadata: Metadata
    rankers: dict[str, Ranker] = field(default_factory=dict)
    rerankers: dict[str, Reranker] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    """What 'weigh' learnt for fused engines; see :mod:`rerankdistill.serving.weights`."""

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """What models read of documents."""
        return self.work.source.texts(doc_ids, self.work.view)

    def names(self) -> list[str]:
        """Engines to choose from: each alone, BM25 with each, and the best of them re-ranked."""
        alone = list(self.rankers)
        found = [name for name in alone if name != LEXICAL]
        if LEXICAL in self.rankers:
            found += [LEXICAL, *(f"{LEXICAL} + {name}" for name in alone if name != LEXICAL)]
        firsts = found[:1] + [name for name in found if name in (LEXICAL, f"{LEXICAL} + {found[0]}")]
        return found + [f"{first} > {name}" for name in self.rerankers for first in dict.fromkeys(firsts)]


def can_open(root: Path) -> bool:
    """Whether a folder holds indexes at all; a student's own folder does not."""
    return (root / "indexes").is_dir()


def open_library(
    root: Path,
    collection: str = "",
    device: str = "auto",
    served: Models | None = None,
    before: Library | None = None,
    cores: int = 0,
) -> Library:
    """Open what a work folder can be searched by.

    Args:
        served, before: students that are open already, and are taken where one of the folder is the same.
        cores: that a text alone may take; 0: as many as torch does in this thread.

    Raises:
        MissingArtifact: nothing says which collection it is about, or there is no fresh index.
        DataError: the collection cannot be read.
    """
    work = recall(root, collection)
    library = Library(root, work, read_metadata(work.source))
    docs, indexes = work.source.docs_fingerprint(), _indexes(root, library)
    fresh = {folder: made for folder, made in indexes.items() if made.inputs.get("docs") == docs}
    if stale := [folder.name for folder in indexes if folder not in fresh]:
        library.notes.append(f"not of these documents, and left out: {', '.join(stale)}")
    opener = Opener(_opened(served or Models(), before), device, cores)
    for folder in sorted(path for path in (root / "students").glob("*") if not path.name.startswith(".")):
        try:
            _add_student(library, folder, fresh, opener)
        except RerankDistillError as error:
            library.notes.append(f"{folder.name}: {error.what}")
    for folder, made in fresh.items():
        if made.card.get("kind") == "bm25" and LEXICAL not in library.rankers:
            library.rankers[LEXICAL] = Ranker(LEXICAL, _open(folder, device))
    if not library.rankers:
        fix = "'rerankdistill eval' or 'adapt' with this --out builds them"
        raise MissingArtifact("there is no index of this collection", where=str(root / "indexes"), fix=fix)
    library.rankers = dict(sorted(library.rankers.items(), key=lambda each: _place(each[0])))
    try:
        library.weights = read_weights(root)
    except ArtifactError as error:
        library.notes.append(f"weights: {error.what}")
    return library


def called(folder: str) -> str:
    """What a report calls the student of a folder: ``small`` of ``small-seed1``, ``small before`` of ``small.before``,
    ``small control`` of ``small.control-seed1``."""
    stem, _, seed = folder.partition("-seed")
    name = stem.replace(".", " ")
    return name if seed in ("", "1") else f"{name} seed {seed}"


def _place(name: str) -> tuple[bool, bool, str]:
    return (name == LEXICAL, " " in name, name)


def _indexes(root: Path, library: Library) -> dict[Path, artifacts.Manifest]:
    found = {}
    for folder in sorted((root / "indexes").glob("*")):
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                found[folder] = artifacts.read(folder, "index")
            except ArtifactError as error:
                library.notes.append(f"{folder.name}: {error.what}")
    return found


def _open(folder: Path, device: str) -> Index:
    return open_index(folder, open_kind("index", index_kind(folder)), device)


Opened = dict[tuple[str, str], Embedder | Reranker]
"""Students that are open already, by their folder's name and fingerprint."""


def _opened(served: Models, before: Library | None) -> Opened:
    found = [served.embedder, served.reranker]
    if before is not None:
        found += [*(each.embedder for each in before.rankers.values()), *before.rerankers.values()]
    return {(each.name, each.fingerprint): each for each in found if each is not None}


@dataclass(frozen=True)
class Opener:
    """Opens students, but for those that are open already."""

    known: Opened
    device: str
    cores: int

    def embedder(self, folder: Path) -> Embedder:
        own = self._known(folder)
        how = devices.choose(self.device), self.cores
        return own if isinstance(own, Embedder) else open_embedder(look(folder), *how)

    def reranker(self, folder: Path) -> Reranker:
        own = self._known(folder)
        how = devices.choose(self.device), self.cores
        return own if isinstance(own, Reranker) else open_reranker(look(folder), *how)

    def _known(self, folder: Path) -> Embedder | Reranker | None:
        return self.known.get((folder.name, model_fingerprint(str(folder))))


def _add_student(library: Library, folder: Path, fresh: dict[Path, artifacts.Manifest], opener: Opener) -> None:
    if not (folder / artifacts.MANIFEST).is_file() or any(word in folder.name for word in LEFT_OUT):
        return
    manifest, found, name = artifacts.read(folder, "student"), look_inside(folder), called(folder.name)
    if found.kind == "cross_encoder":
        if not folder.name.endswith(BEFORE):
            library.rerankers[name] = opener.reranker(folder)
        return
    mark = fingerprint("trained", manifest.fingerprint)
    fillers = (mark, manifest.inputs.get(artifacts.READER, mark))
    filled = [place for who in fillers for place, made in fresh.items() if made.inputs.get("encoder") == who]
    if not filled:
        library.notes.append(f"{name} has no index here; 'rerankdistill eval' builds it")
        return
    index = _open(filled[0], opener.device)
    if found.kind in ("bi_encoder", "query_tower"):
        library.rankers[name] = Ranker(name, index, opener.embedder(folder), mark=mark)
        return
    kind = open_kind("students", found.kind)
    student = kind.open(folder, kind.Options(**found.options), opener.device).encoder()
    lock = Lock()

    def encode(texts: Sequence[str]) -> Any:
        with lock:  # a student of these kinds is not made for two threads
            return student.encode(texts, "query")

    library.rankers[name] = Ranker(name, index, encode=encode, mark=mark)
