"""``pydocs``: the built-in collection, made from the documentation of Python's own standard library.

The first sentence of a docstring is a query; what it documents is the document: its signature, the rest of the
docstring and the beginning of the code, without that sentence. Nothing is imported and nothing executed: the source
files of the interpreter that runs this are parsed. It needs no network and belongs to nobody.

Splits go by top-level module, so that no module has queries in two of them. Queries and documents differ a little
between versions of Python; the fingerprint says so. ``pydocs/2000`` is the same cut to so many documents.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rerankdistill.collections.memory import MemoryCollection
from rerankdistill.errors import DataError
from rerankdistill.types import Doc, Judgement, Query

SKIPPED = {
    "test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "turtledemo", "ensurepip", "pydoc_data",
    "__pycache__", "__phello__", "_pyrepl", "distutils", "encodings", "lib-dynload",
}  # fmt: skip
"""Folders without documentation worth searching, or that only some builds carry."""

MIN_WORDS, WORDS = 15, 90
"""A document with fewer words than the first answers nothing; one with more than the second is cut, so that a small
encoder reads the whole of it."""
QUERY_WORDS = (4, 40)
SHARED = 4
"""A sentence that documents more things than this says nothing about any of them; it is no query."""
SALT = b"105"
"""Chosen so that no module makes up more than a quarter of the queries of a split."""
SPLIT_TENTHS = {"test": 1, "dev": 1}
"""Tenths of the modules (by hash) that each split but ``train`` gets."""

TRIVIAL = re.compile(
    r"deprecated|^(return|implement|see|same as|initiali[sz]e|constructor|create an? instance|alias|undocumented|"
    r"internal|helper|support for)\s+(repr|str|hash|self|for)?\s*\W*\w*\W*$",
    re.IGNORECASE,
)
SIGNATURE_LINE = re.compile(r"^[\w.]+\(.*\)(\s*(->|--|=).*)?:?$")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(`'\"*<])")


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | Definition


@dataclass(frozen=True, slots=True)
class Thing:
    """One documented module, class, function or method."""

    name: str
    sentence: str
    text: str

    @property
    def module(self) -> str:
        return self.name.split(".", 1)[0]


def load_pydocs(size: int = 0) -> MemoryCollection:
    """The collection; read once a process, in a few seconds.

    Args:
        size: at most so many documents; 0: all. See :func:`cut`.

    Raises:
        DataError: this interpreter carries no source of its standard library.
    """
    whole = _load(Path(sysconfig.get_paths()["stdlib"]))
    return cut(whole, size) if size else whole


def cut(whole: MemoryCollection, size: int) -> MemoryCollection:
    """The collection cut to ``size`` documents, the same ones every time: a third at most from the modules of the test
    split, a tenth from those of dev, the rest from those of training; and the queries that keep all their documents."""
    left = {"test": size // 3, "dev": size // 10, "train": size}
    kept: set[str] = set()
    for split in left:
        room = min(left[split], size - len(kept))
        names = [name for name in whole.doc_ids() if split_of(name.partition(".")[0]) == split]
        kept |= set(sorted(names, key=lambda name: hashlib.sha256(SALT + name.encode()).digest())[:room])
    judgements, lost = {}, set()
    for split in whole.splits():
        rows = list(whole.judgements(split))
        lost |= {row.query_id for row in rows if row.doc_id not in kept}
        judgements[split] = [row for row in rows if row.query_id not in lost]
    queries = [query for query in whole.all_queries() if query.query_id not in lost]
    return MemoryCollection(f"pydocs/{size}", [doc for doc in whole.docs() if doc.doc_id in kept], queries, judgements)


@lru_cache(maxsize=1)
def _load(stdlib: Path) -> MemoryCollection:
    things = [thing for path in module_files(stdlib) for thing in things_of(path, stdlib)]
    if not things:
        fix = "use an interpreter that carries the .py files of its standard library, or another collection"
        raise DataError("no documented source found", where=str(stdlib), fix=fix)
    queries: list[Query] = []
    judgements: dict[str, list[Judgement]] = {"train": [], "dev": [], "test": []}
    for sentence, shared in _by_sentence(things).items():
        split = split_of(shared[0].module)
        if len(shared) > SHARED or any(split_of(thing.module) != split for thing in shared):
            continue
        query = Query(f"q:{shared[0].name}", sentence)
        queries.append(query)
        judgements[split] += [Judgement(query.query_id, thing.name, 1) for thing in shared]
    docs = [Doc(thing.name, thing.text) for thing in things]
    return MemoryCollection("pydocs", docs, queries, judgements)


def split_of(module: str) -> str:
    """The split that a top-level module's queries belong to."""
    bucket = hashlib.sha256(SALT + module.lstrip("_").encode()).digest()[0] % 10
    for split, tenths in SPLIT_TENTHS.items():
        if bucket < tenths:
            return split
        bucket -= tenths
    return "train"


