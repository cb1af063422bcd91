"""How likely a language model finds the query as a question to the passage: UPR (Sachan et al., arXiv 2204.07496).

The score is the mean of log P(token | passage, instruction, tokens before) over the query's tokens. It needs no
training for relevance, so it works with small and with base models. The passage comes first: what is computed of it
serves all queries that it is a candidate of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from rerankdistill.scores.llm.pointwise import Pointwise, PromptOptions, answers
from rerankdistill.scores.llm.prompts import continued
from rerankdistill.types import Answer, FloatArray, Group, Scale


class QueryLikelihoodOptions(PromptOptions):
    """What is asked, and against what the likelihood is held.

    Attributes:
        normalise: ``none``: log P(query | passage). ``query``: less log P(query | ``no_passage``), so that 0 means that
            the passage makes the query no likelier than no passage does. That moves all scores of a query alike, and no
            ranking; it makes queries comparable where scores of several are (a threshold, a fixed temperature).
        no_passage: what stands in place of the passage then.
    """

    template: str = "upr"
    normalise: Literal["none", "query"] = "none"
    no_passage: str = "N/A"


class Kind(Pointwise[QueryLikelihoodOptions]):
    """A query-likelihood teacher. An empty query has no likelihood: its scores are 0."""

    Options = QueryLikelihoodOptions
    name = "query_likelihood"
    shows = frozenset({"doc"})
    keeps = ()
    scale = Scale.LOGPROB

    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        queries, docs = self.texts(groups)
        scores = self._likelihood(queries, docs)
        if self.options.normalise == "query":
            distinct = list(dict.fromkeys(queries))
            blank = self.fit([self.options.no_passage], self.lengths.doc) * len(distinct)
            base = dict(zip(distinct, self._likelihood(distinct, blank).tolist(), strict=True))
            scores = scores - np.array([base[query] for query in queries], np.float32)
        return answers(groups, scores)

    def _likelihood(self, queries: Sequence[str], docs: Sequence[str]) -> FloatArray:
        """``[len(queries)]``; the model is asked passage by passage, for all queries of each at once."""
        scores = np.zeros(len(queries), np.float32)
        first = {doc: row for row, doc in reversed(list(enumerate(docs)))}
        order = sorted((row for row in range(len(docs)) if queries[row].strip()), key=lambda row: first[docs[row]])
        if order:
            asks = self.asks([queries[row] for row in order], [docs[row] for row in order])
            texts = [continued(self.prompt.answer, queries[row].strip()) for row in order]
            scores[order] = self.model.likelihood(asks, texts)
        return scores
