"""Endpoints that misbehave, and the key: every fault ends in one message, which says no secret."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from endpoint_asks import ASKS, connect, kept, run
from endpoint_servers import DROP, TRICKLE, log_odds
from score_fakes import make_groups

from rerankdistill.artifacts import read
from rerankdistill.cards import parse
from rerankdistill.errors import CardError, MissingDependency, RerankDistillError
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.wire import EndpointRefused, EndpointStopped

KEY = "sk-very-secret-4711"
GARBAGE = {
    "no json": b"<html><body>Bad Gateway</body></html>",
    "half": b'{"choices": [{"mess',
    "list": b"[]",
    "null": b"null",
    "no choices": b'{"error": "what?"}',
    "empty": b'{"choices": []}',
    "odd": b'{"choices": [17]}',
    "no message": b'{"choices": [{"index": 0}]}',
    "binary": bytes(range(128, 256)),
    "nothing": b"",
}


class Watched(httpx.Client):
    """Counts who uses it at the same time."""

    now = most = 0

    @contextmanager
    def stream(self, *arguments, **options):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            with super().stream(*arguments, **options) as response:
                yield response
        finally:
            self.now -= 1


pytestmark = pytest.mark.usefixtures("no_key")

# A server that misbehaves.


def test_a_busy_server_is_asked_again_when_it_says(server):
    server.misbehave = lambda number, body: (429, {"Retry-After": "1"}, b"slow down") if number == 1 else None
    model = connect(server)
    assert np.isfinite(model.choose(ASKS[:2], ["Yes", "No"])).all()
    assert server.at[1] - server.at[0] >= 1
    assert model.usage["retries"] == 1
    assert "unconfirmed_tokens" not in model.usage


@pytest.mark.parametrize("odd", [(503, {}, b""), (500, {}, b"oops"), (200, {}, b"<html>"), DROP], ids=str)
def test_a_fault_that_passes_costs_a_retry_and_nothing_else(server, odd):
    server.misbehave = lambda number, body: odd if number % 3 == 0 else None
    found = connect(server, retries=8).choose(ASKS, ["Yes", "No"])
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx([log_odds(ask.user) for ask in ASKS], abs=1e-4)


def test_429_for_ever_ends_in_one_message_after_the_retries(server):
    server.misbehave = lambda number, body: (429, {}, b'{"error": "rate limit"}')
    with pytest.raises(EndpointStopped, match=r"429.*rate limit.*3 times in a row") as error:
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 3, "the others are not begun"
    assert "run again" in error.value.fix


def test_a_server_that_wants_hours_is_not_waited_for(server):
    server.misbehave = lambda number, body: (429, {"Retry-After": "7200"}, b"quota")
    with pytest.raises(EndpointStopped, match="7200 s"):
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 1


def test_no_two_requests_share_a_client_whose_connections_one_would_close_for_the_other(server, monkeypatch):
    made: list[Watched] = []
    monkeypatch.setattr(httpx, "Client", lambda **options: made.append(Watched(**options)) or made[-1])
    server.misbehave = lambda number, body: time.sleep(0.02)
    model = connect(server, concurrency=4)
    for _ in range(3):
        model.choose(ASKS, ["Yes", "No"])
    assert 1 < len(made) <= 4, "several at a time, each kept for the next batch"
    assert max(each.most for each in made) == 1
    model.close()
    assert all(each.is_closed for each in made)


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_in_one_message(server, content):
    server.misbehave = lambda number, body: (200, {}, content)
    with pytest.raises(EndpointStopped, match="answers"):
        connect(server, retries=1).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 2


def test_a_slow_server_ends_in_one_message_also_one_that_trickles(server):
    server.pause = 1.0
    with pytest.raises(EndpointStopped, match=r"no answer within 0.2 s, 2 times"):
        connect(server, timeout=0.2, retries=1).choose(ASKS[:1], ["Yes", "No"])
    server.pause, server.misbehave = 0.0, lambda number, body: TRICKLE
    began = time.monotonic()
    with pytest.raises(EndpointStopped, match=r"no answer within 0.2 s"):
        connect(server, timeout=0.2, retries=0).choose(ASKS[:1], ["Yes", "No"])
    assert time.monotonic() - began < 2


def test_no_server_at_all_is_said_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        model = ChatEndpoint("m", EndpointOptions(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1", backoff=0.01))
        with pytest.raises(EndpointStopped, match="cannot be reached"):
            model.write(ASKS, 2)


@pytest.mark.parametrize("dies", [21, 22, 24, 29])
def test_what_was_scored_before_an_endpoint_dies_is_kept_and_never_asked_for_again(server, tmp_path, dies):
    server.misbehave = lambda number, body: DROP if number >= dies else None
    groups = make_groups(4, 10)
    with pytest.raises(EndpointStopped, match="breaks off"):
        run(tmp_path, connect(server), groups)
    stored = len(kept(tmp_path))
    assert stored == (dies - 1) // 8 * 8
    server.requests.clear()
    server.misbehave = lambda number, body: None
    run(tmp_path, connect(server), groups)
    assert len(server.requests) == 40 - stored
    found = np.concatenate(kept(tmp_path).lookup(groups))
    wanted = [log_odds(f"{group.query.text}\n{text}") for group in groups for text in group.texts]
    assert found.tolist() == pytest.approx(wanted, abs=1e-4)


def test_a_wrong_request_is_not_repeated_and_the_server_is_quoted(server):
    server.misbehave = lambda number, body: (400, {}, b'{"error": "context of 512 tokens"}')
    with pytest.raises(EndpointRefused, match="context of 512 tokens"):
        connect(server).choose(ASKS, ["Yes", "No"])
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed(server):
    server.misbehave = lambda number, body: (307, {"Location": "http://192.0.2.1/v1"}, b"")
    with pytest.raises(CardError, match=r"redirects to http://192\.0\.2\.1"):
        connect(server).choose(ASKS, ["Yes", "No"])


# The key.


def test_the_key_is_sent_and_shows_nowhere_else(server, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    model = connect(server, key_env="MY_KEY")
    without = connect(server)
    assert model.fingerprint == without.fingerprint
    folder = run(tmp_path, model, make_groups(2, 5))
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in caplog.text
    assert read(folder, "scores").counts["usage"]["requests"] == 10
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("status", [200, 307, 400, 401, 429, 500])
def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(server, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.misbehave = lambda number, body: (status, {"Location": f"/{KEY}"}, f"wrong key {KEY}".encode())
    with pytest.raises(RerankDistillError) as error:
        connect(server, retries=0).choose(ASKS[:1], ["Yes", "No"])
    assert KEY not in str(error.value)
    assert KEY not in repr(error.value.__cause__)


def test_a_missing_key_is_named_by_its_variable(server):
    server.misbehave = lambda number, body: (401, {}, b"who are you?")
    with pytest.raises(MissingDependency, match="wants a key") as error:
        connect(server).choose(ASKS, ["Yes", "No"])
    assert "OPENAI_API_KEY" in error.value.fix
    assert len(server.requests) == 1


def test_a_key_that_is_none_is_refused_unseen(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(MissingDependency, match="no key has") as error:
        connect(server)
    assert KEY not in str(error.value)


def test_a_key_meant_for_another_does_not_travel_unencrypted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert EndpointOptions(url="http://192.0.2.1/v1").key() == ""
    assert EndpointOptions(url="http://192.0.2.1/v1", key_env="OPENAI_API_KEY").key() == KEY
    assert EndpointOptions(url="https://192.0.2.1/v1").key() == KEY
    assert EndpointOptions(url="http://localhost:1/v1").key() == KEY


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", f"http://me:{KEY}@host/v1", "http://h/v1?key=1"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url):
    with pytest.raises(CardError, match="url"):
        parse(EndpointOptions, {"url": url}, "card")


def test_loopback_is_reached_whatever_proxy_the_environment_names(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert connect(server).write(ASKS[:1], 3)
