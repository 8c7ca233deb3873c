"""GGUF as a model: the function of the file is the function that is measured, or the file is refused by name."""

from __future__ import annotations

import shutil
import struct
import time
from importlib.metadata import version

import numpy as np
import pytest
from evenbits.errors import IntegrityError, ModelError
from evenbits.models.gguf_header import read_gguf_header
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from packaging.version import Version
from tiny_models import build_gguf


@pytest.fixture
def changed(tiny_llama, tmp_path):
    """`changed(entries=..., without=..., extra=...)` -> the tiny llama as GGUF with that changed."""
    return lambda **options: build_gguf(tiny_llama, tmp_path / "m.gguf", **options)


def logits_of(named, store):
    import torch

    loaded = load(resolve(parse_model(str(named)), store=store), dtype=torch.float32)
    tokens = 4 + 7 * torch.arange(150)[None] % 260
    return loaded.model(tokens).logits


def llama3_factors(width=8, theta=10000.0):
    """Llama 3.1's factors by the words of its publication: waves shorter than 2048 stay, longer than 8192 times 8."""
    waves = 2 * np.pi * theta ** (np.arange(width) / width)
    smooth = (8192 / waves - 1) / (4 - 1)
    between = 1 / ((1 - smooth) / 8 + smooth)
    return np.where(waves < 8192 / 4, 1, np.where(waves > 8192, 8, between)).astype(np.float32)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

reads_tiny_tokenizers = pytest.mark.skipif(
    Version(version("transformers")) < Version("5.18"),
    reason="lifted by: transformers 5.18, which reads Qwen's and Gemma's files without a real one's tokens and scores",
)


@pytest.mark.parametrize(
    "case",
    [
        (
            "llama",
            {"rope_parameters": LINEAR},
            {"entries": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
        ),
        ("llama", {"rope_parameters": LINEAR}, {"entries": {"llama.rope.scaling.factor": 4.0}}),
        (
            "llama",
            {"rope_parameters": PLAIN},
            {"entries": {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}},
        ),
        ("llama", {"rope_parameters": LLAMA3, "hidden": 64}, {"extra": {"rope_freqs.weight": llama3_factors()}}),
        ("llama", {"hidden": 64}, {"extra": {"rope_freqs.weight": np.ones(8, dtype=np.float32)}}),
        pytest.param(("qwen3", {"head_dim": 16}, {}), marks=reads_tiny_tokenizers),
        pytest.param(
            (
                "gemma3",
                {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 32, "layers": 7},
                {"entries": {"tokenizer.ggml.unknown_token_id": 3}},
            ),
            marks=reads_tiny_tokenizers,
        ),
    ],
)
def test_what_the_metadata_say_reaches_the_model(case, tiny_model, tmp_path, store):
    """Against transformers' own model, of which the file is a copy: width per head, stretched positions, windows."""
    import torch

    architecture, config, gguf = case
    kind = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    folder = tiny_model(kind, **{name: value for name, value in config.items() if name != "rope_parameters"})
    if "rope_parameters" in config:
        import json

        folder = shutil.copytree(folder, tmp_path / "model")
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**described, "rope_parameters": config["rope_parameters"]}))
    path = build_gguf(folder, tmp_path / "m.gguf", architecture=architecture, **gguf)
    torch.testing.assert_close(logits_of(path, store), logits_of(folder, store))


def test_a_stretched_model_is_another_one(changed, store):
    """The test above could not fail if stretching made no difference."""
    import torch

    plain = logits_of(changed(), store)
    stretched = logits_of(changed(entries={"llama.rope.scaling.factor": 4.0}), store)
    assert float(torch.abs(plain - stretched).max()) > 0.01


def test_the_tokenizer_is_that_of_the_file_whatever_lies_beside_it(tiny_gguf, tmp_path, store):
    import json

    folder = tmp_path / "with"
    folder.mkdir()
    path = shutil.copy(tiny_gguf, folder / "m.gguf")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "eos_token": None}))
    (folder / "tokenizer.json").write_text("{")
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    assert (
        resolve(parse_model(str(path)), store=store).fingerprint
        == resolve(parse_model(str(tiny_gguf)), store=store).fingerprint
    )


