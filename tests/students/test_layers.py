"""A student cut from a deeper model must hold the layers it says, in their order."""

from __future__ import annotations

import pytest
import torch

from rerankdistill.errors import DataError
from rerankdistill.students.layers import chosen, evenly, freeze, keep_layers, lowest


@pytest.mark.parametrize(
    ("of", "keep", "wanted"),
    [
        (6, 2, [0, 5]),
        (6, 3, [0, 2, 5]),
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (6, 1, [0]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (3, 2, [0, 2]),
    ],
)
def test_kept_layers_are_evenly_spaced_with_the_first_and_the_last(of, keep, wanted):
    assert evenly(of, keep) == wanted


@pytest.mark.parametrize(("of", "keep"), [(of, keep) for of in range(1, 13) for keep in range(1, of + 1)])
def test_no_layer_is_kept_twice(of, keep):
    kept = evenly(of, keep)
    assert len(set(kept)) == keep
    assert kept == sorted(kept)
    assert max(kept) < of


def load(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder)


@pytest.fixture(params=["bert", "distilbert"])
def model(request, tiny, tiny_distilbert):
    return load(tiny.with_name("bi-raw") if request.param == "bert" else tiny_distilbert)


def stack(model):
    return model.encoder.layer if hasattr(model, "encoder") else model.transformer.layer


def weights(layer):
    return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])


def test_the_kept_layers_hold_the_weights_of_those_they_were(model):
    before = [weights(layer) for layer in stack(model)]
    assert keep_layers(model, 2) == [0, 2]
    assert len(stack(model)) == 2 == model.config.num_hidden_layers
    assert torch.equal(weights(stack(model)[0]), before[0])
    assert torch.equal(weights(stack(model)[1]), before[2])


def test_named_layers_are_kept_in_the_order_they_are_named(model):
    before = [weights(layer) for layer in stack(model)]
    assert keep_layers(model, [2, 1]) == [2, 1]
    assert [torch.equal(weights(layer), before[at]) for layer, at in zip(stack(model), (2, 1), strict=True)] == [
        True
    ] * 2


def test_a_cut_model_survives_saving(model, tmp_path):
    keep_layers(model, 2)
    model.eval()
    ids = torch.tensor([[2, 7, 8, 3]])
    wanted = model(ids).last_hidden_state
    model.save_pretrained(tmp_path)
    again = load(tmp_path).eval()
    assert len(stack(again)) == 2
    torch.testing.assert_close(again(ids).last_hidden_state, wanted)


@pytest.mark.parametrize("wrong", [4, 0, -1, [0, 3], [-1], [1, 1], []])
def test_layers_that_the_model_has_not_are_refused(model, wrong):
    with pytest.raises(DataError, match="layers 0 to 2"):
        keep_layers(model, wrong)
    assert len(stack(model)) == 3, "a refused cut must leave the model whole"


def test_an_architecture_without_a_stack_says_so():
    with pytest.raises(DataError, match="cannot find the layers of a Linear"):
        keep_layers(torch.nn.Linear(2, 2), 1)


def test_the_ends_of_a_stack_can_be_named():
    assert chosen(6, "first:2") == [0, 1]
    assert chosen(6, "last:2") == [4, 5]


def test_more_of_an_end_than_there_is_is_refused(model):
    with pytest.raises(DataError, match="layers 0 to 2"):
        keep_layers(model, "last:4")


def test_a_model_that_is_cut_for_a_while_is_whole_again_after_it(model, tmp_path):
    """A configuration that stays cut would be saved beside all the weights."""
    ids = torch.tensor([[2, 7, 8, 3]])
    wanted = model.eval()(ids, output_hidden_states=True)
    with lowest(model, 2):
        torch.testing.assert_close(model(ids).last_hidden_state, wanted.hidden_states[2])
        model.save_pretrained(tmp_path)
    assert len(stack(model)) == 3 == model.config.num_hidden_layers
    torch.testing.assert_close(model(ids).last_hidden_state, wanted.last_hidden_state)
    assert len(stack(load(tmp_path))) == 2


def test_what_is_frozen_is_what_was_named(model):
    freeze(model, 1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if name.startswith("embeddings.") or ".layer.0." in name]
    assert [name for name in trained if ".layer.1." in name]
    with pytest.raises(DataError, match="the model has 3 layers"):
        freeze(model, 4)
