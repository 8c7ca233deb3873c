"""`bnb:` and `torchao:`: what the libraries really store, beside our own rounding and our own count of bits."""

import architectures
import numpy as np
import pytest
import torch
from evenbits.cells import Subject, measure_damage
from evenbits.errors import SpecError
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.libraries import LibrarySpec, quantized_copy
from evenbits.variants.quantization.matrices import quantize_planned
from evenbits.variants.quantization.patching import checkpoint_source, plan_loaded
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.registry import parse

SPECS = ("bnb:nf4", "bnb:int8", "torchao:int8", "torchao:int4-g32")
NEEDS = "needs bitsandbytes and torchao: pip install 'evenbits[backends]'"


@pytest.fixture(scope="module")
def libraries():
    pytest.importorskip("bitsandbytes", reason=NEEDS)
    pytest.importorskip("torchao", reason=NEEDS)


@pytest.fixture
def subject(tiny_model, tmp_path):
    store, folder = Store(tmp_path / "store"), tiny_model("llama", layers=2, hidden=64)
    return Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32", context=256)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [*((spec, spec) for spec in SPECS), ("torchao:intx4-g32", "torchao:int4-g32"), ("bnb:fp4", "bnb:fp4")],
)
def test_the_text_round_trips(text, canonical):
    assert isinstance(parse(text), LibrarySpec)
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize("text", ["bnb:int4", "torchao:nf4", "torchao:int9-g32", "torchao:int4", "bnb:"])
def test_what_no_library_has_is_refused_with_what_there_is(text):
    with pytest.raises(SpecError, match="there are bnb:nf4"):
        parse(text)


@pytest.mark.parametrize("text", ["bnb:nf4", "torchao:int8"])
@pytest.mark.parametrize("architecture", ["qwen3_moe", "gpt_oss"])
def test_experts_that_no_library_would_take_are_refused_by_name(text, architecture, tmp_path):
    folder, store = architectures.build(architecture, tmp_path / "model"), Store(tmp_path / "store")
    subject = Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32")
    with pytest.raises(SpecError, match=r"layers\.0\.mlp\.experts\.gate_up_proj is experts that share .* int4-g64"):
        quantized_copy(subject, parse(text))


def dequantized(module):
    """The weights as the library multiplies with them; of bitsandbytes before the first forward, which repacks them."""
    weight = module.weight
    if type(module).__name__ == "Linear4bit":
        import bitsandbytes.functional as f

        return f.dequantize_4bit(weight.data, weight.quant_state)
    if type(module).__name__ == "Linear8bitLt":
        return weight.data.float() * weight.SCB.float()[:, None] / 127
    return weight.dequantize()


