"""Every supported type gives the losses, and the damage of a spec, of an independent float32 computation."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import architectures
import pytest
from evenbits.errors import ModelError
from evenbits.models.families import REFUSED, SUPPORTED, WRAPPERS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
HEADING = """# Models

The types of model that evenbits measures, by `model_type` of config.json. Each is held by a test to an independent
computation: a tiny random model of the type, scored by transformers alone in float32, one text at a time, before and
after its matrices were rounded to `int4-row`. Losses and damage agree within .001 bits per segment, whatever a text is
batched with, also for texts longer than the attention window. This table is written by that test
(`EVENBITS_WRITE_DOCS=1 pytest tests/models/test_architectures.py -m slow`), from the modules of each model.

Every parameter of two and more dimensions in a decoder layer is quantized, or kept in high precision by a rule
(routers, indexers that choose what is attended to, convolutions along the text, gates of one number per head or expert,
decays of state spaces, biases of experts), or the model is refused with the parameter's name. Experts share a
parameter: their matrices count as one tensor, one below the other, so rows and groups are each expert's own, and
`tensor` grids and kept shares are over all experts of a layer. Of a multimodal model the text part is measured.
Activations of experts are those of the tokens sent to each of them, by expert and input; a test holds them, and
gradients, rounding errors and what is kept by them, to the same experts as plain products. Where a state space, a
convolution or linear attention mixes the tokens of some layers, or nothing does (layers of Nemotron-H that are a
feed-forward part alone), and in Falcon, whose weights transformers does not hand out, attention sinks are not known:
E-4 is not applicable, and two features of H-038 are undefined; heads are dropped where there are some. Writes by layer,
and critical layers, are refused where a layer has two feed-forward parts beside each other, or adds something else.