@pytest.mark.parametrize(
    ("without", "extra", "message"),
    [
        (
            ("blk.1.ffn_down.weight",),
            (),
            r"lacks 1 of 29 weights of this llama model: model\.layers\.1\.mlp\.down_proj\.weight\. ",
        ),
        (("output_norm.weight",), (), r"lacks 1 of 29 weights .*: model\.norm\.weight\. "),
        (
            (),
            ("blk.3.ffn_down.weight",),
            "holds 1 tensors that this llama model has no place for: blk.3.ffn_down.weight. ",
        ),
        (
            (),
            ("blk.0.attn_q.bias",),
            "holds 1 tensors that this llama model has no place for: blk.0.attn_q.bias. They would have been ignored",
        ),
        (
            (),
            ("rope_factors_long.weight",),
            "holds 1 tensors that this llama model has no place for: rope_factors_long.weight",
        ),
    ],
)
def test_tensors_too_few_or_too_many_are_refused_by_name(without, extra, message, changed, refuse):
    path = changed(without=without, extra={name: np.ones(4, dtype=np.float32) for name in extra})
    refuse(path, ModelError, rf"m\.gguf {message}")


def test_frequencies_of_no_published_setting_are_refused(changed, refuse):
    path = changed(extra={"rope_freqs.weight": np.linspace(1, 3, 8, dtype=np.float32)})
    refuse(path, ModelError, r"divides the frequencies of its positions \(rope_freqs\.weight\) by factors")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("rope.scaling.type", "yarn"),
        ("rope.dimension_count", 8),
        ("attention.key_length", 8),
        ("attention.value_length", 8),
        ("attention.sliding_window", 16),
        ("attention.causal", False),
        ("attention.scale", 0.5),
        ("final_logit_softcapping", 30.0),
        ("expert_count", 8),
        ("logit_scale", 0.0625),
        ("feed_forward_length", [128, 128, 64]),
        ("attention.head_count_kv", [2, 2, 1]),
        ("never_heard_of", 1),
    ],
)
def test_an_entry_that_would_be_ignored_is_refused_by_name(entry, value, changed, refuse):
    path = changed(entries={f"llama.{entry}": value})
    refuse(path, ModelError, rf"m\.gguf says llama\.({entry}|rope\.dimension_count) = ")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("attention.key_length", 16),
        ("attention.sliding_window", 0),
        ("attention.causal", True),
        ("attention.scale", 0.25),  # of 16 per head
        ("rope.scaling.original_context_length", 128),
        ("expert_count", 0),
    ],
)
def test_an_entry_that_says_what_the_model_does_passes(entry, value, changed, store):
    assert resolve(parse_model(str(changed(entries={f"llama.{entry}": value}))), store=store).model_type == "llama"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"split.count": 2, "split.no": 0}, "is part 1 of 2 of a model; join them"),
        ({"general.type": "adapter"}, 'holds "adapter", not a model'),
        ({"llama.block_count": None}, "llama.block_count must be a whole number of at least 1, not null"),
        ({"llama.block_count": "four"}, 'llama.block_count must be a whole number of at least 1, not "four"'),
        ({"llama.block_count": 1_000_000}, "num_hidden_layers is 1000000, but the checkpoint has 29 tensors"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count must be a whole number of at least 1, not 0"),
        (
            {"llama.embedding_length": 1_000_000_000, "llama.attention.key_length": 16},
            "in the shape .*, its metadata make it .*1000000000",
        ),
        ({"general.alignment": 0}, "asks for an alignment of 0 bytes"),
    ],
)
def test_headers_that_cannot_be_meant_are_refused_at_once(entries, message, changed, refuse):
    path = changed(entries=entries)
    begun = time.monotonic()
    refuse(path, (ModelError, IntegrityError), rf"m\.gguf:? .*{message}|m\.gguf:? {message}")
    assert time.monotonic() - begun < 20  # the import of transformers, on a busy machine


def test_a_header_alone_is_no_model(tmp_path, refuse):
    import gguf

    path = tmp_path / "h.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refuse(path, ModelError, r"h\.gguf holds no tensor: it is the header of a model without the model")


