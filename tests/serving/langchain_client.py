"""A program for the environment of :data:`test_clients.CLIENTS`: LangChain asks the server, JSON says what it heard.

python langchain_client.py rerank|compress URL < what-to-ask.json
"""

from __future__ import annotations

import json
import sys
from typing import Any


def client(url: str, top_n: int) -> Any:
    from langchain_cohere import CohereRerank

    return CohereRerank(cohere_api_key="not-looked-at", base_url=url, model="m", top_n=top_n)


def rerank(url: str, asked: dict[str, Any]) -> Any:
    return client(url, asked["top_n"]).rerank(asked["documents"], asked["query"])


def compress(url: str, asked: dict[str, Any]) -> Any:
    from langchain_core.documents import Document

    docs = [Document(page_content=text) for text in asked["documents"]]
    found = client(url, asked["top_n"]).compress_documents(docs, asked["query"])
    return [{"text": each.page_content, "score": each.metadata["relevance_score"]} for each in found]


if __name__ == "__main__":
    job = {"rerank": rerank, "compress": compress}[sys.argv[1]]
    sys.stdout.write(json.dumps(job(sys.argv[2], json.load(sys.stdin))))
