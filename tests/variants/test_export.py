"""Exported quantized models: packed without loss, loaded to the same bytes and scores, never half-written."""

from __future__ import annotations

import hashlib
import json
import shutil

import architectures
import numpy as np
import pytest
import torch
from evenbits.errors import ExportError, IntegrityError, ModelError, SpecError, UsageError
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.activations.importance import ActivationImportance
from evenbits.records import Corpus
from evenbits.scoring import score
from evenbits.store import Store
from evenbits.variants.export import dequantized, load_quantized, read_manifest, write_quantized
from evenbits.variants.export import writing as module
from evenbits.variants.export.matrices import packed, unpacked
from evenbits.variants.export.packing import BLOCK, pack, packed_bytes, unpack
from evenbits.variants.quantization.importance import MeasuredImportance
from evenbits.variants.quantization.matrices import quantize_matrix, quantize_planned
from evenbits.variants.quantization.patching import checkpoint_source, plan_loaded, quantized
from evenbits.variants.quantization.spec import parse_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file

TEXTS = ("the inner thing an other says", "another one of the thin ants")
SPECS = (
    "int3-row",
    "int4-g16+keep0.5%:magnitude",
    "int2-g32-asym+keep1%:magnitude@global",
    "nf4-b32+keep1%:random",
    "int5-tensor+clip:mse",
    "int8-row",
    "int4-g16+protect:model.layers.1",
)
WEIGHTS = arrays(
    np.float32,
    st.sampled_from([(1, 8), (3, 8), (4, 16)]),
    elements=st.floats(-2, 2, width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1e-30, -1e-9, 60000.0]),
)


def bytes_of(tensor):
    return tensor.contiguous().view(torch.int32)


# -- packing -----------------------------------------------------------------------------------------------------------


