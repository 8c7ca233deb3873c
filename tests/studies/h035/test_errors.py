"""Local quantization errors against their definitions, computed another way; the model is left as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evenbits.observe.activations.batches import sequences_of
from evenbits.observe.activations.gradients import measure_gradients
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.studies.h035 import rounding
from evenbits.studies.h035.errors import FISHER_SEGMENTS, local_errors
from evenbits.studies.h035.rounding import product_groups
from evenbits.variants.quantization.patching import checkpoint_source, patched, quantized
from evenbits.variants.quantization.spec import parse_spec
from torch.nn import functional

SPEC = parse_spec("int3-row")
TEXTS = ("the inner thing says an other thing", "another inn, and then on", "they said it on the hill")


def corpus(texts=TEXTS):
    ids = tuple(str(place) for place in range(len(texts)))
    return Corpus(name="test", source="test", languages=("de",), segment_ids=ids, texts={"de": texts})


@pytest.fixture(params=["llama", "gpt2"])
def loaded(request, tiny_model, tmp_path):
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve

    folder = tiny_model(request.param, layers=2)
    return load(resolve(parse_model(str(folder)), store=Store(tmp_path / "models")), dtype=torch.float32)


def rounded(loaded):
    """Q(W) of every product, out x in, as quantizing the model gives it."""
    with quantized(loaded, SPEC):
        return {
            one.name: weight.T.clone() if one.transposed else weight.clone()
            for one in loaded.anatomy.linears
            for weight in [loaded.model.get_submodule(one.name).weight.detach()]
        }


def bits(loaded, texts=TEXTS):
    """Mean NLL of a segment, bits, in one pass per segment."""
    total = 0.0
    for sequence in sequences_of(loaded, texts, language="de"):
        ids = torch.tensor([sequence.ids])
        with torch.inference_mode():
            logits = loaded.model(input_ids=ids).logits[0, :-1]
            total += float(functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))
    return total / len(texts) / math.log(2)


def test_the_relative_error_is_that_of_each_product_on_its_own_inputs(loaded, store):
    found = local_errors(loaded, corpus(), [SPEC], store=store)[str(SPEC)]["de"]
    values, source = rounded(loaded), checkpoint_source(loaded)
    seen = {}
    hooks = [
        loaded.model.get_submodule(one.name).register_forward_pre_hook(
            lambda _, args, name=one.name: seen.setdefault(name, []).append(args[0][0, 1:])  # without the prefix token
        )
        for one in loaded.anatomy.linears
    ]
    bits(loaded)
    for hook in hooks:
        hook.remove()
    for place, one in enumerate(loaded.anatomy.linears):
        x = torch.cat(seen[one.name]).double()
        w, q = source(one.name).double(), values[one.name].double()
        expected = float((x @ (w - q).T).square().sum() / (x @ w.T).square().sum())
        assert found.relative[place] == pytest.approx(expected, rel=1e-4)


def test_the_first_order_change_is_the_slope_of_the_loss_towards_the_rounded_weights(loaded, store):
    found = local_errors(loaded, corpus(), [SPEC], store=store)[str(SPEC)]["de"]
    values, source = rounded(loaded), checkpoint_source(loaded)
    step = 1e-2
    sides = []
    for sign in (1, -1):
        moved = {name: source(name) + sign * step * (q - source(name)) for name, q in values.items()}
        with patched(loaded, moved):
            sides.append(bits(loaded))
    # central difference: the error is of third order in the step
    assert found.first_order.sum() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=2e-2, abs=1e-3)


def test_the_weighted_error_is_half_the_squared_error_times_the_squared_gradient(loaded, store):
    found = local_errors(loaded, corpus(), [SPEC], store=store)[str(SPEC)]["de"]
    squares = measure_gradients(loaded, TEXTS[:FISHER_SEGMENTS], language="de")
    values, source = rounded(loaded), checkpoint_source(loaded)
    expected = [
        float((squares[name] * (source(name) - q).square()).sum()) / 2 / math.log(2) for name, q in values.items()
    ]
    assert found.weighted == pytest.approx(expected, rel=1e-4)


def test_errors_are_stored_and_the_model_keeps_weights_and_gradient_flags(loaded, store):
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in loaded.model.named_parameters()}
    first = local_errors(loaded, corpus(), [SPEC], store=store)[str(SPEC)]["de"]
    misses = store.misses
    again = local_errors(loaded, corpus(), [SPEC], store=store)[str(SPEC)]["de"]
    assert store.misses == misses
    assert all(np.array_equal(getattr(first, name), getattr(again, name)) for name in first.ARRAYS)
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, before[name][0])
        assert parameter.requires_grad is before[name][1]
        assert parameter.grad is None


def test_protected_products_make_no_error_and_specs_measured_together_do_not_mix(loaded, store, tmp_path):
    protected = parse_spec(f"int3-row+protect:{loaded.anatomy.linears[0].name}")
    both = local_errors(loaded, corpus(), [protected, SPEC], store=store)
    alone = local_errors(loaded, corpus(), [SPEC], store=Store(tmp_path / "other"))
    part, whole = both[str(protected)]["de"], both[str(SPEC)]["de"]
    for name in whole.ARRAYS:
        assert np.array_equal(getattr(whole, name), getattr(alone[str(SPEC)]["de"], name))
        assert np.array_equal(getattr(part, name), getattr(whole, name)[1:])


def test_products_measured_some_at_a_time_give_what_all_together_give(loaded, store, tmp_path, monkeypatch):
    specs = [SPEC, parse_spec(f"{SPEC}+only:{loaded.anatomy.layers[-1]}")]  # nothing of it in most of the runs
    whole = local_errors(loaded, corpus(), specs, store=store)
    assert len(product_groups(loaded, 2)) == 1
    # One product at a time: none fits beside another.
    monkeypatch.setattr(rounding, "HELD_BYTES", 1)
    assert len(product_groups(loaded, 2)) == len(loaded.anatomy.linears)
    parts = local_errors(loaded, corpus(), specs, store=Store(tmp_path / "other"))
    for spec in map(str, specs):
        for name in whole[spec]["de"].ARRAYS:
            np.testing.assert_allclose(getattr(parts[spec]["de"], name), getattr(whole[spec]["de"], name), rtol=1e-6)


def test_what_was_measured_of_a_language_is_kept_when_the_run_ends_at_the_next(loaded, tmp_path, monkeypatch):
    ids, texts = ("0", "1", "2"), dict.fromkeys(("de", "en", "fr"), TEXTS)
    texts["en"], texts["fr"] = TEXTS[::-1], (TEXTS[1], TEXTS[0], TEXTS[2])
    three = Corpus(name="test", source="test", languages=tuple(texts), segment_ids=ids, texts=texts)
    measured, really = [], rounding.measure_errors

    def measure(model, lines, tag, deltas):
        if tag == "fr" and measured == ["de", "en"]:
            raise KeyboardInterrupt
        measured.append(tag)
        return really(model, lines, tag, deltas)

    monkeypatch.setattr(rounding, "measure_errors", measure)
    with pytest.raises(KeyboardInterrupt):
        local_errors(loaded, three, [SPEC], store=Store(tmp_path / "store"))
    measured.append("killed")
    found = local_errors(loaded, three, [SPEC], store=Store(tmp_path / "store"))
    assert measured == ["de", "en", "killed", "fr"]
    assert list(found[str(SPEC)]) == ["de", "en", "fr"]
