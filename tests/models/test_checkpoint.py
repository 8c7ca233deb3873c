"""Tensors are streamed from disk unchanged, and headers are believed only when they cover the file exactly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from evenbits.errors import IntegrityError, ModelError, NonFiniteError
from resident_memory import RESIDENT


def write_header(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_every_tensor_equals_what_safetensors_reads(tiny_llama):
    import torch
    from evenbits.models import checkpoint
    from safetensors.torch import load_file

    expected = load_file(tiny_llama / "model.safetensors")
    streamed = dict(checkpoint.stream(tiny_llama))
    assert list(streamed) == sorted(expected) == list(checkpoint.tensor_names(tiny_llama))
    assert all(torch.equal(streamed[name], expected[name]) for name in expected)
    assert checkpoint.shapes(tiny_llama) == {name: tuple(value.shape) for name, value in streamed.items()}


def test_shards_are_read_as_one_checkpoint(tiny_model):
    import torch
    from evenbits.models import checkpoint

    whole, parts = tiny_model("llama"), tiny_model("llama", shard="40KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    for name, tensor in checkpoint.stream(whole):
        assert torch.equal(tensor, checkpoint.read(parts, name))


def test_rows_are_read_alone(tiny_llama):
    import torch
    from evenbits.models import checkpoint

    name = "model.layers.1.mlp.down_proj.weight"
    whole = checkpoint.read(tiny_llama, name)
    assert torch.equal(checkpoint.read(tiny_llama, name, rows=slice(3, 10)), whole[3:10])
    assert checkpoint.read(tiny_llama, name, rows=slice(5, 5)).shape == (0, 128)
    with pytest.raises(ModelError, match="must be neighbours"):
        checkpoint.read(tiny_llama, name, rows=slice(0, 8, 2))


def test_writing_to_a_tensor_leaves_the_file_alone(tiny_llama):
    from evenbits.models import checkpoint

    before = (tiny_llama / "model.safetensors").read_bytes()
    tensor = checkpoint.read(tiny_llama, "model.norm.weight")
    tensor.zero_()
    assert checkpoint.read(tiny_llama, "model.norm.weight").abs().sum() > 0
    assert (tiny_llama / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "bool"])
def test_other_dtypes_and_odd_offsets_are_read(dtype, tmp_path):
    import torch
    from evenbits.models import checkpoint
    from safetensors.torch import save_file

    value = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    save_file({"a": torch.ones(3, dtype=torch.int8), "b": value}, tmp_path / "model.safetensors")
    assert torch.equal(checkpoint.read(tmp_path, "b"), value)


def test_a_header_of_odd_length_does_not_misalign_numbers(tmp_path):
    import torch
    from evenbits.models import checkpoint

    data = torch.tensor([1.5, -2.0]).numpy().tobytes()
    for padding in range(4):
        path = tmp_path / str(padding) / "model.safetensors"
        path.parent.mkdir()
        header = {"x" * (padding + 1): {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        write_header(path, header, data)
        assert checkpoint.read(path.parent, "x" * (padding + 1)).tolist() == [1.5, -2.0]


def test_an_empty_tensor_and_an_unknown_name(tmp_path):
    from evenbits.models import checkpoint

    write_header(tmp_path / "model.safetensors", {"e": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}})
    assert checkpoint.read(tmp_path, "e").shape == (0, 4)
    with pytest.raises(ModelError, match="has no tensor 'f'"):
        checkpoint.read(tmp_path, "f")


def test_streaming_needs_the_memory_of_one_tensor(tmp_path):
    # 16 tensors of 32 MiB: 512 MiB on disk. Going through them must not keep more than a few.
    header, size = {}, 32 << 20
    for i in range(16):
        header[f"t{i:02}"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [i * size, (i + 1) * size]}
    write_header(tmp_path / "model.safetensors", header)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + 16 * size)
    code = RESIDENT + (
        "import sys, torch; from evenbits.models import checkpoint;"
        "torch.ones(9).sum(); start = resident('VmHWM');"
        "total = sum(float(tensor.sum()) for _, tensor in checkpoint.stream(Path(sys.argv[1])));"
        "print(total, round(resident('VmHWM') - start))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    total, mebibytes = done.stdout.split()
    assert float(total) == 0.0
    assert int(mebibytes) < 128


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_with_nan_or_infinity_is_named_with_the_place(bad):
    import torch
    from evenbits.models.checkpoint import check_finite

    tensor = torch.zeros(3, 4)
    check_finite("w", tensor)
    check_finite("integers", torch.zeros(2, dtype=torch.int64))
    tensor[2, 1] = bad
    with pytest.raises(NonFiniteError, match=r"tensor w holds -?(nan|inf) at \[2, 1\]"):
        check_finite("w", tensor)
    with pytest.raises(NonFiniteError, match=r"at \[2, 1\]"):
        check_finite("w", tensor.to(torch.bfloat16))


def test_a_truncated_file_names_the_tensor_and_the_byte(tiny_llama, tmp_path):
    from evenbits.models.headers import entries

    whole = (tiny_llama / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[:-100])
    with pytest.raises(IntegrityError, match=rf"{path} ends at byte {len(whole) - 100} of {len(whole)}, inside tensor"):
        entries(tmp_path)
    path.write_bytes(whole[:50])
    with pytest.raises(IntegrityError, match="ends at byte 50, inside its header"):
        entries(tmp_path)
    path.write_bytes(whole[:5])
    with pytest.raises(IntegrityError, match="5 bytes long"):
        entries(tmp_path)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234", r"tensor a 4 bytes .* needs 8"),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
            b"12345678",
            "has tensor a at byte .* expected at",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
            b"12345678",
            "4 bytes that belong to no tensor",
        ),
        ({"a": {"dtype": "f 3", "shape": [1], "data_offsets": [0, 4]}}, b"1234", 'tensor a the dtype "f 3"'),
        (
            {"a": {"dtype": "F4", "shape": [2], "data_offsets": [4, 0]}},
            b"1234",
            "has 4 bytes that belong|at byte|gives",
        ),
        (
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": ["a", "b"]}},
            b"1234",
            "a: data_offsets must be a list of 2",
        ),
        ({"a": {"dtype": "F32", "shape": [1 << 62] * 9, "data_offsets": [0, 4]}}, b"1234", "needs [0-9]+"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, b"1234", "a: shape must be a list of whole"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234", "a: shape must be a list of whole"),
        (
            {"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 4]}},
            b"1234",
            "a: shape must be a list of whole numbers",
        ),
        ({"a": {"shape": [1], "data_offsets": [0, 4]}}, b"1234", "a has no dtype"),
        ({"a": [1]}, b"", "a must be an object, not"),
        (["a"], b"", "must be an object, not"),
        ({"__metadata__": "pt"}, b"", "__metadata__ must be an object, not"),
        ({"__metadata__": {"format": 1}}, b"", "__metadata__: format must be a text, not 1"),
    ],
)
def test_a_header_that_does_not_cover_the_file_is_refused(header, data, message, tmp_path):
    from evenbits.models.headers import entries

    write_header(tmp_path / "model.safetensors", header, data)
    with pytest.raises(IntegrityError, match=message):
        entries(tmp_path)


def test_a_header_that_is_no_json_names_the_byte(tmp_path):
    from evenbits.models.headers import entries

    (tmp_path / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b'{"a?')
    with pytest.raises(IntegrityError, match="not JSON at byte 9"):  # 8 bytes of length, then the 2nd of the header
        entries(tmp_path)


def test_a_missing_shard_is_named(tiny_model, tmp_path):
    from evenbits.models.headers import entries

    folder = shutil.copytree(tiny_model("llama", shard="40KB"), tmp_path / "model")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(IntegrityError, match=f"not there: {lost.name}"):
        entries(folder)


def test_an_index_that_disagrees_with_a_shard_is_refused(tiny_model, tmp_path):
    from evenbits.models.headers import entries

    folder = shutil.copytree(tiny_model("llama", shard="40KB"), tmp_path / "model")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"].values()))
    content["weight_map"]["model.invented.weight"] = first
    index.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=r"model\.invented\.weight is in .* does not hold it"):
        entries(folder)
    index.write_text("{}")
    with pytest.raises(IntegrityError, match="has no weight_map"):
        entries(folder)