@given(bits=st.integers(2, 8), data=st.data())
@settings(deadline=None, max_examples=60)
def test_codes_come_back_whatever_their_number_and_width(bits, data):
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), dtype=np.uint8)
    stream = pack(codes, bits)
    assert len(stream) == packed_bytes(len(codes), bits) == -(-len(codes) * bits // 8)
    assert unpack(stream, len(codes), bits).tolist() == codes.tolist()


def test_the_lowest_bit_of_the_first_code_comes_first():
    # 5 = 101, 3 = 011, 6 = 110; lowest bits first: 101 110 011, so byte 0 is 1 + 4 + 8 + 16 + 128 and byte 1 is 1
    assert pack(np.array([5, 3, 6], dtype=np.uint8), 3).tolist() == [1 + 4 + 8 + 16 + 128, 1]


def test_blocks_join_without_a_seam():
    codes = np.random.default_rng(0).integers(0, 8, BLOCK + 13).astype(np.uint8)
    assert np.array_equal(unpack(pack(codes, 3), len(codes), 3), codes)


def test_a_code_that_does_not_fit_or_a_stream_of_another_length_is_refused():
    with pytest.raises(ValueError, match="code 8 does not fit into 3 bits"):
        pack(np.array([8], dtype=np.uint8), 3)
    with pytest.raises(ValueError, match="take 3 bytes, got 2"):
        unpack(np.zeros(2, dtype=np.uint8), 8, 3)


# -- matrices ----------------------------------------------------------------------------------------------------------

GRIDS = st.sampled_from(
    [
        *(
            f"int{bits}-{span}{kind}"
            for bits in range(2, 9)
            for span in ("row", "tensor", "g4")
            for kind in ("", "-asym")
        ),
        "nf4-b8",
        "nf4-b4",
    ]
)


@given(w=WEIGHTS, text=GRIDS, kept=st.integers(0, 3), clip=st.booleans())
@settings(deadline=None, max_examples=150)
def test_a_packed_matrix_comes_back_byte_for_byte(w, text, kept, clip):
    grid = parse_spec(text).grid
    matrix = quantize_matrix(torch.from_numpy(w), grid, kept_K=torch.arange(kept), clip=clip)
    assert torch.equal(bytes_of(unpacked(packed(matrix, grid))), bytes_of(matrix.values))


def test_minus_zero_has_the_code_that_a_symmetric_grid_leaves_over():
    # scale FP16(3 / 3) = 1: 3, -0.3, 0.3 become 3, -0, 0, with the codes 3 + 4, 0 and 0 + 4
    grid = parse_spec("int3-row").grid
    found = packed(quantize_matrix(torch.tensor([[3.0, -0.3, 0.3, 0.0]]), grid), grid)
    assert unpack(found.codes.numpy(), 4, 3).tolist() == [7, 0, 4, 4]
    assert unpacked(found).signbit().tolist() == [[False, True, False, False]]


def test_values_that_are_not_on_the_grid_are_refused():
    from dataclasses import replace

    grid = parse_spec("int3-row").grid
    matrix = quantize_matrix(torch.tensor([[3.0, 1.0, 0.3, 0.0]]), grid)
    with pytest.raises(IntegrityError, match="the matrix cannot be packed without loss"):
        packed(replace(matrix, values=matrix.values + 0.25), grid)


# -- models ------------------------------------------------------------------------------------------------------------


def planned_values(loaded, spec, **given_):
    plan = plan_loaded(loaded, spec)
    return {matrix.name: matrix.values for matrix in quantize_planned(plan, checkpoint_source(loaded), **given_)}


@pytest.mark.parametrize("text", SPECS)
def test_an_exported_model_has_the_same_weights_byte_for_byte_and_the_same_scores(text, loaded_tiny, tmp_path):
    spec = parse_spec(text)
    done = write_quantized(loaded_tiny, spec, tmp_path / "out", seed=3)
    weights = dict(dequantized(tmp_path / "out"))
    for name, values in planned_values(loaded_tiny, spec, seed=3).items():
        assert torch.equal(bytes_of(weights[f"{name}.weight"]), bytes_of(values)), name
    again = load_quantized(tmp_path / "out", dtype=torch.float32)
    with quantized(loaded_tiny, spec, seed=3):
        expected = score(loaded_tiny, "en", ("a", "b"), TEXTS)[0]
        parameters = {name: value.clone() for name, value in loaded_tiny.model.named_parameters()}
    assert np.array_equal(score(again, "en", ("a", "b"), TEXTS)[0].nll, expected.nll)
    found = dict(again.model.named_parameters())
    assert set(found) == set(parameters)
    assert all(torch.equal(found[name], parameters[name]) for name in found)
    assert done.size == (tmp_path / "out" / "quantized.safetensors").stat().st_size
    assert str(parse_spec(read_manifest(tmp_path / "out")["spec"])) == str(spec)


def test_an_exported_model_scores_the_same_in_bfloat16(tiny_llama, tmp_path):
    local = resolve(parse_model(str(tiny_llama)), store=Store(tmp_path / "store"))
    loaded = load(local, dtype=torch.bfloat16)
    spec = parse_spec("int4-g16+keep1%:magnitude")
    write_quantized(loaded, spec, tmp_path / "out")
    with quantized(loaded, spec):
        expected = score(loaded, "en", ("a", "b"), TEXTS)[0].nll
    again = load_quantized(tmp_path / "out", dtype=torch.bfloat16)
    assert np.array_equal(score(again, "en", ("a", "b"), TEXTS)[0].nll, expected)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "bloom", "qwen2", "opt"])
@pytest.mark.parametrize("extra", ["", "+include:head", "+include:embedding", "+include:embedding+include:head"])
def test_every_way_of_storing_and_tying_weights_comes_back(architecture, extra, tiny_model, tmp_path):
    local = resolve(parse_model(str(tiny_model(architecture))), store=Store(tmp_path / "store"))
    loaded = load(local, dtype=torch.float32)
    spec = parse_spec(f"int4-g8+keep1%:magnitude{extra}")
    write_quantized(loaded, spec, tmp_path / "out")
    again = load_quantized(tmp_path / "out", dtype=torch.float32)
    with quantized(loaded, spec):
        expected = score(loaded, "en", ("a", "b"), TEXTS)[0].nll
    assert np.array_equal(score(again, "en", ("a", "b"), TEXTS)[0].nll, expected)


@pytest.mark.parametrize("extra", ["", "+include:head", "+include:embedding", "+include:embedding+include:head"])
def test_a_tied_pair_that_is_stored_twice_comes_back(extra, tiny_llama, tmp_path):
    """Both sides quantized, they are one matrix: the head's copy at full precision would untie them at loading."""
    folder = shutil.copytree(tiny_llama, tmp_path / "twice")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(resolve(parse_model(str(folder)), store=Store(tmp_path / "store")), dtype=torch.float32)
    spec = parse_spec(f"int3-g32{extra}")
    write_quantized(loaded, spec, tmp_path / "out")
    again = load_quantized(tmp_path / "out", dtype=torch.float32)
    with quantized(loaded, spec):
        expected = score(loaded, "en", ("a", "b"), TEXTS)[0].nll
    assert np.array_equal(score(again, "en", ("a", "b"), TEXTS)[0].nll, expected)


