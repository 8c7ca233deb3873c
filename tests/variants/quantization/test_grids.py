"""Rounding to integer and NF4 grids, and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evenbits.errors import NonFiniteError, SpecError
from evenbits.variants.quantization import grids
from evenbits.variants.quantization.clipping import clipped_scales
from evenbits.variants.quantization.grids import FP16_LARGEST, FP16_SMALLEST, NF4_LEVELS, quantize
from evenbits.variants.quantization.spec import parse_spec
from fake_device import FAKE, emulated
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SYMMETRIC = ["int2-row", "int3-g8", "int4-g16", "int4-tensor", "int8-row", "nf4-b8"]
ALL = [*SYMMETRIC, "int2-row-asym", "int4-g8-asym", "int8-tensor-asym"]
# a normal FP16 scale needs the largest weight of a group to be well above 2^-14 * 127
WEIGHTS = arrays(
    np.float32,
    (4, 16),
    elements=st.floats(-1000, 1000, width=32).map(lambda x: 0.0 if abs(x) < 0.03125 else x),
)


def grid(text):
    return parse_spec(text).grid


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def random_matrix(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32))


def reference(w, text):
    """The rules of the module's docstring in numpy, one group at a time and without any trick."""
    g = grid(text)
    flat = w.numpy().reshape(g.scales(tuple(w.shape)), -1)
    out = np.empty_like(flat)
    for n, group in enumerate(flat):
        if g.kind == "nf4":
            scale = np.float32(np.float16(np.abs(group).max()))
            x = group / scale
            out[n] = np.float32(NF4_LEVELS)[np.abs(x[:, None] - np.float32(NF4_LEVELS)).argmin(1)] * scale
        elif g.symmetric:
            q = 2 ** (g.bits - 1) - 1
            scale = np.float32(np.float16(np.abs(group).max() / np.float32(q)))
            out[n] = np.clip(np.rint(group / scale), -q, q) * scale
        else:
            top = 2**g.bits - 1
            low, high = min(group.min(), np.float32(0)), max(group.max(), np.float32(0))
            scale = np.float32(np.float16((high - low) / np.float32(top)))
            zero = np.rint(-low / scale)
            out[n] = (np.clip(np.rint(group / scale) + zero, 0, top) - zero) * scale
    return torch.from_numpy(out.reshape(w.shape))


@pytest.mark.parametrize("text", ALL)
def test_the_fast_path_equals_the_rules_written_out(text):
    w = random_matrix(40, 64)
    assert torch.equal(quantize(w, grid(text)).values, reference(w, text))
    few = w.bfloat16()  # what has fewer bits is rounded in float32 all the same
    assert torch.equal(
        quantize(few, grid(text), dtype=torch.bfloat16).values, quantize(few.float(), grid(text)).values.bfloat16()
    )


@pytest.mark.parametrize(
    "text", ["int4-g64", "int4-row", "int4-tensor", "int4-row-asym", "int4-tensor-asym", "nf4-b64"]
)
def test_blocks_do_not_show_in_the_result(text, monkeypatch):
    w = random_matrix(96, 192)
    whole = quantize(w, grid(text))
    monkeypatch.setattr(grids, "BLOCK", 1000)  # divides neither rows nor groups
    blocked = quantize(w, grid(text))
    assert torch.equal(whole.values, blocked.values)
    assert torch.equal(whole.scales.scale, blocked.scales.scale)


def test_symmetric_rounds_half_to_even_of_weight_over_scale():
    # int3: q = 3, scale = 3 / 3 = 1; 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, -0.5 -> 0, -1.5 -> -2
    w = matrix([3, 0.5, 1.5, 2.5, -0.5, -1.5])
    assert quantize(w, grid("int3-row")).values.tolist() == [[3, 0, 2, 2, 0, -2]]


def test_weights_are_divided_by_the_scale_not_multiplied_by_its_inverse():
    # int8, scale 1070 / 8192: the second weight is exactly 62.5 steps and goes to the even 62. Times the inverse, which
    # float32 cannot hold, it is 62.500004 and would go to 63.
    scale = 1070 / 8192
    w = matrix([127 * scale, 62.5 * scale])
    assert quantize(w, grid("int8-row")).values.tolist() == [[127 * scale, 62 * scale]]


def test_scales_are_fp16_numbers():
    # 1 / 7 = 0.142857...; FP16 keeps 11 bits there, steps of 2^-13: 1170 / 8192
    rounded = quantize(matrix([1.0, 0, 0, 0]), grid("int4-row"))
    assert rounded.scales.scale.tolist() == [[1170 / 8192]]
    assert rounded.values[0, 0].item() == 7 * 1170 / 8192