def test_the_precision_of_a_quantized_file_stays_with_the_model(tiny_model, tmp_path, store):
    """Two layers of seven matrices and the embedding, 32 wide, as Q8_0: 32 weights take 34 bytes, 8.5 bits each."""
    import gguf

    folder = tiny_model("llama")
    plain = build_gguf(folder, tmp_path / "plain.gguf")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    reader = gguf.GGUFReader(plain)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            writer.add_key_value(
                field.name, field.contents(), field.types[0], sub_type=field.types[-1] if len(field.types) > 1 else None
            )
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            data = gguf.quants.quantize(tensor.data, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor.name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert resolve(parse_model(str(path)), store=store).precision == "Q8_0: 15 x Q8_0, 5 x F32; 8.50 bits per weight"
    assert resolve(parse_model(str(path)), store=store).precision == "Q8_0: 15 x Q8_0, 5 x F32; 8.50 bits per weight"
    assert resolve(parse_model(str(plain)), store=store).precision is None
    assert resolve(parse_model(str(folder)), store=store).precision is None


# Headers, byte by byte --------------------------------------------------------------------------------------------


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def header(*, entries=(), tensors=(), counts=None):
    number = counts or (len(tensors), len(entries))
    return b"GGUF" + struct.pack("<IQQ", 3, *number) + b"".join(entries) + b"".join(tensors)


def tensor(name, *, shape=(32,), kind=0, offset=0):
    return (
        text(name)
        + struct.pack("<I", len(shape))
        + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", kind, offset)
    )


def padded(content, data):
    return content + bytes(-len(content) % 32) + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(counts=(1 << 40, 0)), "claims 1099511627776 tensors and 0 entries"),
        (header(counts=(0, 1 << 40)), "claims 0 tensors and 1099511627776 entries"),
        (header(entries=[text("a") + struct.pack("<IIQ", 9, 8, 1 << 40)]), "claims an array of 1099511627776 entries"),
        (header(entries=[text("a") + struct.pack("<IIQ", 9, 9, 1)]), "claims an array of 1 entries of type 9"),
        (header(entries=[text("a") + struct.pack("<IIQ", 9, 4, 1 << 60)]), "inside its header"),
        (header(entries=[text("a") + struct.pack("<I", 99)]), "an entry of unknown type 99"),
        (header(entries=[text("a") + struct.pack("<II", 4, 1)] * 2), "has the entry a twice"),
        (header(tensors=[tensor("a", kind=77)]), "gives tensor a the unknown type 77"),
        (header(tensors=[tensor("a", shape=(1,) * 5)]), "gives tensor a 5 dimensions"),
        (header(tensors=[tensor("a", shape=(33,), kind=8)]), r"the shape \[33\], but Q8_0 has blocks of 32"),
        (header(tensors=[tensor("a", shape=(0,))]), r"the shape \[0\]"),
        (padded(header(tensors=[tensor("a", offset=32)]), bytes(160)), "has tensor a at byte [0-9]+, expected at byte"),
        (
            padded(header(tensors=[tensor("a"), tensor("b")]), bytes(128)),
            "has tensor b at byte [0-9]+, expected at byte",
        ),
        (padded(header(tensors=[tensor("a"), tensor("a", offset=128)]), bytes(256)), "has the tensor a twice"),
        (padded(header(tensors=[tensor("a")]), bytes(100)), "but tensor a reaches from byte [0-9]+ to"),
        (padded(header(tensors=[tensor("a")]), bytes(128 + 32)), "has 32 bytes that belong to no tensor"),
        (header(tensors=[tensor("a", shape=(1 << 62, 1 << 62))]), "but tensor a reaches from byte"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused_by_byte(content, message, tmp_path):
    path = tmp_path / "h.gguf"
    path.write_bytes(content + bytes(max(0, 24 - len(content))))
    with pytest.raises(IntegrityError, match=message):
        read_gguf_header(path)


def test_a_header_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "h.gguf"
    entries = [text("n") + struct.pack("<II", 4, 7), text("l") + struct.pack("<IIQ3I", 9, 4, 3, 1, 2, 3)]
    path.write_bytes(padded(header(entries=entries, tensors=[tensor("a", shape=(4, 8))]), bytes(128)))
    found = read_gguf_header(path)
    assert dict(found.metadata) == {"n": 7, "l": (1, 2, 3)}
    (only,) = found.tensors
    assert (only.name, only.kind, only.shape, only.end - only.begin) == ("a", "F32", (8, 4), 128)
