"""What a collection's folder holds in BEIR's layout, written: lines of ``corpus.jsonl`` and ``queries.jsonl``, and the
text of ``qrels/SPLIT.tsv``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rerankdistill.types import Doc, Judgement


def doc_line(doc: Doc) -> str:
    """One line of ``corpus.jsonl``."""
    return _line({"_id": doc.doc_id, "title": doc.title, "text": doc.text})


def query_line(query_id: str, text: str, **more: Any) -> str:
    """One line of ``queries.jsonl``; ``more``: further fields, as ``metadata``."""
    return _line({"_id": query_id, "text": text, **more})


def qrels(judgements: Iterable[Judgement]) -> str:
    """The text of a file of judgements."""
    rows = (f"{each.query_id}\t{each.doc_id}\t{each.grade}\n" for each in judgements)
    return "query-id\tcorpus-id\tscore\n" + "".join(rows)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
