"""What clients do wrong, or to harm: each gets one clear error, and nobody else notices."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from live import Slow, http, scorer, serving, wait_for

from rerankdistill.serving.batcher import Batcher
from rerankdistill.serving.engine import Engine

PATHS = ("/v1/embeddings", "/v1/rerank", "/v2/rerank", "/embed", "/rerank", "/")


def connect(url):
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def post(url, path, body, **headers):
    return http.post(f"{url}{path}", content=body, headers={"Content-Type": "application/json", **headers})


def message(told):
    """The text of an error, whichever interface tells it."""
    body = told.json()
    return body["message"] if "message" in body else body["error"] if "error_type" in body else body["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"NaN", b'"\xff\xfe"', b'{"input": "\xc3\x28"}', b"[" * 100_000, b"{}",
        b'{"input": NaN, "inputs": NaN, "query": NaN, "texts": NaN, "documents": NaN}',
        b'{"input": [], "inputs": [], "query": "a", "texts": [], "documents": []}',
        b'{"input": ["a", 1], "inputs": [null], "query": "a", "texts": [[]], "documents": [{"texts": "a"}]}',
        b'{"input": "\\ud800", "inputs": "\\ud800", "query": "\\ud800", "texts": ["a"], "documents": ["\\udfff"]}',
        b'{"input": "a", "dimensions": NaN, "inputs": "a", "query": "a", "texts": ["a"], "raw_scores": NaN,'
        b' "documents": ["a"], "top_n": NaN}',
    ],
)  # fmt: skip
def test_a_body_that_makes_no_sense_is_one_clear_error(url, path, body):
    told = post(url, path, body)
    if told.status_code == 200:
        assert (path in ("/embed", "/"), b"raw_scores" in body) == (True, True), "it has what they need"
        return
    assert told.status_code == (422 if path in ("/embed", "/rerank", "/") else 400), told.text
    assert 0 < len(message(told)) <= 300
    assert "Traceback" not in told.text


def test_an_error_does_not_repeat_what_was_sent(url):
    told = post(url, "/v1/embeddings", b'{"input": {"secret words": 1}, "encoding_format": "secret words"}')
    assert told.status_code == 400
    assert "secret" not in told.text


def test_a_wrong_path_or_method_is_no_failure(url):
    assert http.get(f"{url}/nowhere").status_code == 404
    assert http.get(f"{url}/v1/embeddings").json()["error"]["type"] == "invalid_request_error"


def test_more_or_longer_texts_than_allowed_are_refused(tiny_bert):
    with serving(Path(tiny_bert), max_texts=3, max_chars=50) as url:
        for body in ({"input": ["a"] * 4}, {"input": "a" * 51}):
            told = http.post(f"{url}/v1/embeddings", json=body)
            assert told.status_code == 413
            assert told.json()["error"]["param"] == "input"
        assert http.post(f"{url}/embed", json={"inputs": ["a"] * 3}).status_code == 200


def test_a_hundred_megabytes_are_not_read(url):
    told = http.post(f"{url}/embed", content=(b"x" * 1_000_000 for _ in range(100)))
    assert told.status_code == 413
    with connect(url) as raw:  # one that says so is not even begun
        raw.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n")
        assert b" 413 " in raw.recv(4096)
    assert post(url, "/embed", b'{"inputs": "a"}').status_code == 200


def test_a_slow_loris_loses_its_connection(tiny_bert):
    with serving(Path(tiny_bert), header_seconds=0.5, body_seconds=0.5) as url:
        head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
        with connect(url) as silent, connect(url) as dripping, connect(url) as bodiless:
            dripping.sendall(head)
            bodiless.sendall(head + b'\r\n{"inp')
            began = time.monotonic()
            assert b" 408 " in bodiless.recv(4096)
            assert gone(silent)
            assert gone(dripping)
            assert time.monotonic() - began < 10
        with connect(url) as endless, pytest.raises(ConnectionError):
            send_headers_without_end(endless)
        assert post(url, "/embed", b'{"inputs": "a"}').status_code == 200


def send_headers_without_end(connection):
    connection.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(1000):
        connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
        time.sleep(0.001)


def gone(connection):
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


def test_what_is_no_http_is_turned_away(url):
    for noise in (b"\x00\xff" * 100 + b"\r\n\r\n", b"GET /\xff\xfe?q=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with connect(url) as raw:
            raw.sendall(noise)
            assert raw.recv(4096).split(b" ")[1] in (b"400", b"404", b"405")


def answers(connection, count):
    found = b""
    while found.count(b"[[1.0,1.0]]") < count:
        more = connection.recv(1 << 16)
        assert more, found
        found += more
    return found


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_ten_thousand_tiny_requests_are_all_answered(tokenizer, count):
    model = Slow(tokenizer)
    with serving(Path(), model.engine(), max_requests=64) as url:
        head = (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
        )

        def ask(own):
            """Requests one after the other without waiting for answers, as HTTP allows."""
            found = b""
            with connect(url) as raw:
                for _ in range(own // 25):
                    raw.sendall((head + b'{"inputs":"a"}') * 25)
                    found += answers(raw, 25)
            return found.count(b"[[1.0,1.0]]")

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, [count // 8] * 8)) == count
        assert sum(model.batches) == count


def test_a_full_queue_is_told_at_once_with_when_to_come_back(tokenizer):
    model = Slow(tokenizer, 0.3)
    with serving(Path(), model.engine(max_queue=8, batch_tokens=4)) as url, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(http.post, f"{url}/embed", json={"inputs": ["a"] * 4}, timeout=60) for _ in range(12)]
        told = [each.result() for each in asked]
    refused = [each for each in told if each.status_code == 429]
    assert refused
    assert {each.status_code for each in told} == {200, 429}
    assert all(int(each.headers["Retry-After"]) >= 1 for each in refused)
    assert refused[0].json()["error_type"] == "Overloaded"


def test_too_many_requests_at_once_are_told_so_and_health_is_not(tokenizer):
    model = Slow(tokenizer, 0.5)
    with serving(Path(), model.engine(), max_requests=1) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, "/embed", b'{"inputs": "a"}')
        wait_for(lambda: model.batches)
        assert post(url, "/embed", b'{"inputs": "a"}').status_code == 429
        assert http.get(f"{url}/healthz").status_code == 200
        assert first.result().status_code == 200


def test_a_request_that_waits_too_long_is_let_go(tokenizer):
    model = Slow(tokenizer, 0.4)
    engine = model.engine(batch_tokens=4)
    with serving(Path(), engine, request_seconds=0.2) as url:
        told = post(url, "/v1/embeddings", b'{"input": ["a", "b", "c", "d", "e", "f"]}')
        assert told.status_code == 503
        assert "Retry-After" in told.headers
        wait_for(lambda: engine.batcher.waiting == 0, 1)  # encoding them would take two seconds


def test_the_texts_of_a_client_that_left_are_not_encoded(tokenizer):
    model = Slow(tokenizer, 0.2)
    engine = model.engine(batch_tokens=4)
    with serving(Path(), engine) as url:
        body = b'{"inputs": [' + b",".join([b'"a"'] * 100) + b"]}"
        with connect(url) as raw:
            head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            raw.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: model.batches)
        wait_for(lambda: engine.batcher.waiting == 0, 5)
        assert post(url, "/embed", b'{"inputs": "a"}').status_code == 200
        assert len(model.batches) < 20


def test_one_with_a_thousand_texts_does_not_keep_a_single_one_waiting(tokenizer):
    model = Slow(tokenizer, 0.02)
    with serving(Path(), model.engine(batch_tokens=30)) as url, ThreadPoolExecutor(1) as pool:
        large = pool.submit(http.post, f"{url}/embed", json={"inputs": ["a"] * 1000}, timeout=60)
        wait_for(lambda: len(model.batches) > 2)
        assert post(url, "/embed", b'{"inputs": "a"}').status_code == 200
        assert not large.done()
        assert len(large.result().json()) == 1000


def test_texts_of_several_requests_share_a_batch(tokenizer):
    model = Slow(tokenizer, 0.1)
    with serving(Path(), model.engine()) as url, ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda _: post(url, "/embed", b'{"inputs": "a"}'), range(32)))
    assert {each.status_code for each in told} == {200}
    assert len(model.batches) <= 16


def test_a_model_that_fails_is_an_error_and_not_the_end(tokenizer, caplog):
    model = Slow(tokenizer)
    with serving(Path(), model.engine()) as url:
        model.says = "no number"
        told = post(url, "/v1/embeddings", b'{"input": "secret words"}')
        assert told.status_code == 500
        assert told.json()["error"]["message"] == "the server failed; its log says how"
        model.says = 2.0
        assert post(url, "/v1/embeddings", b'{"input": "a"}').status_code == 200
    assert "secret" not in caplog.text


def test_large_logits_keep_their_order(tokenizer):
    logits = {"a": 40.0, "b": 30.0, "c": 35.0, "d": -800.0}
    engine = Engine(scorer(tokenizer, logits), Batcher(4096, 100))
    with serving(Path(), engine) as url:
        found = http.post(f"{url}/v2/rerank", json={"query": "a", "documents": ["a", "b", "c", "d"]}).json()["results"]
    assert [row["index"] for row in found] == [0, 2, 1, 3]
    assert all(0 <= row["relevance_score"] <= 1 for row in found)


def test_many_threads_of_clients_get_their_own_vectors(url, tiny_bert):
    from sentence_transformers import SentenceTransformer

    words = ["rain", "sun", "cloud", "wind", "cat", "dog", "bird", "fish"]
    texts = [" ".join([*words[: 1 + at % 8], words[at // 8]]) for at in range(64)]
    wanted = SentenceTransformer(tiny_bert, device="cpu").encode(texts, normalize_embeddings=True)
    barrier = threading.Barrier(8)

    def ask(start):
        barrier.wait()
        return [http.post(f"{url}/embed", json={"inputs": texts[at]}).json()[0] for at in range(start, 64, 8)]

    with ThreadPoolExecutor(8) as pool:
        for start, found in enumerate(pool.map(ask, range(8))):
            np.testing.assert_allclose(found, wanted[start::8], atol=2e-5)
