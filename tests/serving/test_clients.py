"""The clients that people have, unchanged, against a real server on loopback; each held to sentence-transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from live import http

TEXTS = ["rain and wind", "a cat", "stock market bond " * 9, "", "sun\nand “cloud” 日本"]
QUERY, DOCS = "rain cloud", ["a cat and a dog", "wind", "rain rain cloud", "bond"]
KEY = "not-looked-at"


@pytest.fixture(scope="module")
def vectors(tiny_bert):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(tiny_bert, device="cpu").encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def scores(tiny_cross):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(tiny_cross), device="cpu").predict([(QUERY, doc) for doc in DOCS])


def near(found, wanted):
    np.testing.assert_allclose(np.asarray(found, np.float32), wanted, atol=2e-5)


def test_openai_gets_the_librarys_vectors_in_both_formats(url, vectors):
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=KEY)
    for how in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        found = client.embeddings.create(model="text-embedding-3-small", input=TEXTS, **how)
        if how.get("encoding_format") == "base64":
            continue  # asked for by name, the client hands the text through
        near([row.embedding for row in found.data], vectors)
        assert [row.index for row in found.data] == list(range(len(TEXTS)))
    assert found.usage.prompt_tokens == found.usage.total_tokens > len(TEXTS)
    short = client.embeddings.create(model="", input=TEXTS[0], dimensions=4).data[0].embedding
    near(short, vectors[0, :4] / np.linalg.norm(vectors[0, :4]))
    assert [model.id for model in client.models.list()] == ["model"]


def test_openai_is_told_why_token_ids_are_not_taken(url):
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    for given in ([1, 2, 3], [[1, 2], [3]]):
        with pytest.raises(BadRequestError, match="send texts") as caught:
            client.embeddings.create(model="m", input=given)
        assert caught.value.param == "input"
    with pytest.raises(BadRequestError, match="vectors have 16"):
        client.embeddings.create(model="m", input="rain", dimensions=17)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere_gets_the_librarys_order_and_probabilities(rerank_url, scores, version):
    cohere = pytest.importorskip("cohere", reason="cohere is not installed")
    client = getattr(cohere, version)(api_key=KEY, base_url=rerank_url)
    found = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCS, top_n=3)
    assert [row.index for row in found.results] == list(np.argsort(-scores)[:3])
    near([row.relevance_score for row in found.results], np.sort(scores)[::-1][:3])


def test_cohere_is_told_what_is_wrong_in_its_own_form(rerank_url):
    cohere = pytest.importorskip("cohere", reason="cohere is not installed")
    client = cohere.ClientV2(api_key=KEY, base_url=rerank_url)
    with pytest.raises(cohere.BadRequestError) as caught:
        client.rerank(model="m", query=QUERY, documents=[])
    assert caught.value.body["message"].startswith("documents")


def test_jina_gets_documents_that_are_objects_and_their_texts_back(rerank_url):

    body = {"query": QUERY, "documents": [{"text": doc, "more": 1} for doc in DOCS], "return_documents": True}
    found = http.post(f"{rerank_url}/v1/rerank", json=body).json()
    assert {row["document"]["text"] for row in found["results"]} == set(DOCS)
    assert found["usage"]["total_tokens"] > 0
    assert "detail" in http.post(f"{rerank_url}/v1/rerank", json={"query": QUERY}).json()


def test_langchain_embeds_queries_and_documents(url, vectors):
    module = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    client = module.OpenAIEmbeddings(base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False)
    near(client.embed_documents(TEXTS), vectors)
    near(client.embed_query(TEXTS[0]), vectors[0])


CLIENTS = Path(__file__).resolve().parents[2] / ".venv-clients/bin/python"
"""An environment for clients that want older libraries than the server: ``make install-clients``."""


def langchain(job, url, **given):
    """What ``langchain_client.py`` answers from its own environment."""
    if not CLIENTS.exists():
        pytest.skip("no .venv-clients: run 'make install-clients'")
    command = [str(CLIENTS), str(Path(__file__).with_name("langchain_client.py")), job, url]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_langchain_reranks_through_cohere(rerank_url, scores):
    found = langchain("rerank", rerank_url, query=QUERY, documents=DOCS, top_n=3)
    assert [row["index"] for row in found] == list(np.argsort(-scores)[:3])
    near([row["relevance_score"] for row in found], np.sort(scores)[::-1][:3])


def test_langchain_compresses_documents_through_cohere(rerank_url, scores):
    found = langchain("compress", rerank_url, query=QUERY, documents=DOCS, top_n=2)
    assert [row["text"] for row in found] == [DOCS[at] for at in np.argsort(-scores)[:2]]


def test_llama_index_reranks_through_text_embeddings_inference(rerank_url, scores):
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank", reason="llama-index's TEI rerank is missing")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=doc), score=0.0) for doc in DOCS]
    found = module.TextEmbeddingInference(base_url=rerank_url, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.text for node in found] == [DOCS[at] for at in np.argsort(-scores)[:2]]
    near([node.score for node in found], np.sort(scores)[::-1][:2])


def test_llama_index_embeds_as_from_openai(url, vectors):
    module = pytest.importorskip("llama_index.embeddings.openai_like", reason="llama-index's OpenAILike is missing")
    client = module.OpenAILikeEmbedding(model_name="student", api_base=f"{url}/v1", api_key=KEY, reuse_client=False)
    texts = [text for text in TEXTS if text]
    near(client.get_text_embedding_batch(texts), vectors[[bool(text) for text in TEXTS]])


def test_huggingface_hub_embeds_through_text_embeddings_inference(url, vectors, monkeypatch):
    from huggingface_hub import InferenceClient, constants

    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)  # the tests' own switch blocks loopback as well

    for address in (url, f"{url}/embed"):
        near(InferenceClient(address).feature_extraction(TEXTS[0])[0], vectors[0])
    near(InferenceClient(url).feature_extraction(TEXTS[1], normalize=True, truncate=True)[0], vectors[1])


def test_curl_asks_text_embeddings_inference(url, rerank_url, vectors, scores):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    def curl(path, body=None):
        more = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = subprocess.run(["curl", "-sS", path, *more], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    near(curl(f"{url}/embed", {"inputs": TEXTS}), vectors)
    found = curl(f"{rerank_url}/rerank", {"query": QUERY, "texts": DOCS, "raw_scores": True, "return_text": True})
    assert [row["text"] for row in found] == [DOCS[at] for at in np.argsort(-scores)]
    near([1 / (1 + np.exp(-row["score"])) for row in found], np.sort(scores)[::-1])
    assert curl(f"{rerank_url}/info")["model_type"].keys() == {"reranker"}
    assert curl(f"{url}/info")["max_input_length"] == 64
    assert curl(f"{url}/embed", {"inputs": []})["error_type"] == "Validation"


def test_a_bi_encoder_reranks_by_similarity(url, tiny_bert):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_bert, device="cpu")
    wanted = model.similarity(model.encode([QUERY]), model.encode(DOCS))[0].numpy()
    found = http.post(f"{url}/v2/rerank", json={"query": QUERY, "documents": DOCS}).json()["results"]
    near([row["relevance_score"] for row in found], np.sort(wanted)[::-1])


def test_a_cross_encoder_says_that_it_makes_no_vectors(rerank_url):

    told = http.post(f"{rerank_url}/v1/embeddings", json={"input": "rain"})
    assert told.status_code == 400
    assert "cross-encoder" in told.json()["error"]["message"]
