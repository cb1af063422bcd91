"""Fill an ir-datasets home in its own cache layout, so that the real library loads real ids without a network.

ir-datasets checks the hash of what it downloads, and takes what its cache already holds as it is: extracted files
(``cranfield/docs.txt``, ``beir/scifact/test.qrels``, ``msmarco-passage/collection.tsv``) and the archive that BEIR's
documents are read from (``beir/scifact/source.zip``). It reads IR_DATASETS_HOME when it is imported, so the home must
be filled and set before: use :func:`environment` for a subprocess.
"""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MSMARCO_SPLITS = ("train", "dev/small", "trec-dl-2019", "trec-dl-2020")

BEIR_SPLITS = {
    **dict.fromkeys(("nfcorpus", "hotpotqa", "fiqa", "fever"), ("train", "dev", "test")),
    **dict.fromkeys(("quora", "dbpedia-entity"), ("dev", "test")),
    **dict.fromkeys(("trec-covid", "nq", "arguana", "webis-touche2020", "scidocs", "climate-fever"), ("test",)),
    "scifact": ("train", "test"),
}
"""The splits that ir-datasets knows of each BEIR collection (without msmarco and cqadupstack)."""
METADATA = {
    **dict.fromkeys(("url", "pubmed_id", "stance", "query", "narrative", "description"), ""),
    **dict.fromkeys(("authors", "cited_by", "references", "tags"), ()),
    "year": 0,
}
"""Every field that some BEIR collection has beside title and text."""

Texts = Mapping[str, str]
Qrels = Sequence[tuple[str, str, int]]


def environment(home: Path) -> dict[str, str]:
    """The environment of a subprocess that finds this home and no network."""
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ,
        "IR_DATASETS_HOME": str(home),
        "IR_DATASETS_SKIP_DISK_FREE": "true",  # MS MARCO's document store asks for 14 GB before it is built
        "IR_DATASETS_DL_TRIES": "1",
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


def fill_home(home: Path, data: Path) -> None:
    """Cranfield, vaswani and beir/scifact from the judged collections in ``data``."""
    fill_cranfield(home, data / "cranfield")
    fill_vaswani(home, data / "vaswani-npl")
    scifact = data / "scifact"
    corpus = {row["_id"]: (row["title"], row["text"]) for row in read_jsonl(scifact / "corpus.jsonl.gz")}
    queries = {row["_id"]: row["text"] for row in read_jsonl(scifact / "queries.jsonl.gz")}
    qrels = {split: read_qrels(scifact / f"qrels/{split}.tsv.gz") for split in ("train", "test")}
    fill_beir(home, "scifact", corpus, queries, qrels)


def fill_cranfield(home: Path, folder: Path) -> None:
    docs = read_jsonl(folder / "corpus.jsonl.gz")
    queries = read_jsonl(folder / "queries.jsonl.gz")
    write(
        home / "cranfield/docs.txt", (f".I {d['_id']}\n.T\n{d['title']}\n.A\n\n.B\n\n.W\n{d['text']}\n" for d in docs)
    )
    write(home / "cranfield/queries.txt", (f".I {q['_id']}\n.W\n{q['text']}\n" for q in queries))
    judged = read_qrels(folder / "qrels/test.tsv.gz")
    write(home / "cranfield/qrels.txt", (f"{q} {d} {grade or -1}\n" for q, d, grade in judged))


def fill_vaswani(home: Path, folder: Path) -> None:
    docs = read_jsonl(folder / "corpus.jsonl.gz")
    queries = read_jsonl(folder / "queries.jsonl.gz")
    write(home / "vaswani/docs.txt", (f"{d['_id']}\n{d['text']}\n   /\n" for d in docs))
    write(home / "vaswani/queries.txt", (f"{q['_id']}\n{q['text']}\n/\n" for q in queries))
    relevant: dict[str, list[str]] = {}
    for query_id, doc_id, _ in read_qrels(folder / "qrels/test.tsv.gz"):
        relevant.setdefault(query_id, []).append(doc_id)
    write(home / "vaswani/qrels.txt", (f"{q}\n{' '.join(found)}\n   /\n" for q, found in relevant.items()))


