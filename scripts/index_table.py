"""What the benchmarks of indexes share: real texts, one index built and searched, and the table of them."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill import representations
from rerankdistill.artifacts import fingerprint
from rerankdistill.encoding import model_fingerprint
from rerankdistill.index.build import IndexCard, build_index, open_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.representations import count
from rerankdistill.students.folder import look

DEPTH, BLOCK = 10, 2048
EXPECTED, SLACK = "100k passages recall@10", 0.02
"""What cards promise, and how far a machine that encoded other passages may stay below it."""
NOISE = 0.48
"""Length of the noise beside a vector of length one: the cosine of the two is 1 / sqrt(1 + .48²) = .90."""
Figures = dict[str, float]


def arguments(about: str, queries: int, minutes: float, cache: str) -> argparse.ArgumentParser:
    """What each of the benchmarks may be told."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="default: those of RERANKDISTILL_DATA")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=queries)
    parser.add_argument("--minutes", type=float, default=minutes, help="to encode at most")
    parser.add_argument("--cache", type=Path, default=Path(cache))
    parser.add_argument("--out", type=Path, help="the table as Markdown")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for; the program ends where there are no collections to do it with."""
    asked = parser.parse_args()
    asked.folders = asked.folders or data()
    if not asked.folders:
        print("left out: RERANKDISTILL_DATA names no folder of collections")
        sys.exit()
    return asked


def data() -> list[Path]:
    """The collections that RERANKDISTILL_DATA holds, TREC's passages first."""
    home = Path(os.environ.get("RERANKDISTILL_DATA", ""))
    found = sorted(home.glob("*/corpus.jsonl.gz")) if home.name else []
    return sorted((path.parent for path in found), key=lambda folder: not folder.name.startswith("trec"))


def corpus(folders: Sequence[Path], name: str) -> Iterator[str]:
    """The different texts of some collections' files."""
    said: set[str] = set()
    for folder in folders:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                text = f"{record.get('title', '')} {record['text']}".strip()
                if text and text not in said:
                    said.add(text)
                    yield text


def reached(folders: Sequence[Path], rows: int) -> list[str]:
    """The different queries of the collections that so many passages reach. What no passage is about has neighbours far
    away, of which every card misses more."""
    passages, taken = set[str](), list[Path]()
    for folder in folders:
        taken.append(folder)
        passages.update(corpus([folder], "corpus.jsonl.gz"))
        if len(passages) >= rows:
            break
    return list(corpus(taken, "queries.jsonl.gz"))


def chosen(folders: Sequence[Path], rows: int, many: int) -> list[str]:
    """The same choice of the queries that so many passages may answer each time."""
    questions = reached(folders, rows)
    return [questions[row] for row in np.random.default_rng(0).permutation(len(questions))[:many]]


def trained(place: Path, recipe: str, options: Sequence[str]) -> Path:
    """The folder of the student that a shipped recipe trains in its small form; once it is there, at once."""
    changed = [*options, 'control="none"']
    sets = [word for each in changed for word in ("--set", f"students.{recipe}.{each}")]
    command = [sys.executable, "-m", "rerankdistill", "train", f"recipes/{recipe}", "--small"]
    subprocess.run([*command, "--out", str(place / recipe), *sets], check=True)  # noqa: S603
    return place / recipe / f"students/{recipe}-seed1"


def encoder_of(student: Path) -> Callable[[], Any]:
    """Opens a student's encoder at the first call: where everything is in the cache it is not needed."""

    @cache
    def opened() -> Any:
        found = look(student)
        kind = open_kind("students", found.kind)
        return kind.open(student, kind.Options.model_validate(found.options)).encoder()

    return opened


def vectors_in(asked: argparse.Namespace, model: str) -> Path:
    """The cache of what a model makes of these collections."""
    return Path(asked.cache / f"vectors-{fingerprint(model, [str(each) for each in asked.folders])}")


