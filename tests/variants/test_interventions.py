"""Interventions hold the function equal, or remove exactly what is named and put it back."""

import json

import architectures
import numpy as np
import pytest
from evenbits.errors import ModelError, UsageError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.store import Store

EQUAL = 1e-4


@pytest.fixture(scope="module")
def loaded(tiny_model, tmp_path_factory):
    import torch

    store = Store(tmp_path_factory.mktemp("store"))
    made = {}

    def get(architecture):
        if architecture not in made:
            made[architecture] = load(
                resolve(parse_model(str(tiny_model(architecture))), store=store), dtype=torch.float32
            )
        return made[architecture]

    return get


def logits(model, extra=0):
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(4 + extra, 60 + extra)[None]).logits


def with_weights(loaded, weights, **config):
    """Logits of a fresh model of the same shape that holds `weights`."""
    import copy

    from transformers import AutoModelForCausalLM

    changed = copy.deepcopy(loaded.model.config)
    for name, value in config.items():
        setattr(changed, name, value)
    model = AutoModelForCausalLM.from_config(changed).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if not (changed.tie_word_embeddings and name == "lm_head.weight")]
    return logits(model)


def shape_of(loaded, needs=None, what="it"):
    from evenbits.variants.interventions.shape import SCALABLE, llama_shape

    return llama_shape(loaded.anatomy, loaded.model.config, needs=needs or SCALABLE, what=what)


def largest_kurtosis(weights, part):
    from scipy.stats import kurtosis

    return max(kurtosis(w.numpy().ravel()) for name, w in weights.items() if part in name)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text", "smollm3", "olmo2"])
@pytest.mark.parametrize("into", ["producer", "consumer"])
def test_rescaling_keeps_the_function_and_makes_outliers_where_it_was_asked_to(loaded, architecture, into):
    from evenbits.variants.interventions import Channels, rescaled, weights_of

    before = loaded(architecture)
    weights = weights_of(before)
    some = Channels(
        mlp={layer: np.array([0, 5]) for layer in range(2)}, value={layer: np.array([3]) for layer in range(2)}
    )
    after = rescaled(weights, shape_of(before), some, dose=50.0, into=into)
    assert (with_weights(before, after) - logits(before.model)).abs().max() < EQUAL
    producer, consumer = ("up_proj.weight", "down_proj.weight")
    grown = producer if into == "producer" else consumer
    assert largest_kurtosis(after, grown) > 10 > largest_kurtosis(weights, grown)
    touched = {name for name in weights if not weights[name].equal(after[name])}
    assert {name.rsplit(".", 2)[1] for name in touched} == {"up_proj", "down_proj", "v_proj", "o_proj"}


def test_a_value_channel_is_undone_in_every_query_head_that_reads_it(loaded):
    from evenbits.variants.interventions import Channels, rescaled, weights_of

    before = loaded("llama")  # 4 query heads, 2 value heads, 8 wide
    weights = weights_of(before)
    after = rescaled(weights, shape_of(before), Channels(value={0: np.array([9])}), dose=4.0, into="producer")
    name = "model.layers.0.self_attn.o_proj.weight"
    changed = np.flatnonzero((weights[name] != after[name]).any(dim=0).numpy())
    assert changed.tolist() == [17, 25]  # channel 1 of value head 1: query heads 2 and 3, at 16 + 1 and 24 + 1


def test_a_dose_and_its_inverse_give_every_byte_back_where_it_is_a_power_of_two(loaded):
    from evenbits.variants.interventions import random_channels, rescaled, weights_of

    before = loaded("llama")
    weights, shape = weights_of(before), shape_of(before)
    some = random_channels(shape, 7, 64, rng=np.random.default_rng(0))
    there = rescaled(weights, shape, some, dose=16.0, into="producer")
    back = rescaled(there, shape, some, dose=1 / 16, into="producer")
    assert all(weights[name].equal(back[name]) for name in weights)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "smollm3"])
def test_rotating_the_stream_keeps_the_function_and_lowers_kurtosis(loaded, architecture):
    from evenbits.variants.interventions import rotated, weights_of
    from evenbits.variants.interventions.shape import ROTATABLE

    before = loaded(architecture)
    weights = {name: tensor.clone() for name, tensor in weights_of(before).items()}
    for name, tensor in weights.items():  # one direction of the stream carries outliers
        if name.endswith(("gate_proj.weight", "q_proj.weight")):
            tensor[:, 3] *= 30
    expected = with_weights(before, weights)
    after, config = rotated(weights, shape_of(before, ROTATABLE), rng=np.random.default_rng(0))
    got = with_weights(before, after, **config)
    assert (got - expected).abs().max() < EQUAL * max(1.0, float(expected.abs().max()))
    assert largest_kurtosis(after, "gate_proj") < largest_kurtosis(weights, "gate_proj") / 3