| type | state | attention products | feed-forward products | experts | kept in high precision |
|---|---|---|---|---|---|"""

QUICK = ("mistral", "gemma2", "cohere", "hyperclovax", "falcon", "mamba2", "qwen3_moe", "gpt_oss", "gemma3")
TOLERANCE = 1e-3  # bits per segment
TEXTS = ("a", "the inner thing an inner thing", "Привет! Kaixo, zer moduz? " * 3, "they went in the tent and then " * 4)
TRANSPOSED = ("gpt_oss", "llama4", "llama4_text")  # experts stored input x output
KEPT = re.compile(
    r"\.gate\.(weight|wg|moe)|router|shared_expert_gate|indexer|conv1d|conv\.conv|in_proj_(a|b|ba)\.|linear_attn\.[ab]_proj|A_log|_bias$"
)


def round_layers(model, architecture):
    """Round every matrix of the decoder layers by its name alone; what stays is listed in KEPT."""
    import torch
    from transformers.pytorch_utils import Conv1D

    count = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            inside = re.search(r"(layers|h|blocks)\.\d+\.", name) and not re.search(r"vision|visual|altup", name)
            if not inside or parameter.dim() < 2 or KEPT.search(name):
                continue
            owner = model.get_submodule(name.rpartition(".")[0])
            if parameter.dim() == 3:
                turn = architecture in TRANSPOSED
                w_EOI = parameter.transpose(1, 2) if turn else parameter
                rows = architectures.rounded_rows(w_EOI.reshape(-1, w_EOI.shape[2])).view_as(w_EOI)
                parameter.copy_(rows.transpose(1, 2) if turn else rows)
            elif isinstance(owner, Conv1D):
                parameter.copy_(architectures.rounded_rows(parameter.T.contiguous()).T)
            else:
                parameter.copy_(architectures.rounded_rows(parameter))
            count += 1
    return count


def independent(folder, architecture):
    """Losses of TEXTS in bits by transformers alone, one text at a time, before and after rounding."""
    import torch
    from evenbits.models.quiet import quiet_transformers
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    maker = AutoModelForImageTextToText if architecture in WRAPPERS else AutoModelForCausalLM
    with quiet_transformers():
        model = maker.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)

    def bits():
        found = []
        for text in TEXTS:
            ids = torch.tensor([[0, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
            with torch.inference_mode():
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
            found.append(
                torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum") / torch.log(torch.tensor(2.0))
            )
        return torch.stack(found)

    full = bits()
    count = round_layers(model, architecture)
    return full, bits(), count


def ours(folder, store):
    import torch
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.scoring import score
    from evenbits.variants.quantization.patching import quantized
    from evenbits.variants.quantization.spec import parse_spec

    loaded = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
    ids = [str(number) for number in range(len(TEXTS))]
    nats_per_bit = torch.log(torch.tensor(2.0, dtype=torch.float64))
    full, _ = score(loaded, "en", ids, TEXTS)
    with quantized(loaded, parse_spec("int4-row")):
        changed, _ = score(loaded, "en", ids, TEXTS)
    return loaded, torch.tensor(full.nll) / nats_per_bit, torch.tensor(changed.nll) / nats_per_bit


@pytest.mark.parametrize("architecture", architectures.every_type(*QUICK))
def test_losses_and_damage_are_those_of_an_independent_computation(architecture, tmp_path, store):
    folder = architectures.build(architecture, tmp_path / "model")
    full, changed, count = independent(folder, architecture)
    loaded, our_full, our_changed = ours(folder, store)
    assert len(loaded.anatomy.linears) == count
    assert float((our_full - full).abs().max()) < TOLERANCE
    assert float(((our_changed - our_full) - (changed - full)).abs().max()) < TOLERANCE
    assert float((changed - full).abs().max()) > 0.1  # rounding did something, in the independent computation too


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("architecture", "changes", "said"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "attention in both directions"),
        ("llama", {"sliding_window": 16}, "sets sliding_window to 16, which a llama model of transformers ignores"),
        ("llama", {"logits_scaling": 8.0}, r"sets logits_scaling to 8\.0"),
    ],
)
def test_settings_that_transformers_would_pass_over_are_refused(architecture, changes, said, tmp_path, store):
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve

    folder = architectures.build(architecture, tmp_path / "model")
    change_config(folder, **changes)
    with pytest.raises(ModelError, match=said):
        resolve(parse_model(str(folder)), store=store)


@pytest.mark.parametrize("text", ["granite", "cohere2"])
def test_a_scale_of_the_text_part_that_its_wrapper_ignores_is_refused(text, tmp_path, store, monkeypatch):
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve

    monkeypatch.setitem(architectures.WRAPPED, "llava_next", (text, architectures.PIXELS))
    folder = architectures.build("llava_next", tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"sets logits?_scal(e|ing) to .*, which transformers ignores in models of this"
    ):
        resolve(parse_model(str(folder)), store=store)


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 16, "use_sliding_window": False},
        {"sliding_window": 512},  # as long as the context: no window at all
        {"sliding_window": None},
    ],
)
def test_settings_that_change_nothing_are_let_through(changes, tmp_path, store):
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve

    folder = architectures.build("llama", tmp_path / "model")
    change_config(folder, **changes)
    assert resolve(parse_model(str(folder)), store=store).model_type == "llama"


def test_longrope_scores_a_text_as_if_it_were_alone(tmp_path, store):
    folder = architectures.build("phi3", tmp_path / "model")
    # The byte-level texts have 1 to 120 tokens, on both sides of the 32 positions at which the tables change.
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
    }
    change_config(folder, rope_parameters=rope, sliding_window=None, original_max_position_embeddings=32)
    full, _, _ = independent(folder, "phi3")
    _, our_full, _ = ours(folder, store)
    assert float((our_full - full).abs().max()) < TOLERANCE


def test_a_parameter_of_experts_that_nobody_knows_is_refused_by_name(tmp_path):
    import torch
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline

    model = outline(architectures.build("qwen3_moe", tmp_path / "model"))
    experts = model.model.layers[1].mlp.experts
    experts.side_proj = torch.nn.Parameter(torch.empty(4, 8, 64, device="meta"))
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.experts\.side_proj \(Qwen3MoeExperts, 4 x 8 x 64\) is not"):
        anatomy_of(model)


@pytest.mark.parametrize("architecture", architectures.every_type("gpt2", "gpt_oss", "qwen3_moe", "qwen3_vl_moe"))
def test_what_is_read_of_every_type_from_disk_are_the_matrices_of_the_model(architecture, tmp_path, store):
    """Experts of Qwen3 lie one by one, of gpt_oss in one tensor as in the model, of Qwen3-VL the other way round."""
    import torch
    from evenbits.models.headers import entries
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.observe.weights.checkpoint import weight_statistics
    from evenbits.variants.quantization.patching import checkpoint_source
    from scipy import stats

    local = resolve(parse_model(str(architectures.build(architecture, tmp_path / "model"))), store=store)
    loaded, narrow = (load(local, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    found, source, held = weight_statistics(local, store=store), checkpoint_source(narrow), entries(local.folder)
    for linear in loaded.anatomy.linears:
        parameter = loaded.model.get_parameter(linear.parameter)
        w_OI = linear.matrix(parameter).double().numpy()
        assert found[linear.name].shape == w_OI.shape
        assert found[linear.name].kurtosis == pytest.approx(stats.kurtosis(w_OI, axis=None), rel=1e-9)
        assert found[linear.name].row_absmax == pytest.approx(abs(w_OI).max(axis=1))
        assert torch.equal(source(linear.name), torch.tensor(w_OI).float())
        if linear.experts and architecture == "qwen3_vl_moe":
            assert held[linear.parameter].shape == parameter.transpose(1, 2).shape != parameter.shape


def test_the_table_of_models_lists_what_is_supported_and_what_is_refused():
    text = DOCS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (right|refused)", text, flags=re.MULTILINE)
    assert [name for name, state in rows if state == "right"] == list(SUPPORTED)
    assert [name for name, state in rows if state == "refused"] == sorted(REFUSED)
    assert len(SUPPORTED) >= 60


@pytest.mark.slow
def test_the_table_of_models_says_what_is_quantized_in_each():
    """Written anew where EVENBITS_WRITE_DOCS is set, compared everywhere else."""
    text = table()
    if os.environ.get("EVENBITS_WRITE_DOCS"):
        DOCS.write_text(text, encoding="utf-8")
    assert DOCS.read_text(encoding="utf-8") == text


def table():
    lines = [HEADING, *(f"| `{name}` | right | {' | '.join(row(name))} |" for name in SUPPORTED)]
    lines += [f"| `{name}` | refused: {why} | | | |" for name, why in sorted(REFUSED.items())]
    return "\n".join(lines) + "\n"


def row(architecture):
    import torch
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import class_of
    from evenbits.models.quiet import quiet_transformers

    config = architectures.config_of(architecture)
    with quiet_transformers(), torch.device("meta"):
        anatomy = anatomy_of(class_of(config).from_config(config))
    by_part = {
        part: dict.fromkeys(one.role for one in anatomy.linears if one.part == part and not one.experts)
        for part in ("attention", "mlp")
    }
    experts = dict.fromkeys(
        f"{one.role} ({'in x out' if one.transposed else 'out x in'})" for one in anatomy.linears if one.experts
    )
    kept = dict.fromkeys(re.sub(r".*\.\d+\.", "", name).removesuffix(".weight") for name in anatomy.kept)
    cells = (*by_part.values(), experts, kept)
    return [", ".join(cell) or "-" for cell in cells]