def simulated(loaded, text):
    plan = plan_loaded(loaded, parse_spec(text))
    return {matrix.name: matrix for matrix in quantize_planned(plan, checkpoint_source(loaded))}


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("spec", "ours", "limits"),
    [
        # The same 16 levels and blocks; our scale is float16, half a unit in the last of 11 bits. Weights near the
        # middle of two levels may go the other way: no two levels are more than .31 of a scale apart.
        ("bnb:nf4", "nf4-b64", (0.0005, 0.005, 0.31)),
        # Weights go through float16 first, and our scale is float16, 127 times half a unit in the last place: .06 of a
        # step for the largest. Ties may go the other way.
        ("bnb:int8", "int8-row", (0.07, 0.02, 1.07)),
        # 256 levels from -128 where ours has 255 from -127, so absmax / 127.5 is a step: values move by up to one step
        ("torchao:int8", "int8-row", (0.51, 0.25, 1.01)),
        # 16 levels from -8 where ours has 15 from -7, so absmax / 7.5 is a step
        ("torchao:int4-g32", "int4-g32", (0.51, 0.25, 1.01)),
    ],
)
def test_their_weights_are_ours_up_to_an_explained_difference(spec, ours, limits, subject):
    """Limits: scales by which all but a share of the weights differ at most; that share; and by which any does."""
    near, share, most = limits
    mine = simulated(subject.loaded(), ours)
    copy = quantized_copy(subject, parse(spec))
    for name, matrix in mine.items():
        theirs = dequantized(copy.model.get_submodule(name)).float()
        scales = matrix.scales.scale.float().reshape(-1)
        step = scales.repeat_interleave(matrix.values.numel() // scales.numel()).view_as(matrix.values)
        differences = (theirs - matrix.values).abs() / step
        assert float(differences.max()) <= most, name
        assert float((differences > near).float().mean()) <= share, name


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(("spec", "levels"), [("torchao:int8", 127.5), ("torchao:int4-g32", 7.5)])
def test_torchaos_scale_is_for_one_level_more_below_zero(spec, levels, subject):
    """What makes the difference to our grids."""
    copy = quantized_copy(subject, parse(spec))
    name = copy.anatomy.linears[0].name
    scale = copy.model.get_submodule(name).weight.scale.float()
    w_OI = subject.loaded().model.get_submodule(name).weight.detach()
    absmax = w_OI.view(*scale.shape, -1).abs().amax(-1)
    torch.testing.assert_close(absmax / scale, torch.full_like(scale, levels))


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SPECS)
def test_bits_are_those_of_the_tensors_the_library_keeps(spec, dtype, subject):
    subject.dtype = dtype
    chosen = parse(spec)
    copy = quantized_copy(subject, chosen)
    bits = weights = 0
    for linear in copy.anatomy.linears:
        module = copy.model.get_submodule(linear.name)
        weight = module.weight
        size = module.in_features * module.out_features
        weights += size
        if hasattr(weight, "quant_state"):
            bits += 8 * (weight.data.nbytes + weight.quant_state.absmax.nbytes)
        elif hasattr(weight, "SCB"):
            bits += 8 * (weight.data.nbytes + weight.SCB.nbytes)
        else:  # torchao keeps codes of less than a byte in bytes: counted as packed
            bits += size * chosen.bits + 8 * (weight.scale.nbytes + weight.zero_point.nbytes)
    assert chosen.bits_per_weight(subject) == pytest.approx(bits / weights)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_are_specs_like_any_other(dtype, subject):
    subject.dtype = dtype
    texts = {"de": ("the inner thing an other", "er hat in an"), "en": ("he is in the inn", "an inner one")}
    corpus = Corpus(name="t", source="here", languages=("de", "en"), segment_ids=("1", "2"), texts=texts)
    rows = measure_damage(subject, [parse(spec) for spec in SPECS], corpus).rows(seed=0)
    kl = {}
    for row in rows:
        assert row["artefact"]["version"]
        kl[row["spec"], row["language"]] = row["kl_nats_per_token"]["mean"]
    assert all(np.isfinite(value) and value > 0 for value in kl.values())
    assert kl["bnb:nf4", "en"] > 3 * kl["bnb:int8", "en"]
    assert kl["torchao:int4-g32", "en"] > 3 * kl["torchao:int8", "en"]


@pytest.mark.usefixtures("libraries")
def test_only_the_linears_of_the_layers_are_quantized(subject):
    for spec in ("bnb:nf4", "torchao:int8"):
        copy = quantized_copy(subject, parse(spec))
        head = copy.model.get_submodule(copy.anatomy.head)
        assert type(head) is torch.nn.Linear
        assert head.weight.dtype == torch.float32


@pytest.mark.usefixtures("libraries")
def test_a_group_that_does_not_divide_a_layer_is_named(subject):
    with pytest.raises(SpecError, match="groups of 48 do not divide the"):
        quantized_copy(subject, parse("torchao:int4-g48"))


@pytest.mark.usefixtures("libraries")
def test_gpt2_is_refused_with_the_reason(tiny_model, tmp_path):
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(tiny_model("gpt2", hidden=64))), store=store)
    with pytest.raises(SpecError, match="Conv1D"):
        quantized_copy(Subject(local=local, store=store, dtype="float32"), parse("bnb:nf4"))
