"""``serve``: a student behind the interfaces that clients already speak."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

Work = Annotated[Path, typer.Argument(help="The --out of train or adapt, or a student's folder.")]
Student = Annotated[str, typer.Option(help="Which student, where there are several.")]
Collection = Annotated[str, typer.Option(help="What is searched; default: what the folder says.")]
Host = Annotated[str, typer.Option(help="Address to listen on; others than the loopback need API keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with its own copy of the model.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of each worker; 0: its share of the cores.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
KeyFile = Annotated[Path | None, typer.Option(help="API keys, one a line; or in RERANKDISTILL_API_KEYS.")]
Open = Annotated[bool, typer.Option("--no-keys", help="Answer the whole network without keys.")]
Cors = Annotated[list[str] | None, typer.Option(help="An origin whose pages may ask; as often as needed.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A limit: max_texts=100; as often as needed.")]

NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client", "orjson")


def serve(
    work: Work,
    student: Student = "",
    collection: Collection = "",
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Workers = 1,
    threads: Threads = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    key_file: KeyFile = None,
    no_keys: Open = False,
    cors: Cors = None,
    set_: Set = None,
) -> None:
    """Serve a student over HTTP.

    OpenAI's embeddings, Cohere's and Jina's re-ranking, and Hugging Face's text-embeddings-inference; /docs has all.
    A pipeline's folder with indexes is searched as well: /page, and /search.
    """
    from rerankdistill.cards import parse
    from rerankdistill.errors import MissingDependency, UsageError

    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"serve needs the Python package {package!r}", fix="pip install 'rerankdistill[serve]'"
            )
    from rerankdistill.serving.run import serve as run
    from rerankdistill.serving.settings import Settings

    table: dict[str, object] = {
        "place": str(work),
        "student": student,
        "collection": collection,
        "host": host,
        "port": port,
        "workers": workers,
    }
    table |= {"threads": threads, "device": device, "dtype": dtype, "cors": tuple(cors or ())}
    table |= {"key_file": str(key_file)} if key_file else {}
    settings = parse(Settings, table | dict(map(_limit, set_ or ())), "serve")
    if not settings.on_loopback and not no_keys and not settings.keys():
        fix = "give --key-file or RERANKDISTILL_API_KEYS; or --no-keys where something else guards the server"
        raise UsageError(f"without API keys the server listens on the loopback alone, not on {host}", fix=fix)
    run(settings)


def _limit(text: str) -> tuple[str, object]:
    import json

    name, equals, value = text.partition("=")
    try:
        return name.strip(), json.loads(value) if equals else None
    except ValueError:
        return name.strip(), value
