"""The single steps: part of a pipeline's way, and what is done with runs that come from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rerankdistill.cli.walks import Out, Pipeline, Set


def _part(verb: str, what: str) -> Callable[..., None]:
    """A verb that walks a pipeline as far as one kind of product."""

    def command(pipeline: Pipeline = "default", out: Out = Path("work"), set_: Set = None) -> None:
        from rerankdistill.cli.progress import Terminal
        from rerankdistill.pipeline import verbs
        from rerankdistill.pipeline.card import load_pipeline

        for folder in verbs.part_way(load_pipeline(pipeline, tuple(set_ or ())), out, verb, Terminal()):
            print(folder)

    command.__name__, command.__doc__ = verb, what
    return command


index = _part("index", "Build the indexes that candidates are mined from.")
search = _part("search", "Search them with the training queries.")
candidates = _part("candidates", "Merge the runs into candidates.")
score = _part("score", "Have the teacher score the candidates.")
examples = _part("examples", "Put the teacher's scores together into training examples.")


def rerank(
    run: Annotated[Path, typer.Argument(help="A TREC run, plain or .gz.")],
    model: Annotated[str, typer.Option(help="The re-ranker: Hugging Face id or folder.")],
    collection: Annotated[str, typer.Option(help="The collection that the run is about.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the new run goes.")],
    split: str = "test",
    kind: Annotated[str, typer.Option(help="bi_encoder, cross_encoder, seq2seq or causal.")] = "bi_encoder",
    depth: Annotated[int, typer.Option(help="Documents a query that are re-ranked.")] = 100,
) -> None:
    """Re-rank a TREC run with a model of your own.

    A bi-encoder, a cross-encoder, a T5 or a language model, as it was trained here or elsewhere.
    """
    from rerankdistill.pipeline.verbs import rerank_run
    from rerankdistill.runs.trec import read_run, write_run

    write_run(out, rerank_run(read_run(run), model, kind, collection, split, depth))
    print(out)


def report(
    runs: Annotated[list[Path], typer.Argument(help="TREC runs, plain or .gz; the first is the baseline.")],
    qrels: Annotated[str, typer.Option(help="A qrels file, or a collection.")],
    split: Annotated[str, typer.Option(help="Which judgements of a collection.")] = "test",
    measures: Annotated[str, typer.Option(help="ranx's names, with commas.")] = "ndcg@10,mrr@10,map,recall@100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report in every format.")] = None,
) -> None:
    """Measure any TREC runs against judgements.

    Every other run is compared with the first one.
    """
    from rerankdistill.collections.load import load_collection
    from rerankdistill.errors import DataError
    from rerankdistill.evaluation.report import report_runs, to_json, write_report
    from rerankdistill.evaluation.table import to_table
    from rerankdistill.runs.trec import read_qrels, read_run

    stems = [_stem(path) for path in runs]
    named = {
        stem if stems.count(stem) == 1 else str(path): read_run(path) for stem, path in zip(stems, runs, strict=True)
    }
    file = Path(qrels)
    if file.is_file():
        judgements, about, split = list(read_qrels(file)), file.name, ""
    elif file.suffix in (".txt", ".tsv", ".gz", ".qrels"):
        raise DataError("no such qrels file", where=qrels)
    else:
        judgements, about = list(load_collection(qrels).judgements(split)), qrels
    found = report_runs(named, judgements, about, tuple(measures.split(",")), split=split)
    if out is not None:
        write_report(found, out)
    if as_json:
        print(json.dumps(to_json(found), indent=1, ensure_ascii=False))
        return
    from rerankdistill.cli.progress import wide_console

    wide_console().print(to_table(found))


def _stem(path: Path) -> str:
    """``bm25`` of ``runs/bm25.trec.gz``."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