@pytest.mark.parametrize("architecture", ["gemma3_text", "olmo2", "gpt2"])
def test_an_architecture_whose_function_would_change_is_refused(loaded, architecture):
    from evenbits.variants.interventions.shape import ROTATABLE

    with pytest.raises(ModelError, match=f"rotation would change what a {architecture} model computes"):
        shape_of(loaded(architecture), ROTATABLE, "rotation")


@pytest.mark.parametrize("what", ["rotation", "rescaling"])
def test_experts_are_neither_rotated_nor_rescaled(what, tmp_path):
    import torch
    from evenbits.variants.interventions.shape import ROTATABLE, SCALABLE

    folder = architectures.build("qwen3_moe", tmp_path / "model")
    found = load(resolve(parse_model(str(folder)), store=Store(tmp_path / "store")), dtype=torch.float32)
    with pytest.raises(ModelError, match=rf"{what} would change what a qwen3_moe model computes; it is for .*llama"):
        shape_of(found, {"rotation": ROTATABLE, "rescaling": SCALABLE}[what], what)


@pytest.mark.parametrize("dose", [0.0, -1.0, float("nan"), float("inf")])
def test_a_dose_that_is_none_is_refused(loaded, dose):
    from evenbits.variants.interventions import Channels, rescaled, weights_of

    before = loaded("llama")
    with pytest.raises(UsageError, match="a dose is a positive finite number"):
        rescaled(weights_of(before), shape_of(before), Channels(), dose=dose, into="producer")


def test_channels_and_layers_that_do_not_exist_are_refused(loaded):
    from evenbits.variants.interventions import Channels, rescaled, weights_of

    before = loaded("llama")
    weights, shape = weights_of(before), shape_of(before)
    with pytest.raises(UsageError, match="layer 1 has mlp channels 0 to 63, got 64"):
        rescaled(weights, shape, Channels(mlp={1: np.array([64])}), dose=2.0, into="producer")
    with pytest.raises(UsageError, match="layers 0 to 1, got 2"):
        rescaled(weights, shape, Channels(mlp={2: np.array([0])}), dose=2.0, into="producer")


def test_channels_are_those_that_the_chosen_languages_use_more_than_others(loaded):
    from evenbits.observe.activations.collection import measure
    from evenbits.variants.interventions import distinctive_channels

    before = loaded("llama")
    texts = {"de": ("aaaa aaaa", "aa aaaa"), "en": ("the the in", "in an the"), "fr": ("zzz zz", "zzzz z")}
    found = {tag: measure(before, part, language=tag) for tag, part in texts.items()}
    shape = shape_of(before)
    chosen = distinctive_channels(shape, found, ["de"], 4).mlp
    name = before.anatomy.blocks[1].mlp_output
    ours, theirs = found["de"].energy(name), (found["en"].energy(name) + found["fr"].energy(name)) / 2
    assert set(chosen[1]) == set(np.argsort(ours / theirs)[-4:])
    with pytest.raises(UsageError, match="measured are de, en, fr, chosen are xx"):
        distinctive_channels(shape, found, ["xx"], 4)
    with pytest.raises(UsageError, match="against the others"):
        distinctive_channels(shape, found, ["de", "en", "fr"], 4)


def test_an_altered_copy_is_a_model_like_any_other_and_replaces_nothing(loaded, tmp_path):
    import torch
    from evenbits.variants.interventions import altered_copy, random_channels, rescaled, weights_of

    before = loaded("llama")
    shape = shape_of(before)
    after = rescaled(
        weights_of(before),
        shape,
        random_channels(shape, 3, 64, rng=np.random.default_rng(0)),
        dose=8.0,
        into="consumer",
    )
    folder = altered_copy(before.local, after, tmp_path / "copy")
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(folder)), store=store)
    assert local.fingerprint != before.local.fingerprint
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    copied = load(local, dtype=torch.float32)
    assert (logits(copied.model) - logits(before.model)).abs().max() < EQUAL
    with pytest.raises(UsageError, match="exists"):
        altered_copy(before.local, after, folder)
    with pytest.raises(AttributeError):
        altered_copy(before.local, {"w": None}, tmp_path / "broken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store"]
