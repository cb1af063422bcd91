"""An exported student that says something else than the student is found out by nobody once it serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent)]

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed: pip install 'rerankdistill[export]'")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed: pip install 'rerankdistill[export]'")

from tiny_models import tiny_bi_encoder, tiny_cross_encoder  # noqa: E402

from rerankdistill.devices import choose  # noqa: E402
from rerankdistill.encoding import open_encoder, plan_batches, tokenise  # noqa: E402
from rerankdistill.errors import DamagedArtifact, MissingArtifact  # noqa: E402
from rerankdistill.kinds import open_kind  # noqa: E402
from rerankdistill.students import export, exported  # noqa: E402
from rerankdistill.students.export import Graph  # noqa: E402

TEXTS = ["rain and wind", "a cat", "the stock market fell as bond prices rose and rain came", "cloud", "a dog , a bird"]


@pytest.fixture(scope="module")
def bi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny bi-encoder, its graph and the graph's file."""
    home = tmp_path_factory.mktemp("exported")
    folder = tiny_bi_encoder(home / "student", TEXTS, layers=1)
    encoder = open_encoder(str(folder), device="cpu", dtype="float32")
    tokens = encoder.tokens(TEXTS, "doc")
    batches = [tokens.batch(rows, "cpu") for rows in plan_batches(tokens.lengths, 64, 2)]
    graph = Graph(export.vectors_module(encoder.model), tuple(tokens.columns), batches)
    export.write_onnx(graph, home / "fp32.onnx")
    return {"home": home, "encoder": encoder, "graph": graph, "file": home / "fp32.onnx", "folder": folder}


def vectors(bi: dict[str, Any], path: Path, texts: list[str] = TEXTS) -> Any:
    return exported.ExportedEncoder(bi["encoder"], exported.Session(path, "onnx", 1), "mark").encode(texts, "doc")


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], ["rain " * 90], ["", "cat"]], ids=["some", "one", "long", "empty"])
def test_a_graph_that_was_traced_at_one_size_is_right_at_every_other(bi, texts):
    np.testing.assert_allclose(vectors(bi, bi["file"], texts), bi["encoder"].encode(texts, "doc"), atol=2e-6)


def test_padding_that_leaks_into_the_mean_is_seen(bi):
    together, alone = vectors(bi, bi["file"]), [vectors(bi, bi["file"], [text])[0] for text in TEXTS]
    np.testing.assert_allclose(together, np.stack(alone), atol=2e-6)


def test_smoothing_moves_what_is_large_and_computes_the_same(bi):
    import torch

    smooth, graph = export.smoothed(bi["graph"]), bi["graph"]
    assert len(smooth.errors) == 7, "six of the one layer, and the pooler that nobody reads"
    assert sum(type(each).__name__ == "Scaled" for each in smooth.module.modules()) == 7
    assert not any(type(each).__name__ == "Scaled" for each in graph.module.modules()), "the student itself is changed"
    with torch.inference_mode():
        for batch in graph.batches:
            inputs = [batch[name] for name in graph.inputs]
            torch.testing.assert_close(smooth.module(*inputs), graph.module(*inputs), atol=1e-5, rtol=1e-5)


def test_int8_keeps_the_layers_in_float_that_it_is_told_to(bi):
    import onnx

    names = export.weighted_layers(onnx.load(str(bi["file"])))
    assert len(names) == 6, "as many as linear layers, in their order"
    counts = []
    for kept in ((), (0, 3)):
        path = bi["home"] / f"int8-{len(kept)}.onnx"
        export.write_int8(bi["file"], path, kept)
        kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
        counts.append(kinds.count("MatMulInteger"))
        cosines = (vectors(bi, path) * bi["encoder"].encode(TEXTS, "doc")).sum(axis=1)
        assert cosines.min() > 0.98
    assert counts == [6, 4]


def test_half_precision_takes_half_the_bytes_and_says_nearly_the_same(bi):
    import onnx

    path = bi["home"] / "fp16.onnx"
    export.write_fp16(bi["file"], path)
    kinds = {each.data_type for each in onnx.load(str(path)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds
    np.testing.assert_allclose(vectors(bi, path), bi["encoder"].encode(TEXTS, "doc"), atol=5e-3)


def test_a_cross_encoder_gives_the_logits_that_it_gives_in_torch(tmp_path):
    folder = tiny_cross_encoder(tmp_path / "reader", TEXTS, layers=1)
    kind = open_kind("students", "cross_encoder")
    student = kind.open(folder, kind.Options(init=str(folder), max_tokens=32), "cpu")
    student.device = choose("cpu", "float32")
    pairs = [(query, doc) for query in ("rain", "a cat and a dog") for doc in TEXTS]
    tokens = tokenise(student.network.tokenizer, [q for q, _ in pairs], 32, [d for _, d in pairs])
    graph = Graph(export.scores_module(student.network), tuple(tokens.columns), [tokens.batch(range(4), "cpu")])
    export.write_onnx(graph, tmp_path / "model.onnx")
    session = exported.Session(tmp_path / "model.onnx", "onnx", 1)
    got = exported.ExportedScorer(student.network.tokenizer, 32, session, "mark").score(pairs)
    np.testing.assert_allclose(got, student.score(pairs), atol=1e-5)


def test_a_cut_off_file_is_no_traceback(bi, tmp_path):
    (tmp_path / "model.onnx").write_bytes(bi["file"].read_bytes()[:500])
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        exported.Session(tmp_path / "model.onnx", "onnx")


def test_a_form_that_was_never_exported_is_said_to_be_missing(bi):
    with pytest.raises(MissingArtifact):
        exported.open_session(bi["folder"], "onnx")
    assert exported.exports(bi["folder"]) == {}
