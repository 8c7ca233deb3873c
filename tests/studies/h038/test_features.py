"""Features of H-038 on a tiny model: what dropping does, what is put back, and what the table holds."""

import architectures
import numpy as np
import pytest
import torch
from evenbits.cells import Subject
from evenbits.errors import ModelError
from evenbits.estimates import Verdict
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations.features import aligned_similarity, language_features
from evenbits.observe.activations.lookup import activations
from evenbits.records import Corpus
from evenbits.studies.h037 import find_super_weights, super_weights
from evenbits.studies.h038 import EXPECTED, FeatureTable, loss_increase, measured_features
from evenbits.studies.h038.features import similarity_to_others
from evenbits.studies.h038.redundancy import DRAWS, KINDS
from evenbits.variants.variant import FULL_PRECISION
from evenbits.variants.zeroing import dropping, without_parts

TAGS = ("de", "en", "fr")


@pytest.fixture(scope="module")
def probe():
    texts = {tag: tuple(f"{tag} {number}: " + tag * (3 + number) for number in range(4)) for tag in TAGS}
    return Corpus(name="t", source="t", languages=TAGS, segment_ids=("a", "b", "c", "d"), texts=texts)


@pytest.fixture
def model(tiny_llama, store):
    return Subject(local=resolve(parse_model(str(tiny_llama)), store=store), store=store, dtype="float32")


def weights(loaded):
    return {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}


def test_a_tenth_of_the_channels_or_at_least_one_head_of_every_layer_is_dropped_and_put_back(loaded_tiny):
    before = weights(loaded_tiny)
    for kind, output, dropped in (("channel", "mlp_output", 13), ("head", "attention_output", 16)):
        # width 64: 128 MLP channels, a tenth is 13; four heads of 16 columns, an eighth of four is at least one head
        with dropping(loaded_tiny, kind=kind, seed=(0, 0)):
            for block in loaded_tiny.anatomy.blocks:
                weight = loaded_tiny.model.get_submodule(getattr(block, output)).weight
                empty = (weight == 0).all(dim=0)
                assert int(empty.sum()) == dropped
                assert not (weight[:, ~empty] == 0).any()
                if kind == "head":
                    assert int(empty.nonzero()[0]) % 16 == 0  # one whole head, not columns of several
    after = weights(loaded_tiny)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_heads_of_a_models_text_part_are_dropped_and_a_model_without_any_says_so(tmp_path, store):
    def loaded(name):
        local = resolve(parse_model(str(architectures.build(name, tmp_path / name))), store=store)
        return load(local, dtype=torch.float32)

    seen = loaded("llava")
    with dropping(seen, kind="head", seed=(0, 0)):
        for block in seen.anatomy.blocks:
            weight = seen.model.get_submodule(block.attention_output).weight
            assert int((weight == 0).all(dim=0).sum()) == 16
    for kind, what in (("head", "heads of attention"), ("channel", "feed-forward channels")):
        with pytest.raises(ModelError, match=f"mamba2 model has no {what} to drop"):
            dropping(loaded("mamba2"), kind=kind, seed=(0, 0))


def test_a_state_space_has_nothing_to_drop_and_no_super_weights_and_says_so(tmp_path, store, probe):
    local = resolve(parse_model(str(architectures.build("mamba", tmp_path / "model"))), store=store)
    model = Subject(local=local, store=store, dtype="float32", probe=probe)
    found = loss_increase(model, probe)
    assert found == {kind: dict.fromkeys(probe.languages) for kind in KINDS}
    table = FeatureTable(values={"head_drop_increase": found["head"]})
    assert table.over(probe.languages).left_out == {"head_drop_increase": "undefined in this model"}
    assert model.super_weight_candidates() == ()
    assert super_weights(find_super_weights(model, (), probe)).verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("architecture", "heads", "channels"),
    [
        ("nemotron_h", [2], [1, 1, 3]),  # a state space, experts and one beside them, attention, a feed-forward part
        ("qwen3_next", [3], [0, 0, 1, 1, 2, 2, 3, 3]),
        ("lfm2", [1], [0, 1, 2]),
    ],
)
def test_only_layers_that_have_heads_or_channels_lose_some(architecture, heads, channels, tmp_path, store):
    folder = architectures.build(architecture, tmp_path / "model")
    loaded = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
    before = weights(loaded)
    for kind, layers in (("head", heads), ("channel", channels)):
        with dropping(loaded, kind=kind, seed=(0, 0)):
            changed = [
                linear.layer
                for linear in loaded.anatomy.linears
                if not torch.equal(before[linear.parameter], loaded.model.get_parameter(linear.parameter))
            ]
        assert changed == layers


def test_the_loss_increase_is_the_mean_over_draws_of_the_relative_increase_and_is_stored(model, probe):
    found = loss_increase(model, probe)
    assert set(found) == set(KINDS)
    full = model.losses(FULL_PRECISION, probe)
    by_hand = []
    for draw in range(DRAWS):
        with dropping(model.loaded(), kind="channel", seed=(model.seed, draw)):
            plain = without_parts("channel", seed=model.seed, draw=draw)
            by_hand.append(model.losses(plain, probe)["de"].nll.sum() / full["de"].nll.sum() - 1)
    assert found["channel"]["de"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    misses = model.store.misses
    assert loss_increase(model, probe) == found
    assert model.store.misses == misses


def test_draws_differ_and_languages_share_them():
    keys = [dict(without_parts(kind, seed=0, draw=draw).key) for kind in KINDS for draw in range(DRAWS)]
    assert len({tuple(sorted(key.items())) for key in keys}) == len(keys)
    assert not any("language" in key for key in keys)


def test_the_table_holds_every_feature_of_the_hypothesis_for_every_language(model, probe):
    statistics = activations(model.loaded(), probe, store=model.store)
    table = measured_features(statistics, loss_increase(model, probe))
    assert list(table.values) == list(EXPECTED)
    assert all(set(by_language) == set(TAGS) for by_language in table.values.values())
    own = language_features(statistics["de"])
    assert table.values["participation_late"]["de"] == own["participation_late"]
    assert table.values["half_prediction"]["fr"] == language_features(statistics["fr"])["half_prediction"]


def test_similarity_to_others_is_the_mean_over_the_other_languages(model, probe):
    statistics = activations(model.loaded(), probe, store=model.store)
    found = similarity_to_others(statistics)
    pairs = [
        np.mean(
            [
                aligned_similarity(a, b)
                for a, b in zip(statistics["de"].segment_state, statistics[other].segment_state, strict=True)
            ]
        )
        for other in ("en", "fr")
    ]
    assert found["de"] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert similarity_to_others({"de": statistics["de"]}) == {"de": None}