def test_asymmetric_by_hand():
    # int2: 0..3 between -1 and 2, scale 1, zero 1: values -1, 0, 1, 2
    rounded = quantize(matrix([-1, 0.4, 0.6, 2]), grid("int2-row-asym"))
    assert rounded.values.tolist() == [[-1, 0, 1, 2]]
    assert rounded.scales.zero.tolist() == [[1]]


def test_asymmetric_ranges_include_zero():
    # all weights positive: the range is [0, 3], not [2, 3]; scale 1, zero 0
    rounded = quantize(matrix([2.0, 3.0], [-2.0, -3.0]), grid("int2-row-asym"))
    assert rounded.values.tolist() == [[2, 3], [-2, -3]]
    assert rounded.scales.zero.tolist() == [[0], [3]]


@given(w=WEIGHTS, text=st.sampled_from(ALL))
@settings(deadline=None, max_examples=50)
def test_zero_is_always_exact(w, text):
    w[:, ::2] = 0
    assert not quantize(torch.from_numpy(w), grid(text)).values[:, ::2].any()


@pytest.mark.parametrize("text", ALL)
def test_groups_of_zeros_stay_zero_and_have_a_usable_scale(text):
    rounded = quantize(torch.zeros(2, 16), grid(text))
    assert torch.equal(rounded.values, torch.zeros(2, 16))
    assert bool((rounded.scales.scale == FP16_SMALLEST).all())


@given(w=WEIGHTS, text=st.sampled_from(SYMMETRIC))
@settings(deadline=None, max_examples=50)
def test_quantizing_twice_is_quantizing_once(w, text):
    once = quantize(torch.from_numpy(w), grid(text)).values
    assert torch.equal(quantize(once, grid(text)).values, once)


@given(w=WEIGHTS, text=st.sampled_from([text for text in ALL if not text.startswith("nf4")]))
@settings(deadline=None, max_examples=50)
def test_the_error_is_at_most_half_a_step_inside_the_range(w, text):
    g = grid(text)
    w = torch.from_numpy(w)
    rounded = quantize(w, g)
    w_NS, q_NS, step = grids.groups(w, g), grids.groups(rounded.values, g), rounded.scales.scale
    if g.symmetric:
        low, high = -(2 ** (g.bits - 1) - 1) * step, (2 ** (g.bits - 1) - 1) * step
    else:
        low, high = -rounded.scales.zero * step, (2**g.bits - 1 - rounded.scales.zero) * step
    inside = (w_NS >= low) & (w_NS <= high)
    assert bool(((w_NS - q_NS).abs() <= step * 0.5 * (1 + 1e-5))[inside].all())
    # outside lies at most what rounding the scale to FP16 (2^-11) and the zero point (half a step) took away
    beyond = torch.maximum(low - w_NS, w_NS - high).clamp(min=0)
    assert bool((beyond <= step * (0.5 * (not g.symmetric) + 2**g.bits * 2**-11) * (1 + 1e-5)).all())


@given(w=WEIGHTS)
@settings(deadline=None, max_examples=50)
@example(w=np.full((4, 16), -1000, dtype=np.float32))
def test_nf4_takes_the_nearest_level(w):
    rounded = quantize(torch.from_numpy(w), grid("nf4-b8"))
    x_NS = torch.from_numpy(w).view(-1, 8).double() / rounded.scales.scale
    q_NS = rounded.values.view(-1, 8).double() / rounded.scales.scale
    nearest = (x_NS[..., None] - torch.tensor(NF4_LEVELS, dtype=torch.float64)).abs().amin(-1)
    assert bool(((x_NS - q_NS).abs() <= nearest + 1e-6).all())


