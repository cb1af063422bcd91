"""The words in which a language model is asked about one document: shipped templates, and those of a card.

A prompt is a few texts with the places ``{query}``, ``{doc}`` and ``{instruction}``. Whichever of query and document
comes first in the user's message belongs to the part that many questions share, so the order of the two decides what is
computed once: instruction and query for all candidates, or instruction and passage for all queries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from rerankdistill.cards import Card
from rerankdistill.errors import CardError
from rerankdistill.scores.llm.model import Ask

PLACE = re.compile(r"\{([a-z_]+)\}")
CONTROL = "<|"
PLACES = ("query", "doc", "instruction")
ALIASES = {"passage": "doc", "document": "doc", "text": "doc", "question": "query", "instruct": "instruction"}

PAIR = frozenset({"query", "doc"})
"""The places of a prompt that shows query and document."""


class PromptTexts(Card):
    """Texts of a card that stand in place of its template's; what is left out is the template's.

    Attributes:
        system: the system's message; may hold ``{instruction}``.
        user: the user's message, with ``{query}`` and ``{doc}`` (only ``{doc}`` where the query's likelihood is read).
        answer: how the model's answer begins, up to the token that is read. End a prompt that wants a word after
            ``Answer:`` here and not in ``user``, for with a chat template the model's turn begins in between.
        close: what ends the model's thinking; the verdict follows it. Only ``reasoning`` reads it.
        instruction: what ``{instruction}`` stands for.
        written_out: the texts hold the control tokens of the model's chat format themselves, or the model knows none:
            they are read as they are, which asks for ``chat_template = "none"``.
    """

    system: str | None = None
    user: str | None = None
    answer: str | None = None
    close: str | None = None
    instruction: str | None = None
    written_out: bool | None = None


class Prompt(Card):
    """A whole prompt; its fields are explained at :class:`PromptTexts`."""

    system: str = ""
    user: str
    answer: str = ""
    close: str = ""
    instruction: str = ""
    written_out: bool = False

    def ask(self, query: str, doc: str) -> Ask:
        """The question about these two texts, which may hold anything, braces included.

        Control tokens spelled out in them are broken by a space where the prompt holds such tokens itself: they would
        end the message.
        """
        if self.written_out and CONTROL in self.user:
            query, doc = (text.replace(CONTROL, " ".join(CONTROL)) for text in (query, doc))
        values = {"query": query, "doc": doc, "instruction": self.instruction}
        pieces = PLACE.split(self.user)
        names = [name for name in pieces[1::2] if name in PAIR]
        cut = next((n for n in range(1, len(pieces), 2) if pieces[n] in PAIR and pieces[n] != names[0]), len(pieces))
        filled = [values[piece] if n % 2 else piece for n, piece in enumerate(pieces)]
        shared, own = "".join(filled[:cut]), "".join(filled[cut:])
        if own:  # a tokenizer joins a space to the word behind it: it must not be left on the other side of the cut
            kept = shared.rstrip(" ")
            shared, own = kept, shared[len(kept) :] + own
        return Ask(shared, own, _fill(self.answer, values), _fill(self.system, values))


def _fill(text: str, values: Mapping[str, str]) -> str:
    return PLACE.sub(lambda found: values[found[1]], text)


def resolve(template: str, texts: PromptTexts, where: str, shows: frozenset[str] = PAIR) -> Prompt:
    """The template of this name with a card's own texts in it.

    Args:
        shows: which of ``query`` and ``doc`` the user's message must hold; the other it must not.

    Raises:
        CardError: no such template, or a text with an unknown or missing place; all mistakes at once.
    """
    if template not in TEMPLATES:
        near = get_close_matches(template, TEMPLATES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(TEMPLATES)}"
        fix = f"{hint}; your own texts go into [options.prompt]"
        raise CardError(f"no prompt template is called {template!r}", where=where, fix=fix)
    prompt = TEMPLATES[template].model_copy(update=texts.model_dump(exclude_none=True))
    mistakes = [*_unknown(prompt), *_misplaced(prompt, shows)]
    if mistakes:
        what = "the prompt cannot be filled in\n" + "\n".join(f"  - {mistake}" for mistake in mistakes)
        raise CardError(what, where=where, fix="correct [options.prompt], or choose another template")
    return prompt


def _unknown(prompt: Prompt) -> list[str]:
    found = []
    for field in ("system", "user", "answer"):
        for name in dict.fromkeys(PLACE.findall(getattr(prompt, field))):
            if name not in PLACES:
                near = ALIASES.get(name) or next(iter(get_close_matches(name, PLACES, 1)), None)
                hint = f"did you mean {{{near}}}?" if near else "there are {query}, {doc} and {instruction}"
                found.append(f"{field}: unknown place {{{name}}}; {hint}")
    return found


def _misplaced(prompt: Prompt, shows: frozenset[str]) -> list[str]:
    in_user = set(PLACE.findall(prompt.user))
    found = [f"user: {{{name}}} is missing" for name in sorted(shows - in_user)]
    found += [
        f"user: {{{name}}} must not be shown: its likelihood is read" for name in sorted((PAIR - shows) & in_user)
    ]
    for field in ("system", "answer"):
        names = sorted(PAIR & set(PLACE.findall(getattr(prompt, field))))
        found += [f"{field}: {{{name}}} belongs into user" for name in names]
    return found


def continued(answer: str, text: str) -> str:
    """``text`` as it goes on from ``answer``: behind a space, unless nothing or white space is before it."""
    return text if not answer or answer[-1].isspace() or text[:1].isspace() else f" {text}"


_QWEN3 = Prompt(
    system=(
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".'
    ),
    instruction="Given a web search query, retrieve relevant passages that answer the query",
    user="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {doc}",
    answer="<think>\n\n</think>\n\n",
)

TEMPLATES: Mapping[str, Prompt] = {
    "plain": Prompt(
        user=(
            "Does the passage help to answer the query? Reply with yes or no.\n\n"
            "Query: {query}\n\nPassage: {doc}\n\nReply with yes or no."
        )
    ),
    # The input that the Qwen3-Reranker models were trained with (arXiv 2506.05176 and their model cards).
    "qwen3-reranker": _QWEN3,
    # The same with its control tokens: for chat_template = "none", whatever template the model's folder carries.
    "qwen3-reranker-chatml": Prompt(
        instruction=_QWEN3.instruction,
        user=(
            f"<|im_start|>system\n{_QWEN3.system}<|im_end|>\n<|im_start|>user\n{_QWEN3.user}<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        answer=_QWEN3.answer,
        written_out=True,
    ),
    # Sachan et al., Improving Passage Retrieval with Zero-Shot Question Generation, arXiv 2204.07496.
    "upr": Prompt(user="Passage: {doc}\nPlease write a question based on this passage."),
    # The same for a model without a chat format, or with one that it follows badly.
    "upr-plain": Prompt(
        user="Passage: {doc}\nPlease write a question based on this passage.\n", answer="Question:", written_out=True
    ),
    "graded": Prompt(
        user=(
            "Grade how well a passage serves somebody who searches with a query.\n"
            "3: the passage is about the query and holds a full, exact answer\n"
            "2: the passage answers the query in part, or the answer is unclear or buried in other matter\n"
            "1: the passage is on the query's topic but does not answer it\n"
            "0: the passage has nothing to do with the query\n\n"
            "Query: {query}\n\nPassage: {doc}\n\nReply with the grade alone: 0, 1, 2 or 3."
        ),
        answer="Grade: ",
    ),
    # For a model that was trained to think between these marks (DeepSeek-R1, Qwen3 and what was made of them).
    # Where the chat template writes the opening mark itself, give [options.prompt] an empty answer.
    "reasoning": Prompt(
        user=(
            "Decide whether the passage is relevant to the query. After thinking, reply with true or false alone.\n\n"
            "Query: {query}\n\nPassage: {doc}"
        ),
        answer="<think>\n",
        close="\n</think>\n\n",
    ),
    # For any other model that follows instructions.
    "step-by-step": Prompt(
        user=(
            "Is the passage relevant to the query? First explain in two or three sentences what the query asks for and "
            "what the passage says. Then end with 'Verdict: true' or 'Verdict: false'.\n\n"
            "Query: {query}\n\nPassage: {doc}"
        ),
        close="\nVerdict:",
    ),
    # The input that the Rank1 models were trained with (Weller et al., arXiv 2502.18418, and their repository).
    "rank1": Prompt(
        user=(
            "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
            "Query: {query}\nPassage: {doc}\n"
        ),
        answer="<think>",
        close="</think>",
        written_out=True,
    ),
}
"""The shipped prompts by name."""
