"""Forms of a student: kept only where they say what the student says, served only where they are faster."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_work import write_work

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed: pip install 'rerankdistill[export]'")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed: pip install 'rerankdistill[export]'")

from rerankdistill import devices
from rerankdistill.collections.work import recall
from rerankdistill.encoding import Tokens
from rerankdistill.pipeline import export as pipeline
from rerankdistill.pipeline.export import Limits, Tried
from rerankdistill.serving.opening import look, open_embedder
from rerankdistill.serving.session_network import SessionNetwork, alike, fastest, only
from rerankdistill.students.exported import exports, open_session, place

CPU = devices.Device("cpu", "float32")


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def session(
    request: pytest.FixtureRequest, exported: tuple[Path, list[Tried]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A student, and a form of it that was accepted."""
    if request.param == "onnx":
        return exported[0], "onnx"
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed: see pyproject.toml")
    student = tmp_path_factory.mktemp("openvino") / "student"
    shutil.copytree(exported[0], student)
    (kept,) = pipeline.export(student, ["openvino"], recall(exported[0].parents[1]), texts=16, threads=1)
    assert not kept.why
    assert kept.figures["cosine"] > 0.99999
    return student, "openvino"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str, tiny_cross: Path) -> tuple[Path, list[Tried]]:
    """A student with a form that was accepted, and one that asks the impossible and was refused."""
    work = write_work(tmp_path_factory.mktemp("forms") / "work", tiny_bert, tiny_cross)
    student = work / "students/small-seed1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.LIMITS, "onnx-fp16", Limits(1.0001, 0))
        tried = pipeline.export(student, ["onnx", "onnx-fp16"], recall(work), texts=16, threads=1)
    return student, tried


def test_what_was_measured_is_kept_with_the_form(exported):
    student, (kept, _) = exported
    assert not kept.why
    figures = exports(student)["onnx"].counts
    assert figures["cosine"] > 0.99999
    assert abs(figures["ndcg@10 lost"]) < 1e-6
    assert figures["texts_per_second"] > 0 < figures["torch_texts_per_second"]
    assert figures["bytes"] == (place(student, "onnx") / "model.onnx").stat().st_size


def test_a_form_that_loses_too_much_is_refused_with_numbers_and_leaves_nothing(exported):
    student, (_, refused) = exported
    assert "cosine 0.99" in refused.why or "cosine 1.0" in refused.why
    assert "1.0001 is asked for" in refused.why
    assert not place(student, "onnx-fp16").exists()
    assert list(exports(student)) == ["onnx"]


@pytest.mark.parametrize("name", ["small-seed1", "reader-seed1"])
def test_a_form_is_held_to_float32_also_where_bfloat16_is_fast(exported, tmp_path, monkeypatch, name):
    students = exported[0].parent
    shutil.copytree(students / name, tmp_path / name)
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    (kept,) = pipeline.export(tmp_path / name, ["onnx"], recall(students.parent), texts=16, threads=1)
    assert not kept.why
    assert kept.figures.get("cosine", 1) > 0.99999
    assert kept.figures.get("off", 0) < 1e-3


def test_the_student_is_the_same_student_with_its_forms(exported, tiny_bert):
    from rerankdistill.encoding import model_fingerprint

    assert model_fingerprint(str(exported[0])) == model_fingerprint(tiny_bert)


def test_the_faster_one_serves_and_says_the_same(exported):
    student, _ = exported
    embedder = open_embedder(look(student), CPU)
    tokens = embedder.tokens(["rain", "a cat on the road", "stock market"], "doc")

    def slow(given: Any, threads: int = 0, many: bool = True) -> Any:
        time.sleep(0.2 if many or len(given.lengths) == 1 else 0)
        return embedder.networks["doc"](given) if many else np.zeros((len(given.lengths), 2))

    name, network = fastest(student, CPU, slow, tokens)
    assert name == "onnx"
    np.testing.assert_allclose(network(tokens), slow(tokens), atol=1e-5)
    name, network = fastest(student, CPU, lambda *_: None, tokens)
    assert name == "torch float32 on cpu"
    assert fastest(student, devices.Device("cuda:0", "float16"), slow, tokens) == ("torch float16 on cuda:0", slow)

    name, network = fastest(student, CPU, lambda given, _=0: slow(given, many=False), tokens)
    assert name == "torch float32 on cpu, one text by onnx"
    assert not network(tokens).any()
    np.testing.assert_allclose(network(only(tokens)), slow(only(tokens)), atol=1e-5)


