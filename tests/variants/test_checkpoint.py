"""`checkpoint:` specs: the formats that are deployed, made here as their makers lay them out."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import architectures
import numpy as np
import pytest
import torch
from deployed_checkpoints import (
    GROUP,
    coded,
    copied,
    four_bit_floats,
    fp8,
    is_linear,
    needs_compressed_tensors,
    nvfp4,
    rounded,
    values_of_four_bit_floats,
    w4a16,
)
from evenbits.cells import Subject, measure_damage
from evenbits.errors import EvenbitsError, ModelError, SpecError, UnsafeModelError
from evenbits.models import hub
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.records import Corpus
from evenbits.store import Store
from evenbits.variants.checkpoint import Checkpoint, activations_of
from evenbits.variants.export import write_quantized
from evenbits.variants.quantization.spec import parse_spec
from evenbits.variants.registry import bits_of, parse
from safetensors.torch import load_file, save_file

TEXTS = {
    "de": ("the inner thing an other", "er hat in an", "an inn on the river"),
    "en": ("he is in the inn", "an inner one", "the other one on the hill"),
}


@pytest.fixture
def corpus():
    return Corpus(name="t", source="here", languages=("de", "en"), segment_ids=("1", "2", "3"), texts=TEXTS)


@pytest.fixture
def folder(tiny_llama):
    return tiny_llama


@pytest.fixture
def subject(folder, tmp_path):
    store = Store(tmp_path / "store")
    return Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32", context=256)


def rows_of(subject, corpus, *specs):
    found = measure_damage(subject, [parse(spec) for spec in specs], corpus).rows(seed=0)
    return {(row["spec"], row["language"]): row for row in found}


def test_the_same_weights_elsewhere_lose_nothing(subject, corpus, folder, tmp_path):
    spec = f"checkpoint:{copied(folder, tmp_path / 'copy')}"
    for row in rows_of(subject, corpus, spec).values():
        assert row["excess_bits"]["value"] == pytest.approx(0, abs=1e-5)
        assert row["kl_nats_per_token"]["mean"] == pytest.approx(0, abs=1e-6)
        assert row["top1_changed"] == 0
        assert row["bits_per_weight"] == 32
        assert row["artefact"]["format"] == "not quantized"


def test_the_same_weights_elsewhere_lose_nothing_in_bfloat16_either(corpus, tmp_path):
    """Full precision by the lean forward, whose sums are float32, lost up to half a bit a segment to its own copy."""
    store = Store(tmp_path / "store")
    local = resolve(parse_model("reference:a1"), store=store)
    copy = shutil.copytree(local.folder, tmp_path / "copy")
    subject = Subject(local=local, store=store)
    damage = measure_damage(subject, [parse(f"checkpoint:{copy}")], corpus)
    (spec,) = damage.specs
    assert not damage.excess_bits(spec).any()
    assert damage.kl_bits(spec).max() < 1e-6
    assert not damage.above_floor(spec).any()
    floor = damage.columns[spec].floor_bits
    assert "bfloat16 against float32, full precision alone" in floor.method
    assert floor.value > 0


def test_a_copy_whose_tokenizer_names_another_first_token_is_scored_after_the_originals(
    subject, corpus, folder, tmp_path
):
    copy = copied(folder, tmp_path / "copy")
    tokenizer = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    (copy / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"bos_token": "in"}), encoding="utf-8")
    for row in rows_of(subject, corpus, f"checkpoint:{copy}").values():
        assert row["excess_bits"]["value"] == pytest.approx(0, abs=1e-5)
        assert row["kl_nats_per_token"]["mean"] == pytest.approx(0, abs=1e-6)


def test_an_export_of_eight_bits_is_scored_in_float32_as_its_spec_is(corpus, tmp_path):
    store = Store(tmp_path / "store")
    subject = Subject(local=resolve(parse_model("reference:a1"), store=store), store=store)
    write_quantized(subject.loaded("float32"), parse_spec("int8-row"), tmp_path / "ours")
    ours = parse(f"checkpoint:{tmp_path / 'ours'}")
    damage = measure_damage(subject, [ours, parse("int8-row")], corpus)
    assert damage.columns[str(ours)].dtype == "float32"
    assert damage.excess_bits(str(ours)) == pytest.approx(damage.excess_bits("int8-row"), abs=1e-4)


def test_a_model_trained_further_is_compared_as_it_is(subject, corpus, folder, tmp_path):
    tensors = {
        name: weight + 0.02 * torch.sign(weight) for name, weight in load_file(folder / "model.safetensors").items()
    }
    spec = f"checkpoint:{copied(folder, tmp_path / 'tuned', tensors=tensors)}"
    for row in rows_of(subject, corpus, spec).values():
        assert row["kl_nats_per_token"]["mean"] > 1e-4
        assert row["excess_bits"]["value"] != 0


@needs_compressed_tensors
def test_packed_four_bit_codes_are_what_their_values_are(subject, corpus, folder, tmp_path):
    """compressed-tensors W4A16 beside a plain checkpoint that holds the values of its codes.

    They are products with a bfloat16 scale, and bfloat16 themselves.
    """
    dequantized = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        dequantized[name] = weight
        if is_linear(name):
            codes, scale = rounded(weight.float())
            values = codes.view(*scale.shape, GROUP).bfloat16() * scale[..., None]
            dequantized[name] = values.view_as(weight).float()
    packed = f"checkpoint:{w4a16(folder, tmp_path / 'packed')}"
    plain = f"checkpoint:{copied(folder, tmp_path / 'plain', tensors=dequantized)}"
    rows = rows_of(subject, corpus, packed, plain)
    for tag in corpus.languages:
        assert rows[packed, tag]["excess_bits"]["value"] == pytest.approx(
            rows[plain, tag]["excess_bits"]["value"], abs=1e-4
        )
        assert rows[packed, tag]["kl_nats_per_token"]["mean"] > 1e-4
    row = rows[packed, "en"]
    assert row["artefact"]["format"] == "compressed-tensors"
    assert "compressed-tensors" in row["artefact"]["loaders"]
    assert "weights_only" not in row["artefact"]
    # 4 bits and a scale of 16 for 32 weights; the two int64 of each matrix's shape come on top
    assert 4.5 < row["bits_per_weight"] < 4.6


@needs_compressed_tensors
def test_codes_of_nvfp4_are_what_their_values_are_in_bfloat16(folder, corpus, tmp_path):
    """Read and scored in bfloat16, all that the format can; beside a plain checkpoint with its values."""
    dequantized = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        dequantized[name] = values_of_four_bit_floats(*four_bit_floats(weight)).float() if is_linear(name) else weight
    store = Store(tmp_path / "store")
    local = resolve(parse_model(str(folder)), store=store)
    subject = Subject(local=local, store=store, dtype="bfloat16", context=256)
    codes = f"checkpoint:{nvfp4(folder, tmp_path / 'nvfp4')}"
    plain = f"checkpoint:{copied(folder, tmp_path / 'plain', tensors=dequantized)}"
    rows = rows_of(subject, corpus, codes, plain)
    for tag in corpus.languages:
        lost = rows[plain, tag]["excess_bits"]["value"]
        assert rows[codes, tag]["excess_bits"]["value"] == pytest.approx(lost, abs=0.01)
        assert rows[codes, tag]["kl_nats_per_token"]["mean"] > 1e-4
    assert 4.5 < rows[codes, "en"]["bits_per_weight"] < 4.6  # 4 bits, and 8 for 16 weights


@needs_compressed_tensors
def test_a_format_that_quantizes_activations_is_labelled_weights_only(subject, corpus, folder, tmp_path):
    spec = f"checkpoint:{fp8(folder, tmp_path / 'fp8')}"
    row = rows_of(subject, corpus, spec)[spec, "en"]
    assert row["artefact"]["weights_only"] is True
    assert row["artefact"]["not_measured"] == "activations: 8 bits, dynamic where it is deployed"
    assert 0 < row["kl_nats_per_token"]["mean"] < 0.1
    assert 8 < row["bits_per_weight"] < 8.6  # 8 bits and a scale of 16 for each row of 64 or 128


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "8 bits, static"),
        ({"quant_method": "fbgemm_fp8"}, "8 bits, dynamic"),
        ({"config_groups": {"g": {"input_activations": {"num_bits": 4, "dynamic": "local"}}}}, "4 bits, dynamic"),
        ({"config_groups": {"g": {"input_activations": None}}}, None),
        ({"config_groups": {"g": {"output_activations": {"num_bits": 8}}}}, "outputs in 8 bits"),
        ({"config_groups": {"g": {}}, "kv_cache_scheme": {"num_bits": 8, "dynamic": False}}, "KV cache in 8 bits"),
        ({"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}}, "8 bits, dynamic; KV cache in 8 bits"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, None),
    ],
)
def test_what_a_format_does_to_activations_is_read_from_its_config(config, expected):
    assert activations_of(config) == expected


def test_our_own_export_is_the_spec_it_was_written_from(subject, corpus, tmp_path):
    write_quantized(subject.loaded("float32"), parse_spec("int4-g32"), tmp_path / "ours")
    spec = f"checkpoint:{tmp_path / 'ours'}"
    rows = rows_of(subject, corpus, spec, "int4-g32")
    for tag in corpus.languages:
        ours, simulated = rows[spec, tag], rows["int4-g32", tag]
        assert ours["nll_quantized"] == pytest.approx(simulated["nll_quantized"], rel=1e-6)
        assert ours["bits_per_weight"] == pytest.approx(4.5)
        assert ours["artefact"]["format"] == "evenbits"


@pytest.mark.parametrize("offline", [True, False])
def test_a_checkpoint_of_the_hub_is_fetched_over_the_network_only_where_the_run_may(offline, subject, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda _ref, **options: asked.append(options["offline"]) or subject.local.folder)
    run = replace(subject, local=replace(subject.local, offline=offline))
    assert Checkpoint(model="org/name")._folder(run) == subject.local.folder
    assert asked == [offline]
    local = resolve(parse_model(str(subject.local.folder)), store=subject.store, offline=offline)
    assert local.offline is offline


def bits_of_checkpoint(made, subject):
    return Checkpoint(model=str(made)).bits_per_weight(subject)


def test_bits_are_those_of_the_checkpoints_own_weights(subject, folder, tmp_path):
    """One layer of three in bfloat16: 16 bits each, not a third of them by the weights of the original."""
    layers = {
        name: weight.bfloat16()
        for name, weight in load_file(folder / "model.safetensors").items()
        if not name.startswith("model.layers.") or name.startswith("model.layers.0.")
    }
    shallow = copied(folder, tmp_path / "shallow", tensors=layers, config={"num_hidden_layers": 1})
    assert bits_of_checkpoint(shallow, subject) == 16


def test_bits_are_counted_by_the_names_that_loading_gives(tiny_model, tmp_path):
    """GPT-2 as it was published, without its prefix."""
    folder, store = tiny_model("gpt2"), Store(tmp_path / "store")
    subject = Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32")
    tensors = load_file(folder / "model.safetensors")
    short = {name.removeprefix("transformer."): weight for name, weight in tensors.items()}
    assert short.keys() != tensors.keys()
    assert bits_of_checkpoint(copied(folder, tmp_path / "short", tensors=short), subject) == 32


def test_bits_of_codes_are_found_by_the_module_they_lie_in(subject, folder, tmp_path):
    # GPTQ: 4 bits, of each 32 a scale of 16 and a zero point of 4, and of each input an int32 for 64 or 128 outputs
    assert 4 + 20 / GROUP + 32 / 128 < bits_of_checkpoint(gptq(folder, tmp_path / "codes"), subject) < 5.6
    tensors = load_file(tmp_path / "codes" / "model.safetensors")
    lost = {name: values for name, values in tensors.items() if not name.startswith("model.layers.1.mlp.up_proj.")}
    save_file(lost, tmp_path / "codes" / "model.safetensors", metadata={"format": "pt"})
    assert bits_of_checkpoint(tmp_path / "codes", subject) is None


@pytest.mark.parametrize("text", ["int4-g32", "int4-g32+protect:model.layers.0"])
def test_bits_of_an_export_are_those_of_its_spec(text, subject, tmp_path):
    """The file has a protected layer in float32; the spec counts it in 16 bits, as it would be deployed."""
    write_quantized(subject.loaded("float32"), parse_spec(text), tmp_path / "ours")
    assert bits_of_checkpoint(tmp_path / "ours", subject) == bits_of(parse(text), subject)


def test_exports_of_two_specs_are_two_checkpoints_and_so_is_one_written_again(subject, corpus, tmp_path):
    """Their configurations and tokenizers are one; what differs lies in quantized.safetensors and evenbits.json."""
    again = tmp_path / "again"
    for spec in ("int8-row", "int2-row"):
        shutil.rmtree(again, ignore_errors=True)
        write_quantized(subject.loaded("float32"), parse_spec(spec), again)
        rows = rows_of(subject, corpus, f"checkpoint:{again}", spec)
        lost = [rows[one, "en"]["nll_quantized"] for one in (f"checkpoint:{again}", spec)]
        assert lost[0] == pytest.approx(lost[1], rel=1e-6)  # int8-row's, 12 % below int2-row's
    whole = Checkpoint(model=str(again)).variant(subject).key["checkpoint"]
    manifest = again / "evenbits.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("int2-row", "int3-row"), encoding="utf-8")
    assert Checkpoint(model=str(again)).variant(subject).key["checkpoint"] != whole


def test_a_checkpoint_saved_by_bitsandbytes_is_what_the_library_gives(subject, corpus, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'evenbits[backends]'")
    from evenbits.variants.libraries import quantized_copy

    copy = quantized_copy(subject, parse("bnb:nf4"))
    copy.model.save_pretrained(tmp_path / "saved")
    copy.tokenizer.save_pretrained(tmp_path / "saved")
    spec = f"checkpoint:{tmp_path / 'saved'}"
    rows = rows_of(subject, corpus, spec, "bnb:nf4")
    for tag in corpus.languages:
        assert rows[spec, tag]["nll_quantized"] == pytest.approx(rows["bnb:nf4", tag]["nll_quantized"], rel=1e-5)
    assert rows[spec, "en"]["bits_per_weight"] == pytest.approx(4.5, abs=0.5)  # and the library's own table of levels


def test_another_tokenizer_leaves_bits_per_segment_and_says_why_nothing_else(subject, corpus, folder, tmp_path):
    other = copied(folder, tmp_path / "other")
    described = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["merges"] = described["model"]["merges"][1:]
    (other / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    row = rows_of(subject, corpus, f"checkpoint:{other}")[f"checkpoint:{other}", "en"]
    assert np.isfinite(row["excess_bits"]["value"])
    assert row["kl_nats_per_token"]["reason"].startswith("no KL: 2 of 3 segments in en have other tokens")
    assert row["top1_changed"] is None


@needs_compressed_tensors
def test_a_missing_tensor_is_named_and_never_random(subject, corpus, folder, tmp_path):
    broken = w4a16(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight_scale"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvenbitsError, match=r"model.layers.1.mlp.down_proj has no weight_scale"):
        rows_of(subject, corpus, f"checkpoint:{broken}")


def test_codes_that_transformers_cannot_read_are_sent_to_their_server(subject, corpus, folder, tmp_path):
    made = copied(folder, tmp_path / "modelopt")
    (made / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}', encoding="utf-8")
    with pytest.raises(ModelError, match="served:URL#MODEL"):
        rows_of(subject, corpus, f"checkpoint:{made}")


@pytest.mark.parametrize(
    "case",
    [
        ("gptq", "reads with gptqmodel and optimum, and that is not installed: pip install gptqmodel optimum"),
        ("awq", "reads with gptqmodel, and that is not installed: pip install gptqmodel"),
        ("auto-round", "pip install auto-round"),
    ],
)
def test_a_format_whose_reader_is_not_here_names_the_package(case, subject, folder, tmp_path, monkeypatch):
    method, said = case
    monkeypatch.setattr("evenbits.variants.checkpoint._version", lambda _package: None)
    made = copied(folder, tmp_path / method, config={"quantization_config": {"quant_method": method, "bits": 4}})
    with pytest.raises(ModelError, match=said):
        parse(f"checkpoint:{made}").variant(subject)


def gptq(folder, target):
    """GPTQ's layout: codes of eight inputs in an int32, zero points one less than they are, scales by group."""

    def parts_of(weight):
        codes, scale = rounded(weight)
        rows, columns = codes.shape
        unsigned = (codes + 8).to(torch.int64).T.contiguous().view(columns // 8, 8, rows)  # inputs x outputs
        zeros = torch.full((columns // GROUP, rows // 8, 8), 7, dtype=torch.int64)
        return {
            "qweight": packed(unsigned, 1),
            "qzeros": packed(zeros, 2),
            "scales": scale.T.contiguous().half(),
            "g_idx": (torch.arange(columns) // GROUP).to(torch.int32),
        }

    tensors = coded(folder, parts_of)
    config = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": GROUP,
        "desc_act": False,
        "sym": True,
        "checkpoint_format": "gptq",
    }
    return copied(folder, target, tensors=tensors, config={"quantization_config": config})


def awq(folder, target):
    """AWQ's layout (gemm): codes of eight outputs in an int32, in its interleaved order."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def parts_of(weight):
        codes, scale = rounded(weight)
        rows, columns = codes.shape
        unsigned = (codes + 8).to(torch.int64).T.contiguous().view(columns, rows // 8, 8)[:, :, order]
        zeros = torch.full((columns // GROUP, rows // 8, 8), 8, dtype=torch.int64)
        return {"qweight": packed(unsigned, 2), "qzeros": packed(zeros, 2), "scales": scale.T.contiguous().half()}

    tensors = coded(folder, parts_of)
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    return copied(folder, target, tensors=tensors, config={"quantization_config": config})


def packed(codes, dimension):
    """Eight 4-bit codes along `dimension` as the bits of one int32, the first lowest."""
    shifted = [codes.select(dimension, place) << (4 * place) for place in range(8)]
    whole = torch.stack(shifted).sum(0)
    return torch.where(whole >= 1 << 31, whole - (1 << 32), whole).to(torch.int32)


needs_gptqmodel = pytest.mark.skipif(
    importlib.util.find_spec("gptqmodel") is None, reason="no gptqmodel here; runs in `tox run -e gptq`"
)


def of_gptqmodel(test):
    """Needs the package, and what it does that warns: optimum asks by an old name, a temporary folder stays open."""
    for warning in (
        ".*is_gradient_checkpointing.*:FutureWarning",
        "Implicitly cleaning up.*gptqmodel_.*:ResourceWarning",
    ):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return needs_gptqmodel(test)


@of_gptqmodel
@pytest.mark.parametrize("made", [gptq, awq])
def test_codes_of_gptq_and_awq_are_what_their_values_are(made, subject, corpus, folder, tmp_path):
    dequantized = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        dequantized[name] = weight
        if is_linear(name):
            codes, scale = rounded(weight.float())
            dequantized[name] = (codes.view(*scale.shape, GROUP) * scale.half().float()[..., None]).view_as(weight)
    plain = copied(folder, tmp_path / "plain", tensors=dequantized)
    assert_same_damage(subject, corpus, made(folder, tmp_path / "codes"), plain)


def assert_same_damage(subject, corpus, codes, plain):
    """A checkpoint of codes loses what a plain one with their values loses, and KL says that something is lost."""
    theirs, ours = f"checkpoint:{codes}", f"checkpoint:{plain}"
    damage = measure_damage(subject, [parse(spec) for spec in (theirs, ours)], corpus)
    assert not damage.failed
    rows = {(row["spec"], row["language"]): row for row in damage.rows(seed=0)}
    for tag in corpus.languages:
        one, other = (rows[spec, tag]["excess_bits"]["value"] for spec in (theirs, ours))
        assert one == pytest.approx(other, abs=0.05)  # their products round to 16 bits
        assert rows[theirs, tag]["kl_nats_per_token"]["mean"] > 1e-4
    assert "gptqmodel" in rows[theirs, "en"]["artefact"]["loaders"]


WRITER = """
import sys
from gptqmodel import GPTQModel, QuantizeConfig
source, target, method = sys.argv[1:]
form = {"quant_method": "awq", "format": "gemm"} if method == "awq" else {}
model = GPTQModel.load(source, QuantizeConfig(bits=4, group_size=32, **form), device="cpu")
model.quantize(["The inner thing on the river.", "Er hat in einem Haus am Fluss gewohnt."] * 16, batch_size=1)
model.save(target)
"""


def unpacked(codes, dimension, order=range(8)):
    """The eight 4-bit codes of each int32, in their places along `dimension`."""
    parts = torch.stack([(codes.to(torch.int64) >> (4 * place)) & 15 for place in order], dim=dimension + 1)
    return parts.flatten(dimension, dimension + 1)


def values_of(tensors, base, method):
    """What the codes of one matrix stand for, outputs x inputs."""
    codes, zeros, scales = (tensors[f"{base}.{name}"] for name in ("qweight", "qzeros", "scales"))
    if method == "gptq":  # eight inputs to an int32, zero points one less than they are
        codes_IO, zeros_GO = unpacked(codes, 0), unpacked(zeros, 1) + 1
    else:  # eight outputs to an int32, interleaved
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        codes_IO, zeros_GO = unpacked(codes, 1, order), unpacked(zeros, 1, order)
    group_I = torch.arange(codes_IO.shape[0]) // 32
    return ((codes_IO - zeros_GO[group_I]) * scales.float()[group_I]).T.contiguous()


@of_gptqmodel
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_gptqmodel_writes_of_a_trained_model_is_what_its_codes_stand_for(method, corpus, tmp_path, capsys):
    """It quantizes a1 by its own method and text; the file is measured beside a plain one that holds its values."""
    store = Store(tmp_path / "store")
    local = resolve(parse_model("reference:a1"), store=store)
    written = tmp_path / method
    command = [sys.executable, "-c", WRITER, str(local.folder), str(written), method]
    subprocess.run(command, check=True, timeout=900, cwd=tmp_path)  # it leaves a folder of logs where it runs
    tensors = load_file(written / "model.safetensors")
    plain = {name: weight for name, weight in tensors.items() if name.rpartition(".")[2] == "weight"}
    for name in tensors:
        if name.endswith(".qweight"):
            base = name.removesuffix(".qweight")
            plain[f"{base}.weight"] = values_of(tensors, base, method)
    subject = Subject(local=local, store=store, dtype="float32", context=256)
    assert_same_damage(subject, corpus, written, copied(local.folder, tmp_path / "plain", tensors=plain))
    assert not capsys.readouterr().out  # what a loader says would stand in `--json`


def test_code_of_the_repository_is_not_run(subject, corpus, folder, tmp_path):
    made = copied(folder, tmp_path / "code", config={"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    with pytest.raises(UnsafeModelError, match="auto_map"):
        rows_of(subject, corpus, f"checkpoint:{made}")


def test_the_text_round_trips_and_needs_a_model():
    assert str(parse("checkpoint:org/name@main")) == "checkpoint:org/name@main"
    with pytest.raises(SpecError, match="hub id or a folder"):
        parse("checkpoint:")


@pytest.mark.parametrize(
    ("architecture", "bits"), [("qwen3_moe", 32), ("gpt_oss", 32), ("granitemoe", 32), ("qwen3_vl_moe", 32)]
)
def test_bits_of_experts_are_counted_however_they_are_stored(architecture, bits, tmp_path):
    """Qwen3's lie one by one, gpt_oss's in one tensor beside their biases; granite's names do not say experts."""
    folder, store = architectures.build(architecture, tmp_path / "model"), Store(tmp_path / "store")
    subject = Subject(local=resolve(parse_model(str(folder)), store=store), store=store, dtype="float32")
    assert parse(f"checkpoint:{folder}").bits_per_weight(subject) == bits
    write_quantized(subject.loaded(), parse_spec("int4-row"), tmp_path / "ours")
    ours = parse(f"checkpoint:{tmp_path / 'ours'}").bits_per_weight(subject)
    assert ours is None if bits is None else 4 + 16 / 128 < ours < 4 + 16 / 48
