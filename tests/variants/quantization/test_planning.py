"""Plans and what they cost to store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evenbits.errors import SpecError
from evenbits.models.anatomy import Anatomy, Linear
from evenbits.variants.quantization.planning import bits_per_weight, index_bits, plan, storage
from evenbits.variants.quantization.spec import parse_spec

SHAPES = {"lm_head": (1000, 128), "model.embed": (1000, 128)}
for _layer in (0, 1, 10):
    SHAPES |= {f"model.layers.{_layer}.attn.q": (128, 128), f"model.layers.{_layer}.mlp.down": (128, 192)}
LINEARS = 3 * (128 * 128 + 128 * 192)


def anatomy(*, tied=True):
    linears = tuple(
        Linear(
            name=name,
            layer=int(name.split(".")[2]),
            part="mlp" if "mlp" in name else "attention",
            role=name.rsplit(".", 1)[-1],
            transposed=False,
        )
        for name in SHAPES
        if "layers" in name
    )
    return Anatomy(
        model_type="llama",
        layers=(),
        blocks=(),
        linears=linears,
        embedding="model.embed",
        head="lm_head",
        final_norm=None,
        tied=tied,
    )


def planned(text, *, tied=True):
    return plan(parse_spec(text), anatomy(tied=tied), SHAPES)


def names(text, status, *, tied=True):
    return [tensor.name for tensor in planned(text, tied=tied).tensors if tensor.status == status]


def test_embedding_and_head_stay_unless_included():
    assert names("int4-g64", "untouched") == ["model.embed"]
    assert planned("int4-g64").tensors[-1].shared_with == ("lm_head",)
    assert names("int4-g64", "untouched", tied=False) == ["model.embed", "lm_head"]
    assert names("int4-g64+include:head", "untouched") == ["model.embed"]
    assert "lm_head" in names("int4-g64+include:head", "quantized")


def test_a_tied_pair_that_is_included_whole_is_one_matrix():
    tensors = planned("int4-g64+include:head+include:embedding").tensors
    assert [tensor.name for tensor in tensors[-2:]] == ["model.layers.10.mlp.down", "model.embed"]
    assert tensors[-1].shared_with == ("lm_head",)


def test_names_match_whole_path_parts():
    assert names("int4-g64+protect:model.layers.1", "protected") == ["model.layers.1.attn.q", "model.layers.1.mlp.down"]
    assert names("int4-g64+only:model.layers.10.attn", "quantized") == ["model.layers.10.attn.q"]
    assert names("int4-g64+only:model.layers.10+protect:model.layers.10.mlp", "quantized") == ["model.layers.10.attn.q"]


def test_full_precision_quantizes_nothing_and_costs_16_bits():
    full = planned("none")
    assert full.quantized == ()
    assert bits_per_weight(full) == 16
    assert storage(full).bits_per_weight_with_embeddings == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4-g128", r"model\.layers\.0\.mlp\.down has 192 inputs, and groups of 128.*sizes that do: 64, 32"),
        ("int4-g64+protect:model.layer.0", r"protect:model\.layer\.0 matches no"),
        ("int4-g64+only:h.0", r"only:h\.0 matches no.*such as model\.layers\.0"),
        ("int4-g64+only:lm_head", "quantizes nothing.*include:head"),
        ("int4-g64+protect:model", "quantizes nothing"),
    ],
)
def test_a_spec_that_does_not_fit_the_model_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        planned(text)


def test_a_protected_layer_may_have_any_width():
    spec = "int4-g128+" + "+".join(f"protect:model.layers.{layer}.mlp" for layer in (0, 1, 10))
    assert len(planned(spec).quantized) == 3


def test_what_stays_by_rule_needs_no_protection_and_cannot_be_asked_for():
    routed = replace(anatomy(), kept=("model.layers.1.mlp.gate.weight",))
    for spec in ("int4-g64+protect:model.layers.1.mlp.gate", "int4-g64+only:model.layers.1.mlp.gate.weight"):
        with pytest.raises(SpecError, match=r"layers\.1\.mlp\.gate(\.weight)? stays in high precision by rule"):
            plan(parse_spec(spec), routed, SHAPES)


def test_a_tensor_without_a_shape_is_named():
    shapes = {name: shape for name, shape in SHAPES.items() if name != "model.layers.1.attn.q"}
    with pytest.raises(SpecError, match=r"model\.layers\.1\.attn\.q"):
        plan(parse_spec("int4-g64"), anatomy(), shapes)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("int4-g64", 4 + 16 / 64),
        ("int3-g32", 3 + 16 / 32),
        ("nf4-b64", 4 + 16 / 64),
        ("int4-g64-asym", 4 + (16 + 4) / 64),
        # rows: 6 x 128 scales over 3 x 128 x (128 + 192) weights
        ("int8-row", 8 + 16 * 6 * 128 / LINEARS),
        ("int8-tensor", 8 + 16 * 6 / LINEARS),
        # .1 % of 16384 is 16.4 -> 16, index 14 bits; of 24576 24.6 -> 25, index ceil(14.58) = 15 bits
        ("int4-g64+keep0.1%:magnitude", 4.25 + 3 * (16 * (16 + 14) + 25 * (16 + 15)) / LINEARS),
        # of all 122880 together 122.88 -> 123, index ceil(16.9) = 17 bits
        ("int4-g64+keep0.1%:magnitude@global", 4.25 + 123 * (16 + 17) / LINEARS),
        # one of three layers at 16 bits
        ("int4-g64+protect:model.layers.0", (2 * 4.25 + 16) / 3),
        ("int4-g64+only:model.layers.0", (4.25 + 2 * 16) / 3),
        # the head joins numerator and denominator
        ("int4-g64+protect:lm_head+include:head", (4.25 * LINEARS + 16 * 128_000) / (LINEARS + 128_000)),
    ],
)
def test_bits_per_weight_by_hand(text, bits):
    assert bits_per_weight(planned(text)) == pytest.approx(bits, rel=1e-12)


def test_embeddings_are_counted_for_reference():
    tied = (4.25 * LINEARS + 16 * 128_000) / (LINEARS + 128_000)
    assert storage(planned("int4-g64")).bits_per_weight_with_embeddings == pytest.approx(tied)
    untied = (4.25 * LINEARS + 16 * 256_000) / (LINEARS + 256_000)
    assert storage(planned("int4-g64", tied=False)).bits_per_weight_with_embeddings == pytest.approx(untied)
    # include:head unties: the embedding stays beside the quantized head
    included = (4.25 * (LINEARS + 128_000) + 16 * 128_000) / (LINEARS + 256_000)
    assert storage(planned("int4-g64+include:head")).bits_per_weight_with_embeddings == pytest.approx(included)


@pytest.mark.parametrize(("size", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (2**20, 20), (2**20 + 1, 21)])
def test_an_index_has_as_many_bits_as_places_need(size, bits):
    assert index_bits(size) == bits
