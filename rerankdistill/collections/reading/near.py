"""Passages that were met before, word for word or nearly: boilerplate, copies, versions of one page.

MinHash over runs of five words (Broder 1997, "On the resemblance and containment of documents"), by datasketch.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

from rerankdistill.errors import MissingDependency

RUN = 5
PERMUTATIONS = 64
WORD = re.compile(r"\w+")


class Seen:
    """What was met. ``threshold`` is the share of runs that two passages have in common to count as one; 0: only equal
    texts do."""

    def __init__(self, threshold: float = 0.9) -> None:
        self._exact: dict[bytes, str] = {}
        self._index: Any = None
        if threshold:
            try:
                from datasketch import MinHashLSH
            except ImportError as error:
                fix = "pip install 'rerankdistill[adapt]'"
                raise MissingDependency("near-duplicates are found by datasketch", fix=fix) from error
            self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)

    def first(self, doc_id: str, text: str) -> str | None:
        """The passage that said this first, or None: then this one is remembered. Case and punctuation do not count."""
        words = WORD.findall(text.lower())
        mark = blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if mark in self._exact:
            return self._exact[mark]
        self._exact[mark] = doc_id
        if self._index is None or len(words) < 2 * RUN:  # of a few words every change is a large one
            return None
        sketch = _sketch(words)
        found = self._index.query(sketch)
        if found:
            return str(min(found))
        self._index.insert(doc_id, sketch, check_duplication=False)
        return None


def _sketch(words: list[str]) -> Any:
    from datasketch import MinHash

    runs = {" ".join(words[at : at + RUN]).encode() for at in range(len(words) - RUN + 1)}
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
    sketch.update_batch(sorted(runs))
    return sketch
