"""The miniature: a made-up encyclopaedia in a folder, cards of tiny teachers, and the table of a pipeline over them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irds_home import made_up

TOPICS = made_up(80)
VOCABULARY = [part for topic in made_up(440) for part in topic]
TRAIN, TEST = range(40), range(40, 70)


def write_collection(home: Path, rename: str = "") -> Path:
    """Eighty documents, forty judged training queries, thirty judged test queries."""
    (home / "qrels").mkdir(parents=True)
    docs = [{"_id": f"d{rename}{n}", "title": title, "text": text} for n, (title, text, _) in enumerate(TOPICS)]
    queries = [{"_id": f"q{rename}{n}", "text": TOPICS[n][2]} for n in (*TRAIN, *TEST)]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for split, numbers in (("train", TRAIN), ("test", TEST)):
        rows = "".join(f"q{rename}{n}\td{rename}{n}\t1\n" for n in numbers)
        (home / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}", "utf-8")
    return home


def write_teachers(home: Path, models: Path) -> Path:
    """Cards: ``bi.toml``, ``lexical.toml`` and ``fused.toml`` of both; ``cross.toml``."""
    home.mkdir()
    bi = {"kind": "bi_encoder", "model": str(models / "teacher"), "scale": "similarity"}
    cross = {"kind": "cross_encoder", "model": str(models / "cross"), "scale": "logit"}
    cards = {"bi": bi, "cross": cross, "lexical": {"kind": "lexical", "scale": "lexical"}}
    for name, card in cards.items():
        write_card(home / f"{name}.toml", {"name": f"tiny-{name}", **card})
    fused = {"name": "fused", "kind": "ensemble", "members": ["lexical.toml", "bi.toml"], "combine": "zscore"}
    write_card(home / "fused.toml", fused)
    return home


def write_card(path: Path, card: Mapping[str, Any]) -> Path:
    import tomlkit

    path.write_text(tomlkit.dumps(card), "utf-8")
    return path


def table(collection: Path, teachers: Path, models: Path) -> dict[str, Any]:
    """The miniature pipeline as a table that a test may change before it is checked."""
    return {
        "name": "mini",
        "collection": str(collection),
        "device": "cpu",
        "teacher": str(teachers / "fused.toml"),
        "mine": {"depth": 12},
        "students": {
            "small": {
                "options": {"init": str(models / "student"), "query_tokens": 32, "doc_tokens": 64},
                "stages": [
                    {
                        "options": {"kl_div": {"tau_student": 0.1}},
                        "list_size": 4,
                        "train": {"steps": 6, "batch": 4, "learning_rate": 1e-3, "evaluate_every": 3},
                    }
                ],
            }
        },
        "evaluate": [{"depth": 50}],
    }
