"""``export``: a student in the form of another library, checked before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rerankdistill.pipeline.export import Tried

Student = Annotated[Path, typer.Argument(help="A student's folder, as work/students/small-seed1.")]
To = Annotated[list[str] | None, typer.Option("--to", help="onnx, onnx-int8, onnx-fp16, openvino; as often as needed.")]
On = Annotated[str, typer.Option(help="Whose texts decide; default: the work folder's own.")]
Texts = Annotated[int, typer.Option(min=16, help="Documents that are compared.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads that speeds are measured with; 0: every core.")]


def export(student: Student, to: To = None, collection: On = "", texts: Texts = 256, threads: Threads = 0) -> None:
    """Write a student as ONNX or OpenVINO, faster to serve.

    Each form is held against the student in torch on the collection's texts and judged queries, and refused where it
    loses too much. What is accepted lies beside the student, and 'rerankdistill serve' takes the fastest.
    """
    from rerankdistill.cli.progress import Terminal, wide_console
    from rerankdistill.collections.work import recall
    from rerankdistill.errors import ExpectationNotMet, UsageError
    from rerankdistill.pipeline.export import export as write
    from rerankdistill.students.export import FORMS, Form

    wanted: list[Form] = [form for form in FORMS if form in (to or ("onnx", "onnx-int8"))]
    if unknown := set(to or ()) - set(FORMS):
        raise UsageError(f"no form is called {', '.join(sorted(unknown))}", where="--to", fix=", ".join(FORMS))
    work = recall(student.resolve().parent.parent, collection)
    tried = write(student, wanted, work, texts, threads, Terminal())
    wide_console().print(_table(tried))
    refused = [one for one in tried if one.why]
    if refused:
        told = "; ".join(f"{one.form}: {one.why}" for one in refused)
        raise ExpectationNotMet(f"refused, and not written: {told}", where=str(student), fix="serve another form")


def _table(tried: list[Tried]) -> object:
    from rich.table import Table

    table = Table(title="exported", title_justify="left")
    for head in ("form", "how", "cosine", "least", "off", "nDCG@10", "lost", "texts/s", "torch", "MB", ""):
        table.add_column(head, justify="left" if head in ("form", "how", "") else "right")
    for one in tried:
        figures = one.figures
        cells = [
            f"{figures[name]:{width}}" if name in figures else "–"
            for name, width in (
                ("cosine", ".5f"), ("least cosine", ".5f"), ("off", ".4f"), ("ndcg@10", ".4f"),
                ("ndcg@10 lost", "+.4f"), ("texts_per_second", ",.1f"), ("torch_texts_per_second", ",.1f"),
            )
        ]  # fmt: skip
        size = f"{figures['bytes'] / 1e6:,.1f}"
        table.add_row(one.form, one.recipe, *cells, size, "refused" if one.why else "accepted")
    return table
