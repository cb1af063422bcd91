"""How a question becomes the tokens that a model reads.

A question is cut where its shared part ends, and both sides are tokenised by themselves: the same tokens are then read
whether or not the beginning is computed once for many questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from rerankdistill.errors import CardError
from rerankdistill.scores.llm.model import Ask

MARK = "%%MESSAGE%%"
ANCHOR = "\n"
DATE = "26 Jul 2024"
"""What templates that tell the model the date are given, so that a score does not depend on the day."""


class Frame(NamedTuple):
    """What a chat template puts before and after the user's message, and on which sides it strips that of white
    space."""

    before: str
    after: str
    strips_left: bool
    strips_right: bool


class Layout:
    """Questions to tokens.

    With a chat template: the system's message (put before the user's where the template knows no such role), the
    user's, and the beginning of the answer. Control tokens spelled out in a user's message (a document that contains
    ``</s>``) are broken by a space, for they would end it.

    Without one: system, an empty line, the user's message and the answer, one after the other as they are, after the
    tokens that the tokenizer begins a text with.

    Args:
        chat: use the tokenizer's chat template where it has one.
        chat_options: more variables for the template.
    """

    def __init__(self, tokenizer: Any, chat: bool = True, chat_options: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat = chat and bool(getattr(tokenizer, "chat_template", None))
        self.chat_options = dict(chat_options or {})
        self._frames: dict[str, Frame] = {}

    def split(self, asks: Sequence[Ask]) -> list[tuple[tuple[int, ...], list[int]]]:
        """For each question the tokens up to the end of its shared part, and the rest (never empty)."""
        parts = [self.texts(ask) for ask in asks]
        heads = list(dict.fromkeys(head for head, _ in parts))
        known = dict(zip(heads, self._heads(heads), strict=True))
        tails = self.encode([tail for _, tail in parts])
        out = []
        for (text, _), tail in zip(parts, tails, strict=True):
            head = known[text]
            if not tail:  # a model must read at least one token to say what comes next
                head, tail = head[:-1], list(head[-1:])
            out.append((head, tail))
        return out

    def texts(self, ask: Ask) -> tuple[str, str]:
        """The text up to the end of the shared part, and the rest."""
        if not self.chat:
            return (f"{ask.system}\n\n" if ask.system else "") + ask.shared, ask.own + ask.answer
        frame = self.frame(ask.system)
        shared, own = self._disarm(ask.shared), self._disarm(ask.own)
        if frame.strips_left:
            shared, own = shared.lstrip(), own if shared.strip() else own.lstrip()
        if frame.strips_right:
            shared, own = shared if own.strip() else shared.rstrip(), own.rstrip()
        return frame.before + shared, own + frame.after + ask.answer

    def frame(self, system: str) -> Frame:
        """What the template puts around the user's message after this system message.

        Raises:
            CardError: the template fails, or does not show the message exactly once.
        """
        if system not in self._frames:
            plain, spaced = self._render(system, MARK), self._render(system, f" {MARK} ")
            if plain.count(MARK) != 1:
                what = f"the chat template shows the user's message {plain.count(MARK)} times"
                raise CardError(what, where=self._name, fix="set options.chat_template = 'none'")
            before, after = plain.split(MARK)
            self._frames[system] = Frame(before, after, f" {MARK}" not in spaced, f"{MARK} " not in spaced)
        return self._frames[system]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts that go on from something, without special ones."""
        if not texts:
            return []
        if not self._dummy_space:
            return self._encode(texts)
        skip = len(self._encode([ANCHOR])[0])
        return [row[skip:] for row in self._encode([ANCHOR + text for text in texts])]

    def fit(self, text: str, limit: int | None) -> str:
        """The text cut to at most ``limit`` tokens."""
        if limit is None or 4 * len(text) < limit:  # a token is at least one byte, a letter at most four
            return text
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in tokens["offset_mapping"]]
        if len(ends) <= limit:
            return text
        for keep in range(limit, 0, -1):  # a letter of several tokens may be cut in the middle
            cut = text[: ends[keep - 1]]
            if len(self._encode([cut])[0]) <= limit:
                return cut
        return ""

    def _heads(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """A beginning follows nothing: no anchor; a template writes its own special tokens."""
        start = [] if self.chat else self._start
        return [(*start, *row) for row in self._encode(texts)] if texts else []

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return rows

    @cached_property
    def _start(self) -> list[int]:
        """What the tokenizer puts before a text, as the begin-of-sequence token."""
        whole = self.tokenizer("x", verbose=False)["input_ids"]
        bare = self._encode(["x"])[0]
        at = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
        return list(whole[:at])

    @cached_property
    def _dummy_space(self) -> bool:
        """Whether the tokenizer puts a space before every text (SentencePiece), which would be wrong in the middle."""
        skip = len(self._encode([ANCHOR])[0])
        alone, after = self._encode(["x", ANCHOR + "x"])
        return alone != after[skip:]

    def _disarm(self, text: str) -> str:
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _control(self) -> list[str]:
        return [token for token in self.tokenizer.all_special_tokens if len(token) > 1]

    @property
    def _name(self) -> str:
        return str(getattr(self.tokenizer, "name_or_path", ""))

    def _render(self, system: str, user: str) -> str:
        from jinja2 import TemplateError

        try:
            try:
                return self._apply([{"role": "system", "content": system}] if system else [], user)
            except TemplateError:
                if not system:
                    raise
                return self._apply([], f"{system}\n\n{user}")
        except TemplateError as error:
            fix = "set options.chat_template = 'none'"
            raise CardError(f"the chat template fails: {error}", where=self._name, fix=fix) from error

    def _apply(self, messages: list[dict[str, str]], user: str) -> str:
        options = {"date_string": DATE, **self.chat_options}
        text: str = self.tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": user}], tokenize=False, add_generation_prompt=True, **options
        )
        return text
