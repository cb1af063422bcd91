"""A work folder in miniature, as a pipeline leaves one: documents with metadata, two states of a student, a
cross-encoder, and indexes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.artifacts import fingerprint
from rerankdistill.collections.load import load_collection
from rerankdistill.collections.work import remember
from rerankdistill.encoding import open_encoder
from rerankdistill.index.build import IndexCard, build_index
from rerankdistill.kinds import open_kind
from rerankdistill.types import View

ANIMALS, SKIES = ("cat", "dog", "bird", "fish"), ("rain", "sun", "cloud", "wind")
LENGTHS = {"query_tokens": 32, "doc_tokens": 64}


def documents() -> list[dict[str, Any]]:
    """Thirty-two; each speaks of one animal and one weather, in sentences of their own."""
    found = []
    for number in range(32):
        animal, sky = ANIMALS[number % 4], SKIES[number // 4 % 4]
        text = f"The {animal} slept on the road all day. Then came the {sky} over the market <b>& more</b>."
        about = {"year": 1990 + number, "kind": "animal" if number % 2 else "weather", "tags": [animal, sky]}
        found.append({"_id": f"d{number:02}", "title": f"{animal} and {sky}", "text": text, "metadata": about})
    return found


def write_work(root: Path, bi_encoder: str, cross_encoder: Path) -> Path:
    """``root`` with ``collection``, ``students``, ``indexes`` and ``work.json``."""
    collection = root / "collection"
    (collection / "qrels").mkdir(parents=True)
    rows = documents()
    (collection / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    queries = [{"_id": f"q{n}", "text": f"{ANIMALS[n % 4]} {SKIES[n // 4]}"} for n in range(16)]
    (collection / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), "utf-8")
    (collection / "qrels/test.tsv").write_text("".join(f"q{n}\td{n:02}\t1\n" for n in range(16)), "utf-8")
    remember(root, str(collection), {}, View.TITLE_TEXT)
    source = load_collection(str(collection))
    ids, texts = list(source.doc_ids()), source.texts(source.doc_ids(), View.TITLE_TEXT)
    docs = {"docs": source.docs_fingerprint()}
    fill(root / "indexes/bm25", "bm25", ids, texts, docs)
    for name in ("small.before", "small-seed1"):
        mark = student(root / "students" / name, Path(bi_encoder), {"kind": "bi_encoder", **LENGTHS})
        vectors = open_encoder(bi_encoder, device="cpu", dtype="float32").encode(texts, "doc")
        fill(root / f"indexes/flat-{name}", "flat", ids, vectors, {**docs, "encoder": mark})
    student(root / "students/reader-seed1", cross_encoder, {"kind": "cross_encoder", "max_tokens": 64})
    return root


def student(folder: Path, model: Path, options: dict[str, Any]) -> str:
    """A student's folder with its manifest; what an index that it fills calls it."""
    shutil.copytree(model, folder)
    manifest = artifacts.plan("student", 1, {"student": {"init": str(model), **options}}, {"name": folder.name}, 1)
    (folder / artifacts.MANIFEST).write_text(json.dumps(asdict(manifest)), "utf-8")
    return fingerprint("trained", manifest.fingerprint)


def fill(folder: Path, kind: str, ids: Sequence[str], content: Any, inputs: dict[str, str]) -> None:
    build_index(folder, IndexCard(kind=kind), ids, content, inputs, open_kind("index", kind), "cpu")