@pytest.mark.parametrize("architecture", architectures.every_type("gpt_oss", "jamba", "qwen3_moe", "qwen3_vl_moe"))
@pytest.mark.parametrize("text", ["int4-row+keep1%:magnitude", "int3-row+keep1%:superweight+clip:mse"])
def test_every_type_is_rounded_where_it_should_be_and_comes_back_from_disk(architecture, text, tmp_path):
    """Qwen3's experts lie in the file one by one, gpt_oss's in one tensor, inputs x outputs; Qwen3-VL's only there."""
    folder = architectures.build(architecture, tmp_path / "model")
    store, spec = Store(tmp_path / "store"), parse_spec(text)
    loaded = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
    probe = Corpus(name="c", source="test", languages=("en",), segment_ids=("a", "b"), texts={"en": TEXTS})
    importance = ActivationImportance(loaded, probe, store=store)
    before = {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}
    done = write_quantized(loaded, spec, tmp_path / "out", importance=importance)
    assert done.matrices == len(loaded.anatomy.linears)
    if loaded.anatomy.has_experts:
        assert done.size < 0.7 * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    again = load_quantized(tmp_path / "out", dtype=torch.float32)
    with quantized(loaded, spec, importance=importance):
        expected = score(loaded, "en", ("a", "b"), TEXTS)[0].nll
        rounded = {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}
    assert np.array_equal(score(again, "en", ("a", "b"), TEXTS)[0].nll, expected)
    inside = {linear.parameter: linear for linear in loaded.anatomy.linears}
    for name, parameter in rounded.items():
        assert torch.equal(parameter, again.model.get_parameter(name)), name
        assert torch.equal(before[name], loaded.model.get_parameter(name)), name
        assert torch.equal(before[name], parameter) == (name not in inside), name
        if name in inside and "superweight" not in text:
            here, there = (inside[name].matrix(one).float() for one in (before[name], parameter))
            assert torch.equal(rounded_beside_the_largest(here), there), name


def rounded_beside_the_largest(w_OI):
    """int4-row+keep1%:magnitude by its definition."""
    flat = w_OI.reshape(-1)
    kept = flat.abs().sort(descending=True, stable=True).indices[: round(len(flat) / 100)]
    on_grid = architectures.rounded_rows(flat.index_fill(0, kept, 0).view_as(w_OI))
    return on_grid.reshape(-1).index_copy(0, kept, flat[kept].half().float()).view_as(w_OI)