def fill_beir(
    home: Path, name: str, corpus: Mapping[str, tuple[str, str]], queries: Texts, qrels: Mapping[str, Qrels]
) -> None:
    """``beir/<name>`` with ``{doc_id: (title, text)}``; ``qrels`` by the splits that BEIR has for it."""
    folder = home / "beir" / name
    folder.mkdir(parents=True, exist_ok=True)
    docs = [
        {"_id": doc_id, "title": title, "text": text, "metadata": METADATA} for doc_id, (title, text) in corpus.items()
    ]
    asked = [{"_id": query_id, "text": text, "metadata": METADATA} for query_id, text in queries.items()]
    with zipfile.ZipFile(folder / "source.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/corpus.jsonl", to_jsonl(docs))
        archive.writestr(f"{name}/queries.jsonl", to_jsonl(asked))
        for split, judged in qrels.items():
            rows = "".join(f"{q}\t{d}\t{grade}\n" for q, d, grade in judged)
            archive.writestr(f"{name}/qrels/{split}.tsv", f"query-id\tcorpus-id\tscore\n{rows}")


def fill_msmarco(home: Path, passages: Texts, queries: Mapping[str, Texts], qrels: Mapping[str, Qrels]) -> None:
    """``msmarco-passage`` with queries and qrels for each of :data:`MSMARCO_SPLITS` (``/judged`` derives from them)."""
    base = home / "msmarco-passage"
    write(base / "irds_version.txt", ["v2"])  # else ir-datasets deletes collection.tsv as one with the old encoding
    write(base / "collection.tsv", (f"{doc_id}\t{one_line(text)}\n" for doc_id, text in passages.items()))
    for split in MSMARCO_SPLITS:
        rows = "".join(f"{query_id}\t{one_line(text)}\n" for query_id, text in queries[split].items())
        if split == "trec-dl-2020":
            (base / split).mkdir(parents=True, exist_ok=True)
            (base / split / "queries.tsv.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
        else:
            write(base / split / "queries.tsv", [rows])
        write(base / split / "qrels", (f"{q} 0 {d} {grade}\n" for q, d, grade in qrels[split]))


def fill_miniature(home: Path, docs: int = 240, queries: int = 40) -> None:
    """Made-up ``msmarco-passage`` (train/judged, dev/small, TREC-DL 2019 and 2020) and every collection of
    :data:`BEIR_SPLITS` under their real ids: a query asks for one topic of a made-up encyclopaedia.

    Args:
        docs: documents of each collection.
        queries: queries of each split.
    """
    topics = made_up(docs)
    passages = {str(number): text for number, (_, text, _) in enumerate(topics)}
    asked: dict[str, dict[str, str]] = {}
    judged: dict[str, list[tuple[str, str, int]]] = {}
    for place, split in enumerate(MSMARCO_SPLITS):
        picked = [(place + step * len(MSMARCO_SPLITS)) % docs for step in range(queries)]
        ids = {number: str(1000 * (place + 1) + number) for number in picked}
        asked[split] = {ids[number]: topics[number][2] for number in picked} | {str(9000 + place): "nobody judged this"}
        graded = split.startswith("trec")
        judged[split] = [(ids[number], str(number), 3 if graded else 1) for number in picked]
        if graded:
            judged[split] += [(ids[number], str((number + 7) % docs), 0) for number in picked]
    fill_msmarco(home, passages, asked, judged)
    corpus = {f"d{number}": (title, text) for number, (title, text, _) in enumerate(topics)}
    for name, splits in BEIR_SPLITS.items():
        qrels = {s: [(f"q{n}", f"d{n}", 1) for n in range(p, docs, 3)][:queries] for p, s in enumerate(splits)}
        fill_beir(home, name, corpus, {f"q{n}": question for n, (_, _, question) in enumerate(topics)}, qrels)


SUBJECTS = ("bridge", "lighthouse", "harbour", "orchard", "mill", "museum", "library", "garden", "market", "railway")
PLACES = ("Arden", "Belmont", "Corvale", "Dunmore", "Eastwick", "Farrow", "Glenby", "Holt", "Islay", "Jura", "Kelso")
ERAS = ("medieval", "Georgian", "Victorian", "modern")


def made_up(count: int) -> list[tuple[str, str, str]]:
    """``(title, text, question)`` of up to 440 made-up topics, each a subject, a place and an era."""
    out = []
    for number in range(count):
        subject, rest = SUBJECTS[number % 10], number // 10
        place, era, year = PLACES[rest % 11], ERAS[rest // 11 % 4], 1200 + 37 * number % 800
        built = f"The {era} {subject} of {place} was built in {year}."
        text = f"{built} Travellers praise the {subject} for its {era} stone."
        out.append((f"{subject} of {place}", text, f"when did {place} get its {era} {subject}"))
    return out


def read_jsonl(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def read_qrels(path: Path) -> list[tuple[str, str, int]]:
    rows = [line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines()[1:]]
    return [(query_id, doc_id, int(grade)) for query_id, doc_id, grade in rows]


def to_jsonl(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def one_line(text: str) -> str:
    return " ".join(text.split())


def write(path: Path, parts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(parts), "utf-8")
