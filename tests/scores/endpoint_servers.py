"""Real HTTP servers on loopback for the tests of endpoints: one that conforms, and ways to misbehave."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from score_fakes import value

DROP, GARBAGE, TRICKLE = "drop", "garbage", "trickle"


def words(text: str) -> list[str]:
    """The tokens of the servers' model: words with the space before them."""
    return re.findall(r"\s*\S+", text)


def log_odds(text: str) -> float:
    """How the servers' model rates a question: a number that depends on its text alone."""
    return value("", text) / 4


def logprobs_of(text: str) -> dict[str, float]:
    """The likeliest next tokens: two ways to say yes, one to say no, and a word that is neither."""
    yes = 0.9 / (1 + math.exp(-log_odds(text)))
    return {
        "Yes": math.log(yes * 0.75),
        " yes": math.log(yes * 0.25),
        "No": math.log(0.9 - yes),
        "Perhaps": math.log(0.1),
    }


LETTERS = {letter: -0.5 - 0.25 * n for n, letter in enumerate("CBADEF")}


def grades_of(text: str) -> dict[str, float]:
    """The likeliest next tokens where a grade is asked for; one grade is never listed."""
    high = 0.9 / (1 + math.exp(-log_odds(text)))
    return {"3": math.log(high / 2), " 2": math.log(high / 2), "0": math.log(0.9 - high), "Hm": math.log(0.1)}


class Server:
    """An OpenAI-compatible server whose answers depend on the prompt alone.

    Attributes:
        misbehave: told the number of each request (from 1) and its body; what it gives instead of an answer:
            ``(status, headers, bytes)``, DROP, TRICKLE, or None for a good one.
        logprobs: whether it tells them; ``reject``: it refuses the very field.
        says: what it writes; None: Yes or No.
        weight: what the log-probabilities of a prompt's tokens are multiplied with.
        says_grades, letters: its likeliest tokens are three grades, or :data:`LETTERS`.
        bill: whether replies tell the tokens they took.
        requests: the bodies it was sent; ``headers``: with which headers; ``at``: when.
    """

    def __init__(self) -> None:
        self.misbehave: Callable[[int, dict[str, Any]], Any] = lambda number, body: None
        self.logprobs: bool | str = True
        self.says: str | None = None
        self.says_grades = self.letters = False
        self.weight: Callable[[str], float] = lambda prompt: 1.0
        self.top: int | None = None
        self.echo, self.bill, self.pause = True, True, 0.0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at: list[float] = []
        self.busy = self.most_busy = 0
        self.charged = {"prompt_tokens": 0, "generated_tokens": 0}
        self.lock = threading.Lock()
        self.url = ""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/v1/chat/completions":
            choice, prompt, generated = self._chat(body)
            if choice is None:
                return 400, {"error": {"message": "unknown field: logprobs"}}
        elif path == "/v1/completions" and self.echo:
            choice, prompt, generated = self._complete(body)
        else:
            return 404, {"error": {"message": f"no {path}"}}
        with self.lock:
            self.charged["prompt_tokens"] += prompt
            self.charged["generated_tokens"] += generated
        reply: dict[str, Any] = {"object": "completion", "choices": [choice]}
        if self.bill:
            reply["usage"] = {"prompt_tokens": prompt, "completion_tokens": generated}
        return 200, reply

    def _chat(self, body: dict[str, Any]) -> tuple[dict[str, Any] | None, int, int]:
        if self.logprobs == "reject" and "logprobs" in body:
            return None, 0, 0
        text = "".join(message["content"] for message in body["messages"])
        known = grades_of(text) if self.says_grades else LETTERS if self.letters else logprobs_of(text)
        told = sorted(known.items(), key=lambda each: -each[1])
        written = words(self.says or ("Yes" if log_odds(text) > 0 else "No"))[: body["max_tokens"]]
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "".join(written)}}
        if self.logprobs is True and body.get("logprobs"):
            top = [{"token": token, "logprob": each} for token, each in told][: self.top or body["top_logprobs"]]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return choice, len(words(text)) + 7, len(written)

    def _complete(self, body: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        tokens = ["<s>", *words(body["prompt"]), " more"]
        offsets = [sum(len(each) for each in tokens[:n]) for n in range(len(tokens))]
        told = [None, *(-len(each) / 10 * self.weight(body["prompt"]) for each in tokens[1:])]
        logprobs = {"tokens": tokens, "token_logprobs": told, "text_offset": offsets}
        return {"index": 0, "text": body["prompt"] + " more", "logprobs": logprobs}, len(tokens) - 1, 1


@contextmanager
def serve(state: Server | None = None) -> Iterator[Server]:
    """A server on a free port of loopback, until the block ends."""
    state = state or Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(body)
                state.headers.append(dict(self.headers))
                state.at.append(time.monotonic())
                number = len(state.requests)
                state.busy += 1
                state.most_busy = max(state.busy, state.most_busy)
            try:
                time.sleep(state.pause)
                self.answer(state.misbehave(number, body), body)
            finally:
                with state.lock:
                    state.busy -= 1

        def answer(self, odd: Any, body: dict[str, Any]) -> None:
            if odd == DROP:
                self.close_connection = True
                return
            if odd == TRICKLE:
                self.head(200, {}, 1000)
                for _ in range(100):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
                    time.sleep(0.05)
                return
            status, headers, content = odd or (None, {}, b"")
            if status is None:
                status, reply = state.reply(self.path, body)
                content = json.dumps(reply).encode()
            self.head(status, headers, len(content))
            self.wfile.write(content)

        def head(self, status: int, headers: dict[str, str], length: int) -> None:
            self.send_response(status)
            for name, each in {**headers, "Content-Length": str(length)}.items():
                self.send_header(name, each)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
