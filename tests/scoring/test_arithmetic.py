"""How products of bfloat16 weights are computed."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def empty():
    from evenbits.scoring import arithmetic

    arithmetic._widened.clear()
    yield
    arithmetic._widened.clear()


def parameter(*values):
    import torch

    return torch.nn.Parameter(torch.tensor(values, dtype=torch.bfloat16), requires_grad=False)


def test_a_weight_is_widened_once_while_it_stays_as_it_is():
    from evenbits.scoring.arithmetic import widened

    weight = parameter(1.0, 2.5)
    assert widened(weight).tolist() == [1.0, 2.5]
    assert widened(weight) is widened(weight)


def test_a_weight_changed_in_place_is_widened_anew():
    from evenbits.scoring.arithmetic import widened

    weight = parameter(1.0, 2.5)
    widened(weight)
    weight.mul_(2)
    assert widened(weight).tolist() == [2.0, 5.0]


def test_the_copy_goes_with_the_weight():
    from evenbits.scoring import arithmetic

    weight = parameter(1.0)
    arithmetic.widened(weight)
    assert len(arithmetic._widened) == 1
    del weight
    gc.collect()
    assert len(arithmetic._widened) == 0


def test_copies_take_no_more_memory_than_allowed(monkeypatch):
    from evenbits.scoring import arithmetic

    monkeypatch.setattr(arithmetic, "WIDENED_BYTES", 8)  # two float32 numbers
    kept, beyond = parameter(1.0, 2.0), parameter(3.0)
    assert arithmetic.widened(kept) is arithmetic.widened(kept)
    assert arithmetic.widened(beyond).tolist() == [3.0]
    assert arithmetic.widened(beyond) is not arithmetic.widened(beyond)


def test_products_of_bfloat16_weights_equal_float32_products_of_the_same_weights():
    import torch
    from evenbits.scoring.arithmetic import WidenedProducts
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5, 7, generator=generator).bfloat16(), requires_grad=False)
    x = torch.randn(3, 7, generator=generator)
    with WidenedProducts():
        found = functional.linear(x, weight)
    assert torch.equal(found, x @ weight.float().T)


@pytest.mark.parametrize("expected", ["bfloat16", "float32"])
def test_bfloat16_is_multiplied_as_such_where_the_cpu_has_instructions_for_it(monkeypatch, expected):
    import torch
    from evenbits.scoring import arithmetic

    monkeypatch.setattr(arithmetic, "multiplies_bfloat16", lambda: expected == "bfloat16")
    assert arithmetic.product_dtype(torch.bfloat16, torch.device("cpu")) is getattr(torch, expected)
    assert arithmetic.product_dtype(torch.float32, torch.device("cpu")) is torch.float32
    assert arithmetic.product_dtype(torch.bfloat16, torch.device("cuda")) is torch.bfloat16


def test_attention_of_bfloat16_has_the_gradients_of_float32_and_the_dtype_it_was_asked_for():
    import torch
    from evenbits.scoring.arithmetic import WidenedAttention
    from torch.nn import functional

    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, 3, 40, 8, generator=generator).bfloat16() for _ in range(4)]

    def gradients(dtype):
        q, k, v = (one.to(dtype).requires_grad_() for one in drawn[:3])
        mixed = functional.scaled_dot_product_attention(q, key=k, value=v, is_causal=True)
        assert mixed.dtype is dtype
        return torch.autograd.grad((mixed.float() * drawn[3].float()).sum(), (q, k, v))

    exact, plain = gradients(torch.float32), gradients(torch.bfloat16)
    with WidenedAttention():
        wide = gradients(torch.bfloat16)
    for true, here, there in zip(exact, wide, plain, strict=True):
        error, before = (float((one.float() - true).norm()) for one in (here, there))
        assert error < 0.005 * float(true.norm())  # its last rounding alone
        assert error < before