def module_files(folder: Path) -> list[Path]:
    """The source files of the standard library, in a fixed order; skipped folders are not even entered."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or "-" in path.name:
            continue
        if path.is_dir():
            found += module_files(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def things_of(path: Path, stdlib: Path) -> Iterator[Thing]:
    """Everything documented in one file, in its order. A file that does not parse has nothing documented."""
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return
    lines = source.splitlines()
    parts = path.relative_to(stdlib).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    seen: set[str] = set()
    for dotted, node in _documented(name, tree):
        thing = _thing(dotted, node, lines)
        if thing is not None and dotted not in seen:
            seen.add(dotted)
            yield thing


def _documented(name: str, node: Documented) -> Iterator[tuple[str, Documented]]:
    yield name, node
    for child in _public(node):
        dotted = f"{name}.{child.name}"
        if isinstance(child, ast.ClassDef):
            yield from _documented(dotted, child)
        else:
            yield dotted, child


def _public(node: Documented) -> Iterator[Definition]:
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield child


def _thing(name: str, node: Documented, lines: list[str]) -> Thing | None:
    docstring = ast.get_docstring(node)
    if not docstring:
        return None
    sentence, rest = first_sentence(docstring)
    low, high = QUERY_WORDS
    if not low <= len(re.findall(r"[A-Za-z]{2,}", sentence)) <= high or TRIVIAL.search(sentence):
        return None
    words = plain_words(f"{_signature(name, node)} {rest} {_code(node, lines)}")[:WORDS]
    text = " ".join(words)
    if len(words) < MIN_WORDS or squeeze(sentence) in squeeze(text):
        return None
    return Thing(name, sentence, text)


def first_sentence(docstring: str) -> tuple[str, str]:
    """A docstring's first sentence, and what follows it. A line that only repeats the signature is passed over."""
    lines = inspect.cleandoc(docstring).split("\n")
    while lines and (not lines[0].strip() or SIGNATURE_LINE.match(lines[0].strip())):
        lines.pop(0)
    paragraph, _, rest = "\n".join(lines).partition("\n\n")
    sentence, *others = SENTENCE_END.split(" ".join(paragraph.split()), maxsplit=1)
    return sentence, " ".join([*others, *rest.split()])


def squeeze(text: str) -> str:
    """Letters and digits alone, so that two texts compare whatever their spacing and punctuation."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def plain_words(text: str) -> list[str]:
    """Words as a reader would say them: ``getOuterFrames(frame)`` and ``get_outer_frames`` come apart."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub(r"\b(self|cls)\b[.,]?", " ", text))
    return re.findall(r"[^\W_]+(?:['.-][^\W_]+)*[.,;:!?]?", apart)


def _signature(name: str, node: Documented) -> str:
    """The name with what it belongs to, and the parameters or bases."""
    short = " ".join(name.split(".")[-2:])
    if isinstance(node, ast.Module):
        return short
    if isinstance(node, ast.ClassDef):
        return f"class {short} {', '.join(ast.unparse(base) for base in node.bases)}"
    return f"{short} {ast.unparse(node.args)}"


def _code(node: Documented, lines: list[str]) -> str:
    """What a function does (its code with the comments), or the names that a class or module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "\n".join(lines[node.body[0].end_lineno : node.end_lineno])
    return " ".join(child.name for child in _public(node))


def _by_sentence(things: list[Thing]) -> dict[str, list[Thing]]:
    found: dict[str, list[Thing]] = {}
    spelling: dict[str, str] = {}
    for thing in things:
        found.setdefault(spelling.setdefault(squeeze(thing.sentence), thing.sentence), []).append(thing)
    return found
