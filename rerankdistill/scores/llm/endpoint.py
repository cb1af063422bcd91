"""A language model behind an OpenAI-compatible endpoint: vLLM, Ollama, the server of llama.cpp, or a hosted one.

What an endpoint tells of its model's probabilities is the logarithms of the likeliest next tokens, if that. So an
option that is not among them has no value, and a server that tells none is read by the word that it writes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from rerankdistill.artifacts import fingerprint
from rerankdistill.errors import CardError
from rerankdistill.scores.llm.model import GREEDY, Ask, Sampling
from rerankdistill.scores.llm.purse import Prices, Purse, Tokens
from rerankdistill.scores.llm.replies import bare, begins, likeliest_tokens, match, span, until, written
from rerankdistill.scores.llm.wire import EndpointRefused, Wire, WireOptions
from rerankdistill.types import FloatArray

WORDS_TOKENS = 8
"""How much a server without log-probabilities is let write to name an option."""

MOST_STOPS = 4
"""The stop sequences that the protocol allows; what is over is cut here."""

Result = TypeVar("Result")


class EndpointOptions(WireOptions):
    """How a question is put to an endpoint, what that costs, and what may be spent; see also :class:`WireOptions`.

    Attributes:
        top_logprobs: how many of the likeliest tokens to ask for; hosted servers allow 20, some only 5.
        without_logprobs: a server that tells no log-probabilities is refused, or read by its ``text``: 1 for the option
            that its answer begins with, 0 for the others. The scores then are probabilities at best.
        prefill: how a server is told to go on from the beginning of an answer: it is the end of the ``user``'s message
            (any server); it is the assistant's ``message`` (llama.cpp, Ollama); that, and the server is told to
            ``continue`` it (vLLM, SGLang).
        length_field: what the server calls the most tokens to generate.
        characters_per_token: what the card's lengths are reckoned with; only the server has the tokeniser.
        seed: sent with each request.
        omit: fields of a request to leave out, for servers that reject them, as ``["seed", "temperature"]``.
        extra: further fields of each request.
        completion_layout: the prompt where likelihoods are asked for, which take no messages: ``{system}`` (with an
            empty line behind it), ``{user}`` and ``{answer}`` are filled in.
        price_per_million_prompt, price_per_million_generated: in any one currency.
        budget: how much may be spent over all runs, in that currency. Nothing is sent that might pass it.
        budget_tokens: the same in tokens.
    """

    top_logprobs: int = Field(default=20, ge=1, le=100)
    without_logprobs: Literal["refuse", "text"] = "refuse"
    prefill: Literal["user", "message", "continue"] = "user"
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    characters_per_token: PositiveFloat = 4.0
    seed: int = 0
    omit: tuple[str, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)
    completion_layout: str = "{system}{user}{answer}"
    price_per_million_prompt: NonNegativeFloat = 0.0
    price_per_million_generated: NonNegativeFloat = 0.0
    budget: PositiveFloat | None = None
    budget_tokens: PositiveInt | None = None

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.budget is not None and not (self.price_per_million_prompt or self.price_per_million_generated):
            raise ValueError(
                "budget: without prices nothing would ever count against it; give price_per_million_prompt"
            )
        try:
            self.completion_layout.format(system="", user="", answer="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("completion_layout: only {system}, {user} and {answer} are filled in") from error
        return self

    @property
    def prices(self) -> Prices:
        prompt, generated = self.price_per_million_prompt, self.price_per_million_generated
        return Prices(prompt, generated, self.budget, self.budget_tokens)


DECIDES = (
    "top_logprobs",
    "without_logprobs",
    "prefill",
    "characters_per_token",
    "seed",
    "omit",
    "extra",
    "completion_layout",
)
"""The options that decide a score. The address is none of them: a server may move."""


class ChatEndpoint:
    """A :class:`~rerankdistill.scores.llm.model.LanguageModel` that is asked over HTTP.

    Args:
        model: what the server calls it.
        revision: whatever the user tells versions of it apart by; a server does not say what it runs.
        where: who asks, for error messages.

    Every question may raise EndpointStopped (no sensible answer after all retries), EndpointRefused (a CardError: the
    server says that the request is wrong), MissingDependency (no valid key) or BudgetReached.
    """

    exact = False

    def __init__(self, model: str, options: EndpointOptions, revision: str = "main", where: str = "") -> None:
        self.model, self.revision, self.options = model, revision, options
        self.where = where or f"model {model!r}"
        self.purse = Purse(options.prices, self.where)
        self._wire = Wire(options, self.purse, self.where)
        self._tells: bool | None = None

    def close(self) -> None:
        """Let go of the connections."""
        self._wire.close()

    @property
    def usage(self) -> Mapping[str, float]:
        """See :class:`~rerankdistill.scores.llm.purse.Purse`."""
        return self.purse.usage

    def spent(self, usage: Mapping[str, float]) -> None:
        """What earlier runs have spent; it counts against the budgets."""
        self.purse.spent(usage)

    @property
    def fingerprint(self) -> str:
        """Of the model's name and revision and of how it is asked; neither the address nor the key."""
        return fingerprint("endpoint", self.model, self.revision, self.options.model_dump(include=set(DECIDES)))

    def fit(self, text: str, limit: int | None) -> str:
        """The text cut to about ``limit`` tokens, behind a whole word where there is one."""
        if limit is None or len(text) <= (most := int(limit * self.options.characters_per_token)):
            return text
        cut = text[:most]
        return cut if text[most].isspace() else cut[: cut.rfind(" ")] if " " in cut else cut

    def choose(self, asks: Sequence[Ask], options: Sequence[str]) -> FloatArray:
        """``[len(asks), len(options)]`` log-probabilities of the options as the next token, ways to write one (spaces,
        capitals) summed; NaN for one that is not among the likeliest. From a server without log-probabilities 0 for
        the option that its text begins with and -1000 for the others, all NaN where it begins with none.

        Raises:
            CardError: two options differ in spaces or capitals alone, or the server tells no log-probabilities.
        """
        marks = [bare(option) for option in options]
        if len(set(marks)) < len(marks) or "" in marks:
            what = f"the options {', '.join(map(repr, options))} begin alike, or are empty"
            raise CardError(what, where=self.where, fix="write options that differ in their first word")
        if asks and self._tells is None:  # the first alone: it shows what the server tells
            self.purse.afford([Tokens(_texts(ask), WORDS_TOKENS) for ask in (asks[0], *asks)])
            first = self._each(asks[:1], 1, lambda ask, stop, held: self._choose(ask, marks, stop, held))
            return np.concatenate([np.array(first, np.float32), self.choose(asks[1:], options)])
        budget = 1 if self._tells else WORDS_TOKENS
        rows = self._each(asks, budget, lambda ask, stop, held: self._choose(ask, marks, stop, held))
        return np.array(rows, np.float32).reshape(len(asks), len(options))

    def write(
        self, asks: Sequence[Ask], max_tokens: int, stop: Sequence[str] = (), how: Sampling = GREEDY
    ) -> list[str]:
        """What the model writes. An answer without any text counts as malformed."""
        more: dict[str, Any] = {"stop": list(stop[:MOST_STOPS])} if stop else {}
        if how.temperature:
            more |= {"temperature": how.temperature, "seed": how.seed}

        def one(ask: Ask, given_up: threading.Event, held: Tokens) -> str:
            reply = self._wire.post("chat/completions", self._body(ask, max_tokens, more), held, given_up)
            text = written(reply, ask.answer)
            if not text.strip():
                self.purse.count("malformed")
            return until(text, stop)

        return self._each(asks, max_tokens, one)

    def likelihood(self, asks: Sequence[Ask], texts: Sequence[str]) -> FloatArray:
        """``[len(asks)]`` mean log-probability per token of each text as the answer. Wants a server whose
        ``/completions`` echoes the prompt with its log-probabilities (vLLM does).

        Raises:
            CardError: the server does not.
        """
        pairs = list(zip(asks, texts, strict=True))
        held = [Tokens((self._flat(ask) + text,), 1) for ask, text in pairs]
        return np.array(self._all(pairs, held, self._likely), np.float32)

    # One question each, in a thread of its own.

    def _choose(self, ask: Ask, marks: Sequence[str], stop: threading.Event, held: Tokens) -> list[float]:
        """A row of :meth:`choose`."""
        if self._tells is not False:
            more = {"logprobs": True, "top_logprobs": self.options.top_logprobs}
            try:
                reply = self._wire.post("chat/completions", self._body(ask, 1, more), held, stop)
            except EndpointRefused:
                if self._tells or self.options.without_logprobs == "refuse":
                    raise
                reply = {}  # perhaps because of these two fields: the next try shows
            if (likeliest := likeliest_tokens(reply)) is not None:
                self._tells = True
                return match(likeliest, marks)
            if self._tells or self.options.without_logprobs == "refuse":
                raise self._no_logprobs()
            held = Tokens(_texts(ask), WORDS_TOKENS)
            self.purse.hold([held])
        reply = self._wire.post("chat/completions", self._body(ask, WORDS_TOKENS, {}), held, stop)
        self._tells = False
        text, begun = written(reply).lstrip(), ask.answer.strip()  # a server may say again how its answer begins
        row = begins(text[len(begun) :] if begun and text.startswith(begun) else text, marks)
        if math.isnan(row[0]):
            self.purse.count("malformed")
        return row

    def _likely(self, pair: tuple[Ask, str], stop: threading.Event, held: Tokens) -> float:
        prompt = self._flat(pair[0])
        body = {"prompt": prompt + pair[1], "echo": True, "logprobs": 1, self.options.length_field: 1}
        try:
            reply = self._wire.post("completions", self._with_common(body), held, stop)
        except EndpointRefused as error:
            what = f"{error.what}: it gives no likelihood of a text"
            raise CardError(what, where=self.where, fix=self._local) from error
        values = span(reply["choices"][0].get("logprobs"), prompt, pair[1])
        if values is None:
            what = "the endpoint does not tell the log-probabilities of a prompt (echo with logprobs in /completions)"
            raise CardError(what, where=self.where, fix=self._local)
        return float(np.mean(values)) if values else math.nan

    def _body(self, ask: Ask, max_tokens: int, more: Mapping[str, Any]) -> dict[str, Any]:
        messages = [{"role": "system", "content": ask.system}] if ask.system else []
        begun = ask.answer if self.options.prefill == "user" else ""
        messages.append({"role": "user", "content": f"{ask.user}\n{begun}" if begun else ask.user})
        body: dict[str, Any] = {"messages": messages, self.options.length_field: max_tokens, **more}
        if ask.answer and not begun:
            messages.append({"role": "assistant", "content": ask.answer})
            if self.options.prefill == "continue":
                body |= {"add_generation_prompt": False, "continue_final_message": True}
        return self._with_common(body)

    def _with_common(self, body: dict[str, Any]) -> dict[str, Any]:
        whole = {"model": self.model, "temperature": 0, "seed": self.options.seed, **body, **self.options.extra}
        return {name: value for name, value in whole.items() if name not in self.options.omit}

    def _flat(self, ask: Ask) -> str:
        system = f"{ask.system}\n\n" if ask.system else ""
        return self.options.completion_layout.format(system=system, user=ask.user, answer=ask.answer)

    def _each(
        self, asks: Sequence[Ask], max_tokens: int, one: Callable[[Ask, threading.Event, Tokens], Result]
    ) -> list[Result]:
        return self._all(asks, [Tokens(_texts(ask), max_tokens) for ask in asks], one)

    def _all(
        self,
        items: Sequence[Any],
        held: Sequence[Tokens],
        one: Callable[[Any, threading.Event, Tokens], Result],
    ) -> list[Result]:
        """``one`` of each item, several at a time; the first that fails ends them all, and none is begun after it."""
        if not items:
            return []
        self.purse.hold(held)
        self._wire.ready()
        stop = threading.Event()
        first: list[BaseException] = []

        def guarded(item: Any, tokens: Tokens) -> Result | None:
            if stop.is_set():
                self.purse.free(tokens)
                return None
            try:
                return one(item, stop, tokens)
            except BaseException as error:
                first.append(error)
                stop.set()
                return None

        with ThreadPoolExecutor(min(self.options.concurrency, len(items))) as pool:
            try:
                results = list(pool.map(guarded, items, held))
            except BaseException:  # interrupted: those that wait are not begun
                stop.set()
                raise
        if first:
            raise first[0]
        return results  # type: ignore[return-value]  # None stands for a failure alone

    def _no_logprobs(self) -> CardError:
        fix = (
            "start the server with log-probabilities, or read its text instead: without_logprobs = 'text' in the "
            "card's options (and scale = 'probability' for a yes/no question)"
        )
        return CardError(f"the endpoint at {self.options.url} tells no log-probabilities", where=self.where, fix=fix)

    @property
    def _local(self) -> str:
        return "use kind = 'query_likelihood' with a local model, or a server that does it, such as vLLM"


def _texts(ask: Ask) -> tuple[str, ...]:
    return tuple(text for text in (ask.system, ask.user, ask.answer) if text)
