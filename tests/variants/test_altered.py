"""Rotated and rescaled variants: the function held, other damage, the model left as it came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evenbits.cells import measure_damage
from evenbits.cells.subject import Subject
from evenbits.errors import ModelError, SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.text.loading import load_corpus
from evenbits.variants.altered import rescaling
from evenbits.variants.interventions import Channels
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.registry import parse

TEXTS = ["rotate:int4-g64", "rescale:16x64:int4-row", "rescale:4x2.5:nf4-b64"]


@pytest.fixture
def subject(tiny_model, store):
    def make(architecture):
        local = resolve(parse_model(str(tiny_model(architecture))), store=store)
        return Subject(local=local, store=store, dtype="float32")

    return make


@pytest.fixture
def corpus(text_folder, store):
    return load_corpus(f"dir:{text_folder(['de', 'sw'])}", store=store)


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_reads_back(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rotate:none", "name a grid"),
        ("rotate:int4-g64+keep0.1%:activation", "without statistics"),
        ("rotate:int4-g64+include:head", "without embeddings"),
        ("rescale:int4-row", "rescale:16x64:int4-row"),
        ("rescale:0x2:int4-row", "rescale:16x64:int4-row"),
        ("rescale:3x0:int4-row", "rescale:16x64:int4-row"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, said):
    with pytest.raises(SpecError, match=said):
        parse(text)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_at_eight_bits_nothing_is_lost_though_every_weight_has_moved(subject, corpus, architecture):
    """A rotation or dose that were not undone on the other side would cost whole nats, not hundredths of a bit."""
    specs = [parse(text) for text in ("int8-g32", "rotate:int8-g32", "rescale:2x4:int8-g32")]
    damage = measure_damage(subject(architecture), specs, corpus)
    for spec in specs:
        assert np.abs(damage.excess_bits(str(spec))).max() < 0.5
    plain, rotated, rescaled = (damage.excess_bits(str(spec)) for spec in specs)
    assert not np.array_equal(plain, rotated)
    assert not np.array_equal(plain, rescaled)


def test_outliers_by_rescaling_widen_the_rows_and_cost_more_by_dose(subject, corpus):
    one = subject("llama")
    costs = [
        float(
            np.abs(
                measure_damage(one, [parse(f"rescale:4x{dose}:int4-row")], corpus).excess_bits(
                    f"rescale:4x{dose}:int4-row"
                )
            ).mean()
        )
        for dose in (1, 64)
    ]
    assert costs[1] > 1.5 * costs[0]


def test_the_seed_of_weights_kept_at_random_is_part_of_what_is_measured(subject):
    """The channels are given, so only such a spec depends on it."""
    first = subject("llama")
    for text, alike in (("int4-row+keep1%:random", False), ("int4-row+keep1%:magnitude", True)):
        one, other = (
            rescaling(replace(first, seed=seed), parse_spec(text), channels=Channels(), dose=2, into="consumer")
            for seed in (0, 1)
        )
        assert (one.key == other.key) is alike


def test_the_model_leaves_as_it_came(subject, corpus):
    import torch

    one = subject("llama")
    loaded = one.loaded("float32")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    measure_damage(one, [parse("rotate:int4-g32")], corpus)
    after = one.loaded("float32").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_architecture_that_would_compute_something_else_is_refused(subject, corpus):
    with pytest.raises(ModelError, match="rotating would change what a gpt2 model computes"):
        measure_damage(subject("gpt2"), [parse("rotate:int4-g32")], corpus)


def test_more_channels_than_there_are_is_a_sentence(subject, corpus):
    with pytest.raises(SpecError, match="channels"):
        measure_damage(subject("llama"), [parse("rescale:99999x2:int4-row")], corpus)
