"""Through the real ir-datasets, in subprocesses: it reads its home when it is imported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SHOW = """
import json, sys
from rerankdistill.collections import load_collection
from rerankdistill.errors import DataError
from rerankdistill.types import View

found = []
for name, splits in json.loads(sys.argv[1]):
    try:
        source = load_collection(name, splits)
        ids = list(source.doc_ids())
        docs = list(source.docs())
        assert [doc.doc_id for doc in docs] == ids
        assert source.texts([ids[-1], ids[0]], View.TEXT) == [docs[-1].text, docs[0].text]
        every = [query.query_id for query in source.all_queries()]
        assert len(set(every)) == len(every)
        assert all({q.query_id for q in source.queries(split)} <= set(every) for split in source.splits())
        shown = {"all": len(every), "mark": source.fingerprint, "splits": {}}
        shown["docs"] = [len(ids), docs[0], docs[9], docs[-1]]
        for split in source.splits():
            queries, judged = source.queries(split), list(source.judgements(split))
            shown["splits"][split] = [len(queries), queries[0], queries[-1], len(judged), judged[0], judged[-1]]
        try:
            source.texts(["no such document"], View.TEXT)
        except DataError as error:
            shown["unknown"] = error.what
    except DataError as error:
        shown = {"error": str(error)}
    found.append(shown)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def homes() -> ModuleType:
    """The helper module beside this file."""
    spec = importlib.util.spec_from_file_location("irds_home", Path(__file__).with_name("irds_home.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(homes: ModuleType, home: Path, *wanted: tuple[str, dict[str, str] | None]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", SHOW, json.dumps(wanted)]
    done = subprocess.run(command, env=homes.environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.realdata
def test_real_ids_load_without_a_network(homes: ModuleType, data: Path, tmp_path: Path) -> None:
    homes.fill_home(tmp_path, data)
    names = ("beir/scifact/test", "beir/scifact/train", "beir/scifact", "cranfield", "vaswani")
    test, train, family, cranfield, vaswani = show(homes, tmp_path, *((name, None) for name in names))
    count, first, tenth, last = test["docs"]
    assert (count, first[0], tenth[0], last[0]) == (5183, "4983", "70490", "198309074")
    assert [len(first[1]), len(tenth[1]), len(last[1])] == [1809, 486, 1681]
    assert first[2].startswith("Microstructural development"), "the title is kept apart from the text"
    claim = "p16INK4A accumulation is  linked to an abnormal wound response caused by the microinvasive step of "
    assert test["splits"]["test"][0] == 300
    assert test["splits"]["test"][2][1].startswith(claim)
    assert test["splits"]["test"][3:] == [339, ["1", "31715818", 1], ["1395", "17717391", 1]]
    assert train["splits"]["train"][0] == 809
    assert [found["all"] for found in (test, train, family, cranfield, vaswani)] == [1109, 1109, 1109, 225, 93]
    assert set(family["splits"]) == {"train", "test"}
    assert family["splits"]["test"] == test["splits"]["test"]
    assert len({test["mark"], train["mark"], family["mark"]}) == 3
    assert cranfield["docs"][0] == 1400
    assert cranfield["splits"]["test"][0] == 225
    assert cranfield["splits"]["test"][3:] == [1837, ["1", "184", 3], ["225", "1188", 0]], "-1 is no negative gain"
    assert vaswani["docs"][0] == 11429
    assert (
        vaswani["splits"]["test"][1][1]
        == "measurement of dielectric constant of liquids by the use of microwave techniques"
    )
    assert test["unknown"] == "no document is called 'no such document'"


def test_miniature_msmarco_and_beir_under_their_real_ids(homes: ModuleType, tmp_path: Path) -> None:
    homes.fill_miniature(tmp_path)
    named = {
        "train": "msmarco-passage/train/judged",
        "dev": "msmarco-passage/dev/small",
        "test": "msmarco-passage/trec-dl-2019/judged",
    }
    msmarco, dl20, train, *beir = show(
        homes,
        tmp_path,
        ("msmarco-passage", named),
        ("msmarco-passage/trec-dl-2020/judged", None),
        ("msmarco-passage/train/judged", None),
        *((f"beir/{name}", None) for name in homes.BEIR_SPLITS),
    )
    assert list(msmarco["splits"]) == ["train", "dev", "test"]
    assert [row[0] for row in msmarco["splits"].values()] == [40, 40, 40], "queries that nobody judged are left out"
    assert msmarco["docs"][0] == 240
    assert msmarco["all"] == 3 * 41
    assert list(dl20["splits"]) == ["test"]
    assert list(train["splits"]) == ["train"], "training judgements must never be taken for the test's"
    for found, splits in zip(beir, homes.BEIR_SPLITS.values(), strict=True):
        assert set(found["splits"]) == set(splits)
        assert found["docs"][0] == 240


def test_no_network_and_unknown_ids_are_clear_errors(homes: ModuleType, tmp_path: Path) -> None:
    homes.fill_miniature(tmp_path)
    offline, unknown, family, mixed, unjudged = show(
        homes,
        tmp_path,
        ("vaswani", None),
        ("beir/scifcat", None),
        ("beir", None),
        ("beir/scifact", {"test": "beir/fiqa/test"}),
        ("msmarco-passage", {"test": "msmarco-passage/eval/small"}),
    )
    assert "ir-datasets cannot read it" in offline["error"]
    assert "IR_DATASETS_HOME" in offline["error"]
    assert "did you mean 'beir/scifact'?" in unknown["error"]
    assert "no documents of its own" in family["error"]
    assert "'beir/fiqa/test' has other documents than 'beir/scifact'" in mixed["error"]
    assert "has no judged queries" in unjudged["error"]


def test_changed_document_changes_the_fingerprint(homes: ModuleType, tmp_path: Path) -> None:
    marks = []
    for word in ("stone", "brick"):
        home = tmp_path / str(len(marks))
        queries, qrels = {"q": "a query"}, {"train": [("q", "d0", 1)], "test": [("q", "d1", 1)]}
        corpus = {f"d{number}": ("", f"{word} {number // 5}") for number in range(12)}
        homes.fill_beir(home, "scifact", corpus, queries, qrels)
        marks.append(show(homes, home, ("beir/scifact", None))[0]["mark"])
    assert marks[0] != marks[1]


ALL_QUERIES = """
import sys
from rerankdistill.collections import load_collection
source = load_collection("msmarco-passage", {"test": "msmarco-passage/trec-dl-2019/judged"})
print(len(list(source.all_queries())))
print(len(list(load_collection("beir/scifact/test").all_queries())))
"""


def test_all_queries_open_no_judgements(homes: ModuleType, tmp_path: Path) -> None:
    homes.fill_miniature(tmp_path)
    (tmp_path / "msmarco-passage/trec-dl-2019/qrels").unlink()
    (tmp_path / "beir/scifact/test.qrels").write_text("not a judgement", "utf-8")
    command = [sys.executable, "-c", ALL_QUERIES]
    done = subprocess.run(command, env=homes.environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["41", "240"], done.stderr