def encoded(asked: argparse.Namespace, student: Path, model: Callable[[], Any]) -> list[Any]:
    """What a student's encoder makes of as many documents as were asked for and the minutes reach, block by block:
    sparse rows, or token vectors in float16, memory-mapped. What the cache has costs no time."""
    texts = list(corpus(asked.folders, "corpus.jsonl.gz"))
    cache, began, parts = vectors_in(asked, model_fingerprint(str(student))), time.perf_counter(), list[Any]()
    for start in range(0, min(asked.rows, len(texts)), BLOCK):
        place = cache / f"{start:07}"
        if not place.is_dir():
            if time.perf_counter() - began > 60 * asked.minutes:
                break
            content, new = model().encode(texts[start : start + BLOCK], "doc"), place.with_suffix(".new")
            new.mkdir(parents=True, exist_ok=True)
            representations.save(new, content)
            new.rename(place)
        parts.append(representations.load(place)[: asked.rows - start])
    return parts


def varied(name: str, changed: Mapping[str, Any]) -> tuple[str, IndexCard]:
    """A card with some options changed, and what the table calls it."""
    card = read_card(name)
    label = " ".join([name, *(f"{key}={value}" for key, value in changed.items())])
    return label, card.model_copy(update={"options": {**card.options, **changed}})


def measured(folder: Path, card: IndexCard, content: Any, queries: Any) -> tuple[Figures, list[Any]]:
    """What a card's index takes to build, keep, open and search, queries one at a time; and what it finds.

    Seconds are the processor's, of all cores together. The folder is left to the caller.
    """
    kind = open_kind("index", card.kind)
    began = time.process_time()
    ids = [f"p{row}" for row in range(count(content))]
    made = build_index(folder, card, ids, content, {"docs": "d", "encoder": "e"}, kind)
    build, began = time.process_time() - began, time.process_time()
    index = open_index(folder, kind)
    opening = time.process_time() - began
    index.search(queries[:3], DEPTH)
    found, seconds = [], []
    for row in range(count(queries)):
        began = time.process_time()
        found += index.search(queries[row : row + 1], DEPTH)
        seconds.append(time.process_time() - began)
    return {
        "build s": build, "disk MB": made.counts["bytes"] / 1e6, "memory MB": kept(folder, kind) / 1e6,
        "open s": opening, "recall@10": math.nan, "queries/s": len(seconds) / sum(seconds),
        "p50 ms": 1e3 * float(np.median(seconds)), "p99 ms": 1e3 * float(np.quantile(seconds, 0.99)),
    }, found  # fmt: skip


def kept(folder: Path, kind: Any) -> int:
    """Bytes of an index's files that are read into memory, which those that are mapped are not."""
    mapped = tuple(getattr(kind, "mapped", ()))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(
        path.stat().st_size for path in files if not (mapped and path.relative_to(folder).as_posix().startswith(mapped))
    )


class Table:
    """A row for each card, printed as it comes. What the first one finds is the truth for the others.

    ``held``: whether cards keep to what they promise; not where most rows are copies of others.
    """

    def __init__(self, *about: str, held: bool = True) -> None:
        self._held = held
        self._lines, self._notes, self._broken = [*about, ""], list[str](), list[str]()
        self._truth = list[set[str]]()
        print("\n".join(self._lines), flush=True)

    def add(self, label: str, figures: Figures, found: Sequence[Any], card: str = "", other: bool = False) -> None:
        """A card's row: held to what the card of that name promises, if one is named. ``other``: what it reads of
        documents is not what the first one reads, and recall says nothing."""
        best = [{doc_id for doc_id, _ in hits} for hits in found]
        if not self._truth:
            self._truth = best
            self._say("card", *figures)
            self._say("---", *["---:"] * len(figures))
        if not other:
            recall = float(np.mean([len(a & b) / DEPTH for a, b in zip(best, self._truth, strict=True)]))
            figures = figures | {"recall@10": recall}
            promised = read_card(card).expect.get(EXPECTED, 0.0) if card and self._held else 0.0
            if recall < promised - SLACK:
                self._broken.append(f"{card} finds {recall:.3f}, and its card promises {promised:.3f}")
        self._say(label, *map(in_words, figures.values()))

    def note(self, line: str) -> None:
        """A line below the table."""
        self._notes += ["", line]

    def _say(self, *cells: str) -> None:
        self._lines.append(f"| {' | '.join(cells)} |")
        print(self._lines[-1], flush=True)

    def end(self, out: Path | None) -> None:
        """Write it, and leave with 1 where a promise is broken."""
        print("\n".join(self._notes), flush=True)
        if out:
            out.write_text("\n".join([*self._lines, *self._notes]) + "\n", "utf-8")
        if self._broken:
            sys.exit("\n".join(self._broken))


def in_words(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if value < 1.5 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