def test_the_file_is_as_small_as_the_bits_say(loaded_tiny, tmp_path):
    done = write_quantized(loaded_tiny, parse_spec("int3-row+keep1%:magnitude"), tmp_path / "out")
    rows = read_manifest(tmp_path / "out")["matrices"]
    sizes = [row["shape"][0] * row["shape"][1] for row in rows]
    assert done.matrices == len(rows) == 3 * 7
    assert done.kept == sum(row["kept"] for row in rows) == sum(round(size / 100) for size in sizes)
    # 3 bits a weight, FP16 a row, FP16 and a 32-bit place for each kept weight; the rest is as in the checkpoint
    matrices = sum(-(-size * 3 // 8) for size in sizes) + sum(2 * row["shape"][0] for row in rows) + 6 * done.kept
    others = sum(value.numel() * 4 for value in loaded_tiny.model.parameters()) - 4 * sum(sizes)
    header = int.from_bytes((tmp_path / "out" / "quantized.safetensors").read_bytes()[:8], "little") + 8
    assert done.size == matrices + others + header


def test_statistics_of_languages_decide_in_an_export_too(loaded_tiny, tmp_path):
    spec = parse_spec("int3-row+keep1%:activation[de]")
    moments = {
        linear.name: np.arange(loaded_tiny.model.get_submodule(linear.name).weight.shape[1]) + 1.0
        for linear in loaded_tiny.anatomy.linears
    }
    importance = MeasuredImportance(second_moment={"de": moments})
    write_quantized(loaded_tiny, spec, tmp_path / "out", importance=importance)
    weights = dict(dequantized(tmp_path / "out"))
    for name, values in planned_values(loaded_tiny, spec, importance=importance).items():
        assert torch.equal(bytes_of(weights[f"{name}.weight"]), bytes_of(values)), name


# -- files -------------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(loaded_tiny, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x", encoding="utf-8")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for folder in (taken, taken / "mine", link):
        with pytest.raises(UsageError, match="exists"):
            write_quantized(loaded_tiny, parse_spec("int4-row"), folder)
    assert [path.name for path in taken.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing_behind(loaded_tiny, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(ExportError, match="No space left on device"):
        write_quantized(loaded_tiny, parse_spec("int4-row"), tmp_path / "out")
    with pytest.raises(SpecError, match="needs measurements"):
        write_quantized(loaded_tiny, parse_spec("int4-row+keep1%:activation"), tmp_path / "out")
    with pytest.raises(SpecError, match="nothing is quantized"):
        write_quantized(loaded_tiny, parse_spec("none"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_run_fills_meanwhile_is_left_alone(loaded_tiny, tmp_path, monkeypatch):
    real = module.save_file

    def slow(*args, **kwargs):
        real(*args, **kwargs)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("x", encoding="utf-8")

    monkeypatch.setattr(module, "save_file", slow)
    with pytest.raises(UsageError, match="appeared meanwhile"):
        write_quantized(loaded_tiny, parse_spec("int4-row"), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


def test_the_folder_is_refused_as_a_full_precision_model(loaded_tiny, tmp_path):
    write_quantized(loaded_tiny, parse_spec("int4-row"), tmp_path / "out")
    assert len({file.stat().st_mode for file in (tmp_path / "out").iterdir()}) == 1  # who may read one may read all
    with pytest.raises(ModelError, match=r"already quantized \(evenbits\)"):
        resolve(parse_model(str(tmp_path / "out")), store=Store(tmp_path / "store"))


def test_damaged_or_foreign_folders_are_named(loaded_tiny, tmp_path):
    out = tmp_path / "out"
    write_quantized(loaded_tiny, parse_spec("int4-row"), out)
    manifest = (out / "evenbits.json").read_text(encoding="utf-8")
    newer = json.loads(manifest) | {"format": 99}
    (out / "evenbits.json").write_text(json.dumps(newer), encoding="utf-8")
    with pytest.raises(ModelError, match="format 99"):
        read_manifest(out)
    (out / "evenbits.json").write_text(manifest[:40], encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"is not JSON at byte .* quantize the model again"):
        read_manifest(out)
    (out / "evenbits.json").write_text(manifest, encoding="utf-8")
    weights = out / "quantized.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(broken)
        with pytest.raises(IntegrityError, match="truncated or altered"):
            load_quantized(out, dtype=torch.float32)
    weights.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        list(dequantized(out))
    with pytest.raises(ModelError, match="not written by `evenbits quantize`"):
        read_manifest(tmp_path)


# -- what a damaged folder with a renewed checksum could still say ----------------------------------------------------

MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def exported(tiny_llama, tmp_path_factory):
    """An exported model with kept weights and zero points. Read-only."""
    place = tmp_path_factory.mktemp("exported")
    local = resolve(parse_model(str(tiny_llama)), store=Store(place / "store"))
    write_quantized(load(local, dtype=torch.float32), parse_spec("int4-g16-asym+keep1%:magnitude"), place / "out")
    return place / "out"


@pytest.fixture
def respelt(exported, tmp_path):
    """`respelt(weights=..., manifest=...)` -> a copy whose tensors or manifest were changed, its checksum renewed."""

    def make(weights=lambda _tensors: None, manifest=lambda _content: None):
        out = shutil.copytree(exported, tmp_path / "out")
        tensors = load_file(out / "quantized.safetensors")
        weights(tensors)
        save_file(tensors, out / "quantized.safetensors", metadata={"format": "evenbits"})
        content = json.loads((out / "evenbits.json").read_text(encoding="utf-8"))
        content["weights_sha256"] = hashlib.sha256((out / "quantized.safetensors").read_bytes()).hexdigest()
        manifest(content)
        (out / "evenbits.json").write_text(json.dumps(content), encoding="utf-8")
        return out

    return make


def put(part, change):
    def weights(tensors):
        tensors[f"{MATRIX}.{part}"] = change(tensors[f"{MATRIX}.{part}"].clone())

    return weights


def at(place, value):
    def change(tensor):
        tensor[place] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("kept", at(0, -5), "keeps weights at places that are not ascending from 0 to 8191, each once"),
        ("kept", at(-1, 1 << 30), "keeps weights at places that are not ascending"),
        ("kept", lambda kept: kept[[0, 0, *range(2, len(kept))]], "keeps weights at places that are not ascending"),
        ("kept", lambda kept: kept.flip(0), "keeps weights at places that are not ascending"),
        ("kept", lambda kept: kept.float(), r"has no kept, one axis of torch\.int32 or torch\.int64"),
        ("kept_values", lambda values: values[:-1], "has 81 entries of kept_values instead of 82"),
        ("kept_values", at(0, float("inf")), "has kept_values that are no such numbers"),
        ("scales", at(0, float("nan")), "has scales that are no such numbers"),
        ("scales", at(0, -1.0), "has scales that are no such numbers"),
        ("scales", lambda scales: scales.float(), r"has no scales, one axis of torch\.float16"),
        ("scales", lambda scales: scales[:-1], "has 511 entries of scales instead of 512"),
        ("zeros", lambda zeros: zeros[:-1], "has 511 entries of zeros instead of 512"),
        ("codes", lambda codes: codes[:-1], "has 4095 entries of codes instead of 4096"),
        ("codes", lambda codes: codes.view(2, -1), r"has no codes, one axis of torch\.uint8"),
    ],
)
def test_parts_that_cannot_be_a_matrix_are_refused_by_name(part, change, message, respelt):
    """128 x 64 weights in groups of 16 at 4 bits: 512 scales, 4096 bytes; 1 % of 8192 are 82 kept."""
    out = respelt(weights=put(part, change))
    with pytest.raises(IntegrityError, match=rf"model\.layers\.0\.mlp\.up_proj\.weight {message}"):
        dict(dequantized(out))


def test_a_part_that_is_missing_is_refused_by_name(respelt):
    out = respelt(weights=lambda tensors: tensors.pop(f"{MATRIX}.scales"))
    with pytest.raises(IntegrityError, match="has no scales"):
        dict(dequantized(out))


def row_of(content):
    return next(row for row in content["matrices"] if row["tensor"] == MATRIX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(matrices=[]), "names no quantized matrix"),
        (lambda content: content.pop("matrices"), "has no matrices, which must be a list"),
        (lambda content: content.update(matrices={}), "matrices must be a list"),
        (lambda content: content["matrices"].append(5), r"matrices\[21\] must be an object, not 5"),
        (lambda content: content["matrices"].append(row_of(content)), "names a matrix twice"),
        (lambda content: row_of(content).update(shape="ab"), r"matrices\[[0-9]+\]: shape must be a list of 2 whole"),
        (lambda content: row_of(content).update(shape=[128, -64]), "shape must be a list of 2 whole numbers"),
        (lambda content: row_of(content).update(shape=[0, 64]), "shape 0 x 64 holds no weight"),
        (lambda content: row_of(content).update(shape=[64, 127]), "is 64 x 127, which int4-g16-asym cannot have"),
        (lambda content: row_of(content).update(grid="none"), "grid must name one"),
        (lambda content: row_of(content).update(grid="int4-g16-asym+keep1%:magnitude"), "grid must name one"),
        (lambda content: row_of(content).update(grid="int99-row"), "grid spec 'int99-row'"),
        (lambda content: row_of(content).update(grid=4), "grid must be a text, not 4"),
        (lambda content: row_of(content).update(grid="int4-g16"), "has zero points, which int4-g16 does not have"),
        (lambda content: row_of(content).update(transposed="no"), "transposed must be true or false"),
        (lambda content: row_of(content).pop("tensor"), "has no tensor, which must be a text"),
        (lambda content: content.update(format="1"), 'format must be a whole number of at least 1, not "1"'),
        (lambda content: content.update(weights_sha256=5), "weights_sha256 must be a text, not 5"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_by_entry(change, message, respelt):
    out = respelt(manifest=change)
    with pytest.raises(IntegrityError, match=message):
        dict(dequantized(out))


def test_a_manifest_nested_without_end_is_refused(respelt):
    out = respelt()
    (out / "evenbits.json").write_text("[" * 100_000)
    with pytest.raises(IntegrityError, match=r"evenbits\.json is nested more than 64 levels deep"):
        read_manifest(out)
