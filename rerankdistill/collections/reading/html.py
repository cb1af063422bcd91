"""HTML, by lxml: what a reader of the page would read; scripts, styles and navigation are not it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rerankdistill.collections.reading.parts import Section, Unreadable, headed, squeezed

SKIPPED = {
    "script", "style", "noscript", "template", "svg", "nav", "footer", "form", "button", "select", "iframe", "object",
    "head", "aside", "math", "canvas",
}  # fmt: skip
BLOCKS = {
    "p", "div", "li", "dt", "dd", "td", "th", "tr", "table", "ul", "ol", "dl", "section", "article", "main", "header",
    "blockquote", "pre", "figure", "figcaption", "br", "hr", "body", "details", "summary",
}  # fmt: skip
HEADINGS = {f"h{level}": level for level in range(1, 7)}
NAVIGATION = {"navigation", "search", "banner", "contentinfo"}
SIGNS = "¶§#🔗\uf0c1"
"""What documentation generators put behind a heading as a link to it."""


def read(text: str) -> Iterator[Section]:
    """The sections of a page.

    Raises:
        Unreadable: nothing in it is HTML.
    """
    root = _parse(text)
    found = root.find(".//title")
    title = squeezed("".join(found.itertext())) if found is not None else ""
    path: list[str] = []
    paragraphs: list[str] = []
    words: list[str] = []

    def end_paragraph() -> None:
        line = squeezed("".join(words))
        words.clear()
        if line:
            paragraphs.append(line)

    for kind, piece in _pieces(root):
        if kind == "text":
            words.append(piece)
        elif kind == "block":
            end_paragraph()
        else:
            end_paragraph()
            if paragraphs:
                yield Section(headed(path) or title, "\n\n".join(paragraphs))
                paragraphs.clear()
            depth = HEADINGS[kind] - 1
            path = [*path[:depth], *[""] * (depth - len(path)), squeezed(piece).rstrip(SIGNS).strip()]
    end_paragraph()
    if paragraphs:
        yield Section(headed(path) or title, "\n\n".join(paragraphs))


def _parse(text: str) -> Any:
    from lxml import etree
    from lxml import html as lxml_html

    # The encoding is known already, and a declaration of another one makes lxml refuse a str.
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable("it holds no HTML") from error
    if root is None:
        raise Unreadable("it holds no HTML")
    return root


def _pieces(root: Any) -> Iterator[tuple[str, str]]:
    """``("text", words)``, ``("block", "")`` and ``("h2", heading)`` in reading order. A walk without recursion: nested
    as deep as you like, a page costs no stack."""
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, leaving = stack.pop()
        tag = node.tag if isinstance(node.tag, str) else ""
        skipped = tag in SKIPPED or node.get("role") in NAVIGATION or node.get("hidden") is not None
        if leaving or skipped or tag in HEADINGS:
            if not leaving and tag in HEADINGS and not skipped:
                yield tag, "".join(node.itertext())
            if tag in BLOCKS:
                yield "block", ""
            if node.tail and node is not root:
                yield "text", node.tail
            continue
        if tag in BLOCKS:
            yield "block", ""
        if node.text and tag:
            yield "text", node.text
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node))