def test_nf4_levels_are_the_published_ones():
    # QLoRA, arXiv 2305.14314, appendix E
    published = [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
    assert list(NF4_LEVELS) == published
    assert quantize(matrix(published), grid("nf4-b16")).values.tolist() == [torch.tensor(published).tolist()]


def test_nf4_table_equals_a_search_over_the_midpoints():
    levels = torch.tensor(NF4_LEVELS)
    between = (levels[1:] + levels[:-1]) / 2
    far = torch.tensor(9.0)
    x = torch.cat(
        [between, torch.nextafter(between, far), torch.nextafter(between, -far), torch.linspace(-1, 1, 100_001)]
    )
    found = x.clone()
    grids._nearest_level(found)
    assert torch.equal(found, levels[torch.bucketize(x, between)])


def test_a_scale_too_small_for_fp16_becomes_the_smallest_one():
    # absmax 2^-24 * 2: the scale 2^-24 * 2 / 7 would be 0 in FP16; with 2^-24 the weights are 2, 1, 0, 0 steps
    u = FP16_SMALLEST
    rounded = quantize(matrix([2 * u, -u, 0.4 * u, 0]), grid("int4-row"))
    assert rounded.scales.scale.tolist() == [[u]]
    assert rounded.values.tolist() == [[2 * u, -u, 0, 0]]


def test_a_scale_too_large_for_fp16_becomes_the_largest_one():
    # absmax 1e6 at 2 bits: the scale would be 1e6, infinite in FP16; the weight is clamped to 1 x 65504
    rounded = quantize(matrix([1e6, 70000, 10, 0]), grid("int2-row"))
    assert rounded.scales.scale.tolist() == [[FP16_LARGEST]]
    assert rounded.values.tolist() == [[FP16_LARGEST, FP16_LARGEST, 0, 0]]


@pytest.mark.parametrize("text", ["int4-row", "int4-tensor", "int4-row-asym", "nf4-b4"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(text, bad):
    with pytest.raises(NonFiniteError, match=r"model\.layers\.0\.mlp"):
        quantize(matrix([1, 2, 3, 4], [1, bad, 3, 4]), grid(text), name="model.layers.0.mlp")


def test_groups_that_do_not_divide_the_inputs_are_refused():
    with pytest.raises(SpecError, match="groups of 64 do not divide 100 inputs"):
        quantize(torch.ones(2, 100), grid("int4-g64"))


def test_the_input_is_not_changed():
    w = random_matrix(8, 64)
    before = w.clone()
    quantize(w, grid("int4-g16"))
    clipped_scales(w, grid("int4-g16"))
    assert torch.equal(w, before)


def squared_error(w, g, scales, weight_I=None):
    error = (quantize(w, g, scales=scales).values - w).double().square()
    return grids.groups(error if weight_I is None else error * weight_I, g).sum(1)


@given(w=WEIGHTS, text=st.sampled_from(ALL), weighted=st.booleans())
@settings(deadline=None, max_examples=50)
def test_clipping_never_makes_the_error_larger(w, text, weighted):
    w, g = torch.from_numpy(w), grid(text)
    weight_I = torch.arange(16.0) if weighted else None
    plain = squared_error(w, g, None, weight_I)
    clipped = squared_error(w, g, clipped_scales(w, g, weight_I=weight_I), weight_I)
    assert bool((clipped <= plain * (1 + 1e-5) + 1e-12).all())


def test_clipping_gives_up_a_lonely_outlier_for_many_others():
    # int2: levels -s, 0, s. Range 10: 99 weights of 2.9 round to 0, error 99 * 2.9^2 = 833. At ratio .3, s = 3: the 99
    # cost 99 * .1^2 = 1 and the outlier (10 - 3)^2 = 49. Between them, s = 3.5 costs 99 * .6^2 + 6.5^2 = 78.
    w = torch.full((1, 100), 2.9)
    w[0, 0] = 10
    g = grid("int2-row")
    assert clipped_scales(w, g).scale.tolist() == [[3.0]]
    # an input that counts a thousand times as much is not given up: 7^2 * 1000 = 49000 > 833
    weight_I = torch.ones(100)
    weight_I[0] = 1000
    assert clipped_scales(w, g, weight_I=weight_I).scale.tolist() == [[10.0]]


def test_clipping_leaves_a_range_alone_that_cannot_be_improved():
    w = matrix([7, -6, 5, 1])  # every weight is on the int4 grid already
    assert clipped_scales(w, grid("int4-row")).scale.tolist() == [[1.0]]


@pytest.mark.parametrize("text", ["int3-g8", "int4-g8", "int8-g8", "int4-g8-asym", "nf4-b8"])
@pytest.mark.parametrize("clip", [False, True], ids=["whole range", "clipped"])
def test_a_device_that_divides_by_reciprocals_rounds_as_a_cpu_to_the_bit(text, clip):
    """As CUDA does by a number of the host; of 65,536 scales some lie close to the middle of two FP16 numbers."""
    w = random_matrix(4096, 128)

    def rounded(w):
        scales = clipped_scales(w, grid(text)) if clip else None
        return quantize(w, grid(text), scales=scales)

    here = rounded(w)
    with emulated():
        there = rounded(w.to(FAKE))
        assert torch.equal(there.scales.scale.cpu(), here.scales.scale)
        assert torch.equal(there.values.cpu(), here.values)
