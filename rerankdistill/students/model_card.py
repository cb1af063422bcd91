"""The README.md of a student's folder: what it is, how it was made, how to use it, what it measures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankdistill.artifacts import write_text

MEASURED = "## Measured"

USAGE = {
    "bi_encoder": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))""",
    "query_tower": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))""",
    "cross_encoder": """from sentence_transformers import CrossEncoder

model = CrossEncoder("{folder}")
scores = model.predict([(query, document) for document in documents])""",
}


def write_card(folder: Path, name: str, kind: str, made: Mapping[str, Any]) -> None:
    """Write the model card of a student that was just saved.

    Args:
        made: what decided it: student, stages, teacher, collection, seed.
    """
    library = "sentence-transformers"
    usage = USAGE.get(kind, "").format(folder=name)
    text = f"""---
library_name: {library}
tags: [{library}, rerankdistill, knowledge-distillation]
---

# {name}

A {kind.replace("_", "-")} made by rerankdistill. Nothing but {library} is needed to use it:

```python
{usage}
```

## How it was made

```json
{json.dumps(made, indent=1, default=str, ensure_ascii=False)}
```
"""
    write_text(folder / "README.md", text)


def add_measured(folder: Path, title: str, measures: Mapping[str, float], queries: int, note: str) -> None:
    """Put what was measured into a model card, in place of what stood there about the same collection."""
    path = folder / "README.md"
    if not path.is_file():
        return
    head, _, tail = path.read_text("utf-8").partition(MEASURED)
    kept = [line for line in tail.splitlines() if line.startswith("- ") and not line.startswith(f"- {title}:")]
    figures = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
    lines = [*kept, f"- {title}: {figures} ({queries} queries; {note})"]
    write_text(path, f"{head.rstrip()}\n\n{MEASURED}\n\n" + "\n".join(lines) + "\n")
