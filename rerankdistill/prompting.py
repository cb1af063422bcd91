"""Query and document written into one text, for a model that reads both and answers with a word.

The text is tokenised as a whole, as any library would, and only the document is cut where it is too long: the query and
the end of the text, at which the answer is read, always arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rerankdistill.encoding import Tokens
from rerankdistill.errors import CardError, DataError

MONOT5 = "Query: {query} Document: {document} Relevant:"
"""monoT5's (Nogueira, Jiang, Pradeep, Lin 2020, arXiv:2003.06713)."""
ANCHOR = "\n"
BEGINS_A_WORD = "\N{LOWER ONE EIGHTH BLOCK}"
"""What SentencePiece puts before a token that begins a word."""


def whole(template: str) -> str:
    """The template. Raises ValueError where it does not have ``{query}`` and ``{document}`` once each."""
    if any(template.count(part) != 1 for part in ("{query}", "{document}")):
        raise ValueError("a template needs {query} once and {document} once")
    return template


def fill(template: str, query: str, document: str) -> str:
    """The template filled in one go: what stands in a text is never taken for a place of the template."""
    before, _, rest = template.partition("{query}")
    if "{document}" in before:
        start, _, between = before.partition("{document}")
        return f"{start}{document}{between}{query}{rest}"
    between, _, after = rest.partition("{document}")
    return f"{before}{query}{between}{document}{after}"


def tokenise_prompts(
    tokenizer: Any,
    template: str,
    pairs: Sequence[tuple[str, str]],
    total: int,
    *,
    query_tokens: int | None = None,
    doc_tokens: int | None = None,
    special: bool = True,
    mark_query: bool = False,
    where: str = "",
    fix: str = "raise max_tokens, or give a shorter template",
) -> Tokens:
    """The prompts of (query, document) texts, each of at most ``total`` tokens.

    Args:
        query_tokens: the query is cut to so many; None: left whole unless it would not fit without any document.
        doc_tokens: the document is cut to so many at most.
        special: add the tokenizer's own special tokens.
        mark_query: mark in a column ``asked`` the tokens of the query, with which the template ends.

    Raises:
        CardError: the template alone is longer than ``total``; ``fix`` says what to do.
    """

    def encode(prompts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = []
        if prompts:
            rows = tokenizer(list(prompts), add_special_tokens=special, verbose=False)["input_ids"]
        return rows

    queries, docs = Cuts(tokenizer, [query for query, _ in pairs]), Cuts(tokenizer, [doc for _, doc in pairs])
    most = total if query_tokens is None else query_tokens
    used = [queries.first(query, most) for query, _ in pairs]
    asked = list(dict.fromkeys(used))
    shown = {query: query for query in asked}
    sizes = {q: len(row) for q, row in zip(asked, encode([fill(template, q, "") for q in asked]), strict=True)}
    for query in [each for each in asked if sizes[each] > total]:  # half of the room is left for documents
        shown[query], sizes[query] = _shortened(query, queries, lambda cut: encode([fill(template, cut, "")])[0], total)
        if sizes[query] > total:
            what = f"the prompt without a document has {sizes[query]} tokens, more than {total}"
            raise CardError(what, where=where, fix=fix)
    limit = total if doc_tokens is None else doc_tokens
    rooms = [min(limit, total - sizes[query] + 1) for query in used]
    rows: list[list[int]] = [[] for _ in pairs]
    over = list(range(len(pairs)))
    while over:
        texts = [fill(template, shown[used[at]], docs.first(pairs[at][1], rooms[at])) for at in over]
        for at, row in zip(over, encode(texts), strict=True):
            rows[at] = row
        over = [at for at in over if len(rows[at]) > total]
        for at in over:  # never without end: a prompt without a document fits
            rooms[at] = max(0, rooms[at] - (len(rows[at]) - total))
    columns = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    if mark_query:
        bare = len(encode([unasked(template)])[0])
        ends = [sizes[query] - bare for query in used]
        columns["asked"] = [[0] * (len(row) - end) + [1] * end for row, end in zip(rows, ends, strict=True)]
    return Tokens(columns, {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "asked": 0})


def unasked(template: str) -> str:
    """A template that ends with its query, without one; nor the space before it, which belongs to its first token."""
    return fill(template, "", "").rstrip()


def _shortened(query: str, cuts: Cuts, encode: Callable[[str], list[int]], total: int) -> tuple[str, int]:
    """A query's beginning that fits without a document (it may be nothing), and the length of the prompt."""
    keep = min(cuts.count(query), total // 2)
    while True:
        cut = cuts.first(query, keep)
        size = len(encode(cut))
        if size <= total or keep <= 0:
            return cut, size
        keep = max(0, keep - (size - total))


class Cuts:
    """Texts and where their tokens end, each tokenised once."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans = tokenizer(distinct, **options)["offset_mapping"] if distinct else []
        self._ends = {text: [end for _, end in span if end] for text, span in zip(distinct, spans, strict=True)}

    def first(self, text: str, count: int) -> str:
        """The text's first ``count`` tokens."""
        ends = self._ends[text]
        if count <= 0:
            return ""
        if len(ends) <= count:
            return text
        cut = text[: ends[count - 1]]
        self._ends[cut] = ends[:count]
        return cut

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(self._ends[text])


def answer_ids(tokenizer: Any, words: Sequence[str], where: str = "") -> list[int]:
    """The ids of words that a decoder begins with, as they begin a word where the vocabulary knows them so.

    Raises:
        DataError: one is none of the vocabulary.
    """
    known: Mapping[str, int] = tokenizer.get_vocab()
    found = []
    for word in words:
        spelling = next((name for name in (f"{BEGINS_A_WORD}{word}", word) if name in known), None)
        if spelling is None:
            fix = "set tokens to words that it was trained to answer with"
            raise DataError(f"{word!r} is not one token of this vocabulary", where=where, fix=fix)
        found.append(known[spelling])
    return found


def next_ids(tokenizer: Any, template: str, words: Sequence[str], where: str = "") -> list[int]:
    """The first token of each word as it is tokenised right behind the end of the template, after a space unless the
    template ends in white space.

    Raises:
        DataError: two words begin with the same token, or one is tokenised together with what is before it.
    """
    tail = template[max(template.rfind("{query}"), template.rfind("{document}")) :].partition("}")[2]
    end, space = ANCHOR + tail, "" if tail[-1:].isspace() else " "
    found: list[int] = []
    before = tokenizer(end, add_special_tokens=False, verbose=False)["input_ids"]
    fix = "choose other tokens, or another end of the template"
    for word in words:
        after = tokenizer(end + (word if word[:1].isspace() else space + word), add_special_tokens=False)["input_ids"]
        if after[: len(before)] != before or len(after) == len(before):
            raise DataError(f"{word!r} is no token of its own behind the prompt", where=where, fix=fix)
        if after[len(before)] in found:
            what = f"the tokens {words[found.index(after[len(before)])]!r} and {word!r} begin alike"
            raise DataError(what, where=where, fix=fix)
        found.append(after[len(before)])
    return found
