"""Rounding to int4-g64 beside reading and writing the weights once, and beside the libraries that do the same.

On the device that EVENBITS_BENCH_DEVICE names, by default the CPU. bitsandbytes and torchao are asked where they are
installed (extra `backends`): nf4 and int4 with groups of 64, their own kernels, the same matrices.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.bench]

DEVICE = os.environ.get("EVENBITS_BENCH_DEVICE", "cpu")
SHAPES = ((2048, 2048), (512, 2048), (6144, 2048), (2048, 6144))
TIMES_COPY = 2.0  # DESIGN section 6


@pytest.fixture(scope="module")
def matrices():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(torch.bfloat16).to(DEVICE) for shape in SHAPES]


def waiting(work):
    """`work`, until the device is done with it."""

    def run():
        work()
        if DEVICE.startswith("cuda"):
            torch.cuda.synchronize()

    return run


def rounding(matrices):
    from evenbits.variants.quantization.matrices import quantize_matrix
    from evenbits.variants.quantization.spec import parse_spec

    grid = parse_spec("int4-g64").grid
    return waiting(lambda: [quantize_matrix(w, grid, dtype=w.dtype) for w in matrices])


def copying(matrices):
    copies = [torch.empty_like(w) for w in matrices]
    return waiting(lambda: [copy.copy_(w) for copy, w in zip(copies, matrices, strict=True)])


def by_bitsandbytes(matrices):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    return waiting(lambda: [dequantize_4bit(*quantize_4bit(w, blocksize=64, quant_type="nf4")) for w in matrices])


def by_torchao(matrices):
    from torchao.quantization.quant_primitives import (
        MappingType,
        choose_qparams_affine,
        dequantize_affine,
        quantize_affine,
    )

    def one(w):
        block = (1, 64)
        scale, zero = choose_qparams_affine(w, MappingType.SYMMETRIC, block, torch.int8, -8, 7, eps=1e-9)
        codes = quantize_affine(w, block, scale, zero, torch.int8, -8, 7)
        return dequantize_affine(codes, block, scale, zero, torch.int8, -8, 7, output_dtype=w.dtype)

    return waiting(lambda: [one(w) for w in matrices])


PEERS = {"bitsandbytes": by_bitsandbytes, "torchao": by_torchao}


def test_rounding_is_near_one_copy_of_the_weights_and_faster_than_the_libraries(matrices, interleaved, row, missing):
    there = {name: make(matrices) for name, make in PEERS.items() if importlib.util.find_spec(name)}
    contenders = {"evenbits": rounding(matrices), "one copy": copying(matrices), **there}
    with torch.inference_mode():
        seconds = interleaved(contenders, main="evenbits")
    work = f"rounding {sum(w.numel() for w in matrices) / 1e6:.0f} M weights to int4-g64 on {DEVICE}"
    for name in PEERS.keys() - there.keys():
        missing(work, name, "it is not installed (extra `backends`)")
    rows = [
        row(
            work=work,
            ours=seconds["evenbits"],
            peer=seconds["one copy"],
            peer_name="one copy",
            target=TIMES_COPY,
            at_least=False,
        )
    ]
    rows += [
        row(work=work, ours=seconds["evenbits"], peer=seconds[name], peer_name=name, target=1, at_least=True)
        for name in there
    ]
    assert all(one.reached for one in rows), "\n".join(map(str, rows))
