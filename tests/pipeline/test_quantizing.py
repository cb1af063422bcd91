"""A student that learns codebooks: its own index, beside what faiss trains and beside whole vectors."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_pipeline import evaluate, figures, planned

from rerankdistill import codebooks
from rerankdistill.errors import CardError


@pytest.fixture
def quantizer(mini, models, teachers):
    small = mini["students"]["small"]
    small["kind"] = "quantizer"
    small["options"] = {"init": str(models / "teacher"), "m": 8, "bits": 3, "nlist": 3, "nprobe": 3}
    small["teacher"] = str(teachers / "bi.toml")
    small["stages"][0]["options"] = {"kl_div": {"tau_student": 0.05, "tau_teacher": 0.05, "over": "batch"}}
    small["stages"][0]["train"] |= {"learning_rate": 3e-3}
    return mini


def test_its_documents_are_encoded_once_and_searched_through_its_own_codes(quantizer, tmp_path):
    heard, (report,) = evaluate({**quantizer, "seeds": [1, 2]}, tmp_path / "work")
    assert [name for name in heard.ran if name.startswith("vectors ")] == ["vectors tiny-bi · docs"]
    rows = {row["name"]: row for row in report["rows"]}
    assert {"small", "small before", "small control", "small uncompressed", "bm25 + small"} <= rows.keys()
    home = tmp_path / "work"
    for name in ("small-seed1", "small-seed2", "small.before", "small.control-seed1"):
        (index,) = (home / "indexes").glob(f"ivfpq-{name}")
        learnt = codebooks.read(home / "students" / name)
        found = codebooks.codebooks_of(codebooks.load_faiss().read_index(str(index / "index.faiss")))
        np.testing.assert_array_equal(found.codewords, learnt.codewords)
    before = codebooks.read(home / "students/small.before")
    assert np.abs(before.codewords - codebooks.read(home / "students/small-seed1").codewords).max() > 1e-3
    whole = figures(report)["small uncompressed"]
    assert whole == pytest.approx(figures(report)["teacher bi"], abs=0.05)
    assert rows["small"]["index_bytes"] < (home / "indexes/flat-tiny-bi/index.faiss").stat().st_size
    assert rows["small"]["fidelity"]["overlap@10"] > 0.2
    assert 'faiss.read_index("small/codebooks.faiss")' in (home / "students/small-seed1/README.md").read_text()
    assert not planned({**quantizer, "seeds": [1, 2]}, home)


def test_codes_do_not_rerank_somebody_elses_candidates(quantizer, tmp_path):
    quantizer["evaluate"] = [{"mode": "rerank", "rerank_depth": 5}]
    with pytest.raises(CardError, match="re-ranks nobody"):
        evaluate(quantizer, tmp_path / "work")
