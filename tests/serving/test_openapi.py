"""Whatever the description of the interface allows, and what it does not, gets an answer that is no failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import serving

from rerankdistill.serving.app import create_app
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.settings import Settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from hypothesis import HealthCheck, given, settings  # noqa: E402


@pytest.fixture(scope="module")
def schema(tiny_bert, tiny_cross):
    """Of a server with a bi-encoder and a cross-encoder."""
    from dataclasses import replace

    from rerankdistill.serving.opening import load_models

    engine = Engine.load(Settings(place=Path(tiny_bert)))
    engine.models = replace(engine.models, reranker=load_models(Settings(place=tiny_cross)).reranker)
    with serving(Path(tiny_bert), engine) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_no_request_makes_the_server_fail(schema):
    """By hypothesis itself: the library's own way to make tests of a fixture needs an older pytest."""
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        modes = list(schemathesis.GenerationMode) if operation.body else [schemathesis.GenerationMode.POSITIVE]
        for mode in modes:  # what takes nothing can be given nothing wrong
            ask(operation.as_strategy(generation_mode=mode))


def ask(cases):
    """Try some requests of one operation."""

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases)
    def asked(case):
        response = case.call()
        full = case.path == "/readyz" and response.status_code == 503
        assert response.status_code < 500 or full, (case.as_curl_command(), response.text)

    asked()


def test_every_route_is_described(tiny_bert):
    settings_ = Settings(place=Path(tiny_bert))
    app = create_app(Engine.load(settings_), settings_)
    described = app.openapi()["paths"]
    wanted = {
        "/v1/embeddings",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/embed",
        "/info",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert wanted <= set(described)
    for path, methods in described.items():
        for method, about in methods.items():
            assert about["summary"], f"{method} {path}"
