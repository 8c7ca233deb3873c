"""The fingerprint follows the function, not the files."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from evenbits.errors import IntegrityError
from evenbits.models.fingerprint import file_sha256, fingerprint


def copy(folder, target):
    return shutil.copytree(folder, target)


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_sharding_place_and_irrelevant_entries_do_not_change_it(tiny_model, store, tmp_path):
    whole = fingerprint(tiny_model("llama"), store=store)
    assert len(whole) == 64
    assert fingerprint(tiny_model("llama", shard="40KB"), store=store) == whole
    moved = copy(tiny_model("llama"), tmp_path / "elsewhere")
    edit(moved / "config.json", transformers_version="4.0", _name_or_path="x", attention_dropout=0.5)
    (moved / "README.md").write_text("not part of the function")
    assert fingerprint(moved, store=store) == whole


def test_weights_tokenizer_and_configuration_change_it(tiny_model, store, tmp_path):
    base = tiny_model("llama")
    seen = {fingerprint(base, store=store), fingerprint(tiny_model("llama", seed=1), store=store)}
    other_tokenizer = copy(base, tmp_path / "tokenizer")
    edit(other_tokenizer / "tokenizer_config.json", bos_token="</s>")  # noqa: S106 - a token, no password
    seen.add(fingerprint(other_tokenizer, store=store))
    other_config = copy(base, tmp_path / "config")
    edit(other_config / "config.json", rms_norm_eps=1e-3)
    seen.add(fingerprint(other_config, store=store))
    assert len(seen) == 4


def test_one_changed_bit_changes_it_even_where_size_and_place_stay(tiny_model, store, tmp_path):
    folder = copy(tiny_model("llama"), tmp_path / "model")
    path = folder / "model.safetensors"
    before = fingerprint(folder, store=store)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert fingerprint(folder, store=store) != before


@pytest.fixture
def rested(monkeypatch):
    """Files of this test count as unchanged for long: their digests are stored."""
    monkeypatch.setattr("evenbits.models.fingerprint.RESTING", 0)


def swapped(path, content):
    """Write `content` over the file in place; size and time stamps stay."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


@pytest.mark.usefixtures("rested")
def test_a_file_swapped_for_one_of_the_same_size_and_time_stamps_is_read_again(tiny_model, store, tmp_path):
    folder = copy(tiny_model("llama"), tmp_path / "model")
    before = fingerprint(folder, store=store)
    other = tiny_model("llama", seed=1)
    swapped(folder / "model.safetensors", (other / "model.safetensors").read_bytes())
    assert fingerprint(folder, store=store) == fingerprint(other, store=store) != before


def test_a_state_that_the_clock_gives_twice_still_shows_in_the_samples(tmp_path, monkeypatch):
    """Every time stamp the same: small files differ anyhow, large ones where a sampled block does."""
    from evenbits.models import fingerprint as module

    monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(module, "SAMPLES", 4)
    path = tmp_path / "m"
    # 100 bytes in blocks of 16: more than 4 blocks, so at 0, 28, 56 and 84; byte 20 lies between the samples
    digests = []
    for changed in (None, 5, 60, 99, 20):
        content = bytearray(100)
        if changed is not None:
            content[changed] = 1
        path.write_bytes(content)
        digests.append(module._sampled(path, 100))
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[0]


def test_of_a_file_that_changed_a_moment_ago_nothing_is_stored(store, tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    file_sha256(path, store=store)
    assert not (store.root / "checksums").exists()


@pytest.mark.usefixtures("rested")
def test_the_second_time_nothing_is_read(tiny_model, store, monkeypatch):
    from evenbits.models import fingerprint as module

    first = fingerprint(tiny_model("llama"), store=store)
    monkeypatch.setattr(module, "_measure", lambda _folder: "read again")
    assert fingerprint(tiny_model("llama"), store=store) == first


def test_a_renamed_tensor_changes_it(tiny_model, store, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy(tiny_model("llama"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    a, b = "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight"
    tensors[a], tensors[b] = tensors[b].clone(), tensors[a].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(folder, store=store) != fingerprint(tiny_model("llama"), store=store)


def test_code_of_the_repository_changes_it_where_it_runs(tiny_model, store, tmp_path):
    folder = copy(tiny_model("llama"), tmp_path / "model")
    whole = fingerprint(folder, store=store)
    (folder / "modeling_x.py").write_text("A = 1\n")
    assert fingerprint(folder, store=store) == whole  # nothing names it
    for part in ("config.json", "tokenizer_config.json"):
        named = copy(folder, tmp_path / part.partition(".")[0])
        edit(named / part, auto_map={"AutoModelForCausalLM": "modeling_x.X"})
        before = fingerprint(named, store=store)
        (named / "modeling_x.py").write_text("A = 2\n")
        assert fingerprint(named, store=store) != before


@pytest.mark.parametrize("name", ["tekken.json", "tokenizer.4.0.0.json", "spm.model", "tokenizer.model.v3"])
def test_every_file_that_a_tokenizer_may_be_read_from_changes_it(name, tiny_model, store, tmp_path):
    folder = copy(tiny_model("llama"), tmp_path / "model")
    seen = {fingerprint(folder, store=store)}
    for content in ("{}", "{ }"):
        (folder / name).write_text(content)
        seen.add(fingerprint(folder, store=store))
    assert len(seen) == 3


@pytest.fixture
def of_two_versions(tiny_model, store, tmp_path, monkeypatch, rested):  # noqa: ARG001
    """`of_two_versions(name, package)` -> fingerprints with that file and versions, with tokenizer.json and without."""
    from evenbits.models import fingerprint as module

    def make(name, package):
        whole = copy(tiny_model("llama"), tmp_path / "whole")
        (whole / name).touch()
        alone = copy(whole, tmp_path / "alone")
        (alone / "tokenizer.json").unlink()
        monkeypatch.setattr(module, "find_spec", lambda asked: asked if asked == package else None)
        seen = set()
        for version in ("1", "2"):
            monkeypatch.setattr(module.metadata, "version", lambda _, version=version: version)
            seen |= {fingerprint(folder, store=store) for folder in (whole, alone)}
        return seen

    return make


@pytest.mark.parametrize(
    ("name", "package", "states"),
    [("tekken.json", "mistral_common", 4), ("tokenizer.model", "sentencepiece", 3), ("vocab.txt", "none", 2)],
)
def test_the_version_of_another_reader_changes_it(of_two_versions, name, package, states):
    """Of sentencepiece where there is no tokenizer.json, which is read in its place."""
    assert len(of_two_versions(name, package)) == states


def test_a_folder_without_a_tensor_has_none(tiny_model, store, tmp_path):
    """Configuration and tokenizer alone would be those of every other such folder."""
    folder = copy(tiny_model("llama"), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(IntegrityError, match="holds no tensor that would be loaded"):
        fingerprint(folder, store=store)


def test_a_file_checksum_is_that_of_sha256sum(store, tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_sha256(path, store=store) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
