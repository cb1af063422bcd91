"""The first step of adapting to documents without queries: reading them, from files or from a collection."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rerankdistill import artifacts
from rerankdistill.cards import Card
from rerankdistill.collections.load import load_collection
from rerankdistill.collections.reading.files import find_files
from rerankdistill.collections.reading.read import Counts, ReadingOptions, read_documents
from rerankdistill.collections.write import doc_line
from rerankdistill.contracts import Source
from rerankdistill.errors import CardError
from rerankdistill.pipeline.step import Notes, Step

CORPUS = "corpus.jsonl"


class SiftCard(Card):
    """Which written queries are trained on."""

    copied: float = Field(default=0.8, gt=0, le=1)
    """A run of this share of a query's words that stands in its document makes it a copy (styles may allow copies)."""
    round_trip: int = Field(default=20, ge=0)
    """The document must be among the first so many of one of the mining indexes; 0: need not."""
    teacher_first: bool = True
    """The teacher must rank the document first among the candidates."""
    agree: bool = False
    """The second teacher must rank the document first, too."""
    percentile: float = Field(default=0, ge=0, lt=100)
    """Leave out the queries whose document scores among the lowest so many percent."""


class AdaptCard(Card):
    """How documents become a collection to train on.

    Attributes:
        docs: a folder or file of documents, or a collection's name, of which only the documents are read.
        styles: styles of queries with their weights in the mixture.
        queries: how many to write; 0: two a document, 4,000 at most.
        writer: the card of a teacher whose language model writes; empty: no language model, by rules.
        held_out, dev: shares of the documents whose queries are kept for test and for choosing the best step.
        keep_out: collections whose test queries must not be trained on, nor anything that is nearly one.
        leave_out_judged: of a collection, leave out the documents that its test's judgements call relevant.
        second_teacher: card of a teacher that judges the held-out queries too, and took no part in training.
        relabel: the teacher may put another document in the place of the one that a query was written from (Gecko).
        continue_from: folder of a student in use today, which is trained on instead of the pipeline's first model.
        keep: how much the student that is continued weighs among its teachers, so that its answers change less.
    """

    docs: str
    reading: ReadingOptions = ReadingOptions()
    styles: dict[str, float] = Field(default={"title": 1, "sentence": 1, "keywords": 1, "question": 1}, min_length=1)
    queries: int = Field(default=0, ge=0)
    writer: str = ""
    temperature: float = Field(default=0.7, ge=0)
    sift: SiftCard = SiftCard()
    held_out: float = Field(default=0.1, ge=0, lt=0.9)
    dev: float = Field(default=0.1, ge=0, lt=0.9)
    keep_out: tuple[str, ...] = ()
    leave_out_judged: bool = False
    second_teacher: str = ""
    relabel: bool = False
    continue_from: str = ""
    keep: float = Field(default=0, ge=0, lt=1)
    seed: int = 1

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sift.agree and not self.second_teacher:
            raise ValueError("sift.agree: it needs a second_teacher to agree with")
        if self.keep and not self.continue_from:
            raise ValueError("keep: it needs continue_from, the student whose answers are to be kept")
        return self

    @property
    def teacher_first(self) -> bool:
        """Whether the teacher must rank a query's document first; where it may choose another, it need not."""
        return self.sift.teacher_first and not self.relabel


def is_collection(name: str) -> bool:
    """Whether a name stands for a collection and not for files to be read."""
    path = Path(name).expanduser()
    if path.is_dir():
        return any(path.glob("corpus.*"))
    return not path.exists() and not name.startswith((".", "/", "~"))


def documents_step(root: Path, card: AdaptCard, notes: Notes) -> Step:
    """The step that reads the documents into ``corpus.jsonl``."""
    source = load_collection(card.docs) if is_collection(card.docs) else None
    judged = _judged(source, card)
    path = Path(card.docs).expanduser()
    if source is not None:
        inputs = {"documents": source.docs_fingerprint()}
    else:
        files = list(find_files(path))
        inputs = {"files": artifacts.fingerprint([(str(file.relative_to(path.parent)), _mark(file)) for file in files])}
    if judged:
        inputs["left out"] = artifacts.fingerprint(sorted(judged))
    about = {} if source is not None else card.reading.model_dump(mode="json")
    step = Step("documents", root / "documents", artifacts.plan("documents", 1, about, inputs))

    def run(folder: Path) -> None:
        counts = Counts()
        total = len(source.doc_ids()) if source is not None else len(files)
        with notes.bar("reading documents", total) as advance, (folder / CORPUS).open("w", encoding="utf-8") as out:
            docs = source.docs() if source is not None else read_documents(path, card.reading, counts, advance)
            for doc in docs:
                if doc.doc_id in judged:
                    continue
                out.write(doc_line(doc))
                counts.passages += source is not None
        step.manifest.counts = {key: value for key, value in asdict(counts).items() if value}
        if judged:
            step.manifest.counts["left out as judged"] = len(judged)
        tell_reading(counts, notes)

    step.run = run
    return step


def _judged(source: Source | None, card: AdaptCard) -> frozenset[str]:
    """The documents that the test's judgements call relevant, where they are to be left out."""
    if not card.leave_out_judged:
        return frozenset()
    if source is None:
        fix = "give a collection in place of files, or leave the option out"
        raise CardError(
            "only of a collection is it known which documents were judged", where="leave_out_judged", fix=fix
        )
    return frozenset(each.doc_id for each in source.judgements("test") if each.grade > 0)


def _mark(file: Path) -> str:
    try:
        return artifacts.hash_file(file)
    except OSError as error:  # it is passed over when it is read, and told there
        return str(error.errno)


def tell_reading(counts: Counts, notes: Notes) -> None:
    """Say what was passed over, and why."""
    for why, (many, first) in counts.passed.items():
        notes.say(f"passed over {many:,} file{'s' * (many > 1)}: {why} (first: {first})")
    for encoding, many in counts.guessed.items():
        notes.say(f"{many:,} file{'s' * (many > 1)} read as {encoding}, by the look of the bytes")
    if counts.duplicates:
        notes.say(f"{counts.duplicates:,} passages say what one before them says, and were left out")
