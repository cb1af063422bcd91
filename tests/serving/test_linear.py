"""Products with weights that are laid out once say what torch says, with any number of rows, and without oneDNN too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.serving import linear
from rerankdistill.serving.linear import Linear, ready, rounded


def parts(wide: int, out: int) -> tuple[list, list]:
    torch.manual_seed(wide * out)
    return [torch.randn(out, wide) / wide**0.5 for _ in range(2)], [torch.randn(out) for _ in range(2)]


@pytest.mark.parametrize("laid", [True, False], ids=["laid out", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_a_product_is_torchs(monkeypatch, laid, dtype, rows):
    if not laid:
        monkeypatch.setattr(linear, "ready", lambda weight: None)
    weights, biases = parts(48, 33)
    x, other = torch.randn(rows, 48), torch.randn(rows, 66)
    near = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 6e-2}
    with torch.inference_mode():
        wanted = x @ torch.cat(weights).T + torch.cat(biases)
        plain, curved = (Linear(weights, biases, dtype, gelu) for gelu in (False, True))
        given = x.to(dtype)
        torch.testing.assert_close(plain(given).float(), wanted, **near)
        added = other.to(dtype)
        torch.testing.assert_close(plain.plus(given, added).float(), wanted + other, **near)
        assert (added == other.to(dtype)).all(), "what is added stays as it was"
        torch.testing.assert_close(curved(given).float(), torch.nn.functional.gelu(wanted), **near)


def test_a_torch_without_these_products_computes_plainly(monkeypatch):
    assert ready(torch.randn(4, 8)) is not None or not torch.backends.mkldnn.is_available()

    class Without:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(torch.ops, "mkldnn", Without(), raising=False)
    assert ready(torch.randn(4, 8)) is None
    weights, biases = parts(8, 4)
    with torch.inference_mode():
        found = Linear(weights, biases, torch.float32)(torch.ones(3, 8))
    torch.testing.assert_close(found, torch.ones(3, 8) @ torch.cat(weights).T + torch.cat(biases))


@given(st.integers(1, 100_000))
@settings(deadline=None)
def test_few_numbers_of_rows_are_left_and_none_is_much_larger(rows):
    found = rounded(rows)
    assert rows <= found <= max(rows + 3, rows * 33 / 32)
    assert rounded(found) == found


def test_a_batch_needs_no_more_programs_than_are_kept():
    assert 4 * len({rounded(rows) for rows in range(1, 1025)}) < 1024