def test_a_text_alone_gets_as_many_threads_as_were_seen_to_be_quicker_by_its_length(exported):
    given, course = [], texts_of(4, 100)

    def torch(tokens: Tokens, threads: int = 0) -> np.ndarray:
        given.append((len(tokens.lengths), threads))
        slow = threads == (2 if max(tokens.lengths) < 64 else 1)
        time.sleep(0.01 if slow else 0)
        return np.zeros((len(tokens.lengths), 2))

    _, network = fastest(exported[0] / "none", CPU, torch, course, 2)
    assert {threads for texts, threads in given if texts == 2} == {1}
    given.clear()
    for tokens, threads in ((texts_of(4), 2), (texts_of(100), 2), (texts_of(100), 1), (texts_of(100, 4), 2)):
        network(tokens, threads)
    assert given == [(1, 1), (1, 2), (1, 1), (2, 2)]


def test_one_thread_alone_calls_torch_with_several_and_opening_starts_no_other(exported):
    import threading

    from rerankdistill.serving.engine import Engine
    from rerankdistill.serving.settings import Settings

    callers = set()

    def seen(tokens: Tokens, threads: int = 0) -> np.ndarray:
        callers.add((threading.current_thread().name, threads))
        return np.zeros((len(tokens.lengths), 2))

    engine = Engine.load(Settings(place=exported[0], threads=2, device="cpu"))
    engine.close()
    fastest(exported[0] / "none", CPU, seen, texts_of(4, 100), 2)
    assert {name for name, threads in callers if threads > 1} == {"all-cores_0"}
    assert devices.apart(devices.threads) == 1


def texts_of(*lengths: int) -> Tokens:
    return Tokens({"input_ids": [[1] * length for length in lengths]}, {"input_ids": 0})


@pytest.mark.parametrize("threads", [1, 2])
def test_a_form_says_the_same_of_texts_of_any_lengths_whoever_computes(session, threads):
    student, form = session
    embedder = open_embedder(look(student), CPU)
    network = SessionNetwork(open_session(student, form, 2), open_session(student, form, 1))
    tokens = embedder.tokens(["rain " * count for count in (3, 40, 1, 17, 38, 3, 5)], "doc")
    wanted = [embedder.networks["doc"](only(tokens, row), 1)[0] for row in range(len(tokens.lengths))]
    np.testing.assert_allclose(network(tokens, threads), wanted, atol=1e-5)


def test_several_cores_may_ask_one_session_at_once(session):
    student, form = session
    embedder = open_embedder(look(student), CPU)
    network = SessionNetwork(open_session(student, form, 2), open_session(student, form, 1))
    texts = [embedder.tokens([f"{word} " * count], "doc") for word in ("rain", "cat", "stock") for count in (1, 9, 30)]
    wanted = [network(each, 1) for each in texts]

    def ask(start: int) -> list[np.ndarray]:
        return [network(texts[(start + step) % len(texts)], 1) for step in range(100)]

    with ThreadPoolExecutor(4) as pool:
        for start, found in enumerate(pool.map(ask, range(4))):
            for step, rows in enumerate(found):
                np.testing.assert_allclose(rows, wanted[(start + step) % len(texts)], atol=1e-5)


def test_texts_of_a_batch_are_about_as_long_and_all_are_there():
    lengths = [3, 100, 7, 95, 60, 8, 5000, 90]
    batches = alike(lengths)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert batches == [[6], [1, 3, 7], [4], [5, 2], [0]]


def test_two_workers_of_a_server_share_the_cores_also_in_onnxruntime(exported, monkeypatch):
    import onnxruntime
    import torch

    from rerankdistill.serving.engine import Engine
    from rerankdistill.serving.settings import Settings

    found, kept = [], torch.get_num_threads()
    opened = onnxruntime.InferenceSession

    def session(path: str, options: Any, **more: Any) -> Any:
        found.append(options.intra_op_num_threads)
        return opened(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(devices, "cores", lambda: 6)
    try:
        Engine.load(Settings(place=exported[0], workers=2, device="cpu")).close()
        Engine.load(Settings(place=exported[0], workers=2, threads=1, device="cpu")).close()
    finally:
        torch.set_num_threads(kept)
    assert found == [3, 1, 1]  # a second one of one thread, where there are several cores


def test_a_form_of_other_weights_is_not_used(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path / "student")
    weights = next((tmp_path / "student").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert exports(tmp_path / "student") == {}


def test_a_damaged_form_is_told_and_torch_serves(exported, tmp_path, caplog):
    shutil.copytree(exported[0], tmp_path / "student")
    (place(tmp_path / "student", "onnx") / "model.onnx").write_bytes(b"nothing")
    embedder = open_embedder(look(tmp_path / "student"), CPU)
    assert embedder.backend.startswith("torch")
    assert "form not used" in caplog.text
