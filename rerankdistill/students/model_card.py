"""The README.md of a student's folder: what it is, how it was made, how to use it, what it measures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankdistill.artifacts import write_text

MEASURED = "## Measured"

COMPARED = """from sentence_transformers import {library}

model = {library}("{folder}")
scores = model.similarity(model.encode_query(queries), model.encode_document(documents))"""

USAGE = {
    "bi_encoder": COMPARED.replace("{library}", "SentenceTransformer"),
    "query_tower": COMPARED.replace("{library}", "SentenceTransformer"),
    "late_interaction": COMPARED.replace("{library}", "MultiVectorEncoder"),
    "sparse": COMPARED.replace("{library}", "SparseEncoder"),
    "quantizer": """import faiss
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
index = faiss.read_index("{folder}/codebooks.faiss")  # it has no documents yet
index.add(model.encode_document(documents, normalize_embeddings={normalised}))
scores, rows = index.search(model.encode_query(queries, normalize_embeddings={normalised}), 10)""",
    "cross_encoder": """from sentence_transformers import CrossEncoder

model = CrossEncoder("{folder}")
scores = model.predict([(query, document) for document in documents])""",
    "seq2seq": """import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForSeq2SeqLM.from_pretrained("{folder}").eval()
how = model.config.rerankdistill  # how it was asked in training: template, tokens, how they are read
prompts = [how["template"].replace("{query}", query).replace("{document}", document) for document in documents]
inputs = tokenizer(prompts, padding=True, return_tensors="pt")  # cut documents so that {max_tokens} tokens are left
start = torch.full((len(prompts), 1), model.config.decoder_start_token_id)
with torch.inference_mode():
    logits = model(**inputs, decoder_input_ids=start).logits[:, 0, how["token_ids"]]
scores = {scores}""",
    "causal": """import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}", padding_side="left")
model = AutoModelForCausalLM.from_pretrained("{folder}").eval()
how = model.config.rerankdistill  # how it was asked in training: template, tokens, how they are read
prompts = [how["template"].replace("{query}", query).replace("{document}", document) for document in documents]
special = how["special_tokens"]
inputs = tokenizer(prompts, padding=True, add_special_tokens=special, return_tensors="pt", return_token_type_ids=False)
# longer than {max_tokens} tokens: cut documents, never the end
with torch.inference_mode():
    logits = model(**inputs).logits[:, -1, how["token_ids"]]
scores = {scores}""",
    "likelihood": """import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}").eval()
before = model.config.rerankdistill["template"].removesuffix("{query}")  # all that is before the query
scores = []  # longer than {max_tokens} tokens: cut documents, never the query
for document in documents:
    prompt = before.replace("{document}", document)
    start = len(tokenizer(prompt.rstrip())["input_ids"])
    ids = tokenizer(prompt + query, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logprobs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
    scores.append(logprobs.gather(1, ids[0, start:, None]).mean().item())""",
}


SCORES = {
    "margin": "logits[:, 0] - logits[:, 1]",
    "logprob": "logits.log_softmax(-1)[:, 0]",
    "logit": "logits[:, 0]",
}
"""How a model that answers with words is read, by its ``output``."""
BESIDE = {"quantizer": " and faiss"}
"""What a kind needs beside its library."""
PLAIN = {"seq2seq", "causal"}
"""Kinds that transformers alone opens."""


def write_card(folder: Path, name: str, kind: str, made: Mapping[str, Any]) -> None:
    """Write the model card of a student that was just saved.

    Args:
        made: what decided it: student, stages, teacher, collection, seed.
    """
    library = "transformers" if kind in PLAIN else "sentence-transformers"
    how = json.loads((folder / "config.json").read_text("utf-8"))["rerankdistill"] if kind in PLAIN else {}
    asked = "likelihood" if how.get("output") == "likelihood" else kind
    usage = USAGE.get(asked, "").replace("{folder}", name)
    similarity = made.get("student", {}).get("similarity", "cosine")
    usage = usage.replace("{normalised}", str(similarity == "cosine"))
    if kind in PLAIN:
        usage = usage.replace("{scores}", SCORES.get(how["output"], "")).replace("{max_tokens}", str(how["max_tokens"]))
    text = f"""---
library_name: {library}
tags: [{library}, rerankdistill, knowledge-distillation]
---

# {name}

A {kind.replace("_", "-")} made by rerankdistill. Nothing but {library}{BESIDE.get(kind, "")} is needed to use it:

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
