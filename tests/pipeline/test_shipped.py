"""The shipped pipelines for MS MARCO and BEIR, walked under the real ids on a miniature ir-datasets home."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from irds_home import environment, fill_miniature

from rerankdistill.errors import RerankDistillWarning

SMALL = (
    "device=cpu",
    "dev_share=0.1",
    "check=false",  # a random cross-encoder is no teacher
    "mine.depth=8",
    "students.distilbert.max_queries=0",
    "students.distilbert.stages.0.list_size=4",
    'students.distilbert.stages.0.train={"steps" = 4, "batch" = 4, "evaluate_every" = 2}',
)


def walk(name, home, teachers, models, out):
    """``train`` and then ``eval --json``, in processes that find the miniature home alone."""
    overrides = (*SMALL, f"teacher={teachers / 'cross.toml'}", f"students.distilbert.options.init={models / 'student'}")
    sets = [part for override in overrides for part in ("--set", override)]
    for verb in (["train"], ["eval", "--json"]):
        command = [sys.executable, "-m", "rerankdistill", verb[0], name, "--out", str(out), *sets, *verb[1:]]
        done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "splits"),
    [
        (
            "msmarco",
            {
                "msmarco-passage/dev/small",
                "msmarco-passage/trec-dl-2019/judged",
                "msmarco-passage/trec-dl-2020/judged",
            },
        ),
        ("beir", None),
    ],
)
def test_the_shipped_pipeline_goes_the_whole_way_under_the_real_ids(name, splits, teachers, models, tmp_path):
    fill_miniature(tmp_path / "home")
    touche = tmp_path / "home/beir/webis-touche2020"
    (touche / "v2").mkdir()
    shutil.copy(touche / "source.zip", touche / "v2/source.zip")
    reports = walk(name, tmp_path / "home", teachers, models, tmp_path / "work")
    assert len(list((tmp_path / "work/reports").iterdir())) == len(reports)
    if splits:
        assert {report["split"] for report in reports} == splits
    else:
        assert len({report["collection"] for report in reports}) == len(reports) >= 10
    for report in reports:
        rows = {row["kind"] for row in report["rows"]}
        assert {"first_stage", "student_before", "control", "student", "fusion", "teacher"} <= rows
        assert report["queries"] > 5
        (first,) = (row for row in report["rows"] if row["kind"] == "first_stage")
        assert first["measures"]["ndcg@10"] > 0.3, report["split"]


@pytest.mark.realdata
@pytest.mark.slow
def test_a_reranking_collection_keeps_its_own_first_stage(mini, data, models, tmp_path):
    """BM25 of TREC-DL 2019 as it is published reads .5058, and the student re-ranks those very candidates."""
    from helpers_pipeline import evaluate, figures

    mini["students"]["small"]["control"] = "none"
    target = {
        "collection": str(data / "trec-dl19"),
        "splits": {"test": "qrels_full.trec.gz"},
        "first_stage": "bm25",
        "mode": "rerank",
        "rerank_depth": 20,
    }
    mini["evaluate"] = [target]
    with pytest.warns(RerankDistillWarning, match="unknown documents"):
        _, (report,) = evaluate(mini, tmp_path / "work")
    rows = {row["name"]: row for row in report["rows"]}
    assert figures(report)["bm25"] == pytest.approx(0.5058, abs=5e-5)
    assert report["queries"] == 43
    for name in ("small before", "small"):
        assert rows[name]["first_stage"] == "bm25 top 20"
        assert 0 < rows[name]["measures"]["ndcg@10"] < 0.6
