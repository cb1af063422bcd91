"""``judge``: a person says which documents answer which queries, those first that tell two systems apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rerankdistill.pipeline.judging import Session

Work = Annotated[Path, typer.Argument(help="The --out of train, eval or adapt.")]
One = Annotated[str, typer.Option(help="A run in WORK, or a TREC file; default: the trained student.")]
Other = Annotated[str, typer.Option(help="The run to tell it apart from; default: bm25.")]
Split = Annotated[str, typer.Option(help="Whose queries.")]
Collection = Annotated[str, typer.Option(help="The collection; default: what WORK says.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the answers; default: WORK/judgements.")]
Page = Annotated[bool, typer.Option("--page", help="Judge in the browser instead of here.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")]

ASKED = "y, n, or a grade from 0 to 3; s to skip, u to undo, q to stop: "
GRADES = {"y": 1, "n": 0, "0": 0, "1": 1, "2": 2, "3": 3, "s": None}
SHOWN = 1500
"""Letters of a document that are shown."""


def judge(
    work: Work,
    one: One = "",
    other: Other = "",
    split: Split = "test",
    collection: Collection = "",
    out: Out = None,
    page: Page = False,
    port: Port = 8090,
) -> None:
    """Judge documents yourself, where two systems disagree.

    Every answer is on the disk at once; stop whenever you like. The folder of answers is a collection: measure on it
    with 'adapt --evaluate FOLDER', or name it in a pipeline's 'evaluate'.
    """
    from rerankdistill.pipeline.judging import Session

    session = Session(work, one, other, split, out or work / "judgements", collection)
    print(f"{session.names[0]} or {session.names[1]}: {len(session.pairs):,} pairs tell them apart", file=sys.stderr)
    if page:
        _page(session, port)
    else:
        _terminal(session)
    print(session.verdict())
    print(f"answers: {session.out}", file=sys.stderr)


def _page(session: Session, port: int) -> None:
    try:
        from rerankdistill.serving.judging import serve
    except ImportError as error:
        from rerankdistill.errors import MissingDependency

        fix = "pip install 'rerankdistill[serve]'"
        raise MissingDependency(f"the page needs the Python package {error.name!r}", fix=fix) from error
    print(f"http://127.0.0.1:{port} (Ctrl-C to stop)", file=sys.stderr)
    serve(session, port)


def _terminal(session: Session) -> None:
    """Ask about one pair after the other until there is none, or the person has had enough."""
    while (pair := session.next()) is not None:
        shown = session.shown(pair)
        _show(shown)
        while True:
            print(ASKED, end="", flush=True, file=sys.stderr)
            line = sys.stdin.readline()
            said = line.strip().lower()
            if not line or said == "q":
                return
            if said == "u":
                if not session.undo():
                    print("there is nothing to undo", file=sys.stderr)
                break
            if said in GRADES:
                session.answer(pair.query_id, pair.doc_id, GRADES[said])
                break


def _show(shown: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.rule(f"{shown['done']} judged, {shown['left']} left")
    words = [word for word in shown["query"].lower().split() if len(word) > 3]
    console.print(Text(shown["query"], style="bold"))
    console.print()
    for part, style in ((shown["title"], "underline"), (shown["text"], "")):
        text = Text(part[:SHOWN] + ("…" if len(part) > SHOWN else ""), style=style)
        text.highlight_words(words, "cyan", case_sensitive=False)
        if part:
            console.print(text)
    console.print()
