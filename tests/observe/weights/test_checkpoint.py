"""Weight statistics of whole checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from evenbits.errors import NonFiniteError
from evenbits.models.loading import load
from evenbits.observe.weights.checkpoint import weight_statistics
from evenbits.observe.weights.statistics import KurtosisClass, TensorStatistics, WeightStatistics
from evenbits.store import DamagedEntryWarning, contents

ARCHITECTURES = ("llama", "gemma3_text", "gpt_neox", "gpt2", "bloom", "opt", "xglm")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_has_the_statistics_of_the_weight_the_model_loads(architecture, tiny_model, resolved, store):
    local = resolved(tiny_model(architecture))
    found = weight_statistics(local, store=store)
    loaded = load(local, dtype=torch.float32)
    assert [t.name for t in found.tensors] == [linear.name for linear in loaded.anatomy.linears]
    for tensor, linear in zip(found.tensors, loaded.anatomy.linears, strict=True):
        weight = loaded.model.get_submodule(linear.name).weight.double().numpy()
        w = weight.T if linear.transposed else weight
        assert tensor.shape == w.shape
        assert (tensor.layer, tensor.part, tensor.role) == (linear.layer, linear.part, linear.role)
        assert tensor.kurtosis == pytest.approx(scipy.stats.kurtosis(w, axis=None), rel=1e-9)
        columns = found[tensor.name].column_kurtosis
        np.testing.assert_allclose(columns, scipy.stats.kurtosis(w, axis=0), rtol=1e-8, atol=1e-9)
    outside = {t.part for t in found.outside} - {"projection"}
    assert outside == ({"embedding"} if loaded.anatomy.tied else {"embedding", "head"})


def test_statistics_are_stored_and_read_back_whole(tiny_llama, resolved, store):
    local = resolved(tiny_llama)
    first = weight_statistics(local, store=store)
    names = [tensor.name for tensor in (*first.tensors, *first.outside)]
    assert store.misses == 1 + len(names)  # the blueprint, and each matrix
    again = weight_statistics(local, store=store)
    assert store.misses == 1 + len(names)
    assert (first.tensors, first.outside) == (again.tensors, again.outside)
    for name in names:
        for field in TensorStatistics.ARRAYS:
            np.testing.assert_array_equal(getattr(first[name], field), getattr(again[name], field))
    with pytest.raises(KeyError, match="no statistics of head"):
        again["head"]


def test_a_run_that_was_stopped_measures_what_lacks_and_a_damaged_matrix_again(tiny_llama, resolved, store):
    local = resolved(tiny_llama)
    first = weight_statistics(local, store=store)
    lost, damaged = sorted(store.root.glob("weight-statistics/*"))[:2]
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    misses = store.misses
    with pytest.warns(DamagedEntryWarning, match="is damaged"):
        again = weight_statistics(local, store=store)
    assert store.misses == misses + 2
    assert first.tensors == again.tensors


def test_the_class_follows_the_heaviest_tensor_inside_the_layers(tiny_llama, resolved, store):
    found = weight_statistics(resolved(tiny_llama), store=store)
    assert found.largest_kurtosis == max(t.kurtosis for t in found.tensors)
    assert found["model.embed_tokens"].part == "embedding"
    assert found.n == sum(np.prod(t.shape) for t in found.tensors)
    assert found.layer_kurtosis()[1] == max(t.kurtosis for t in found.tensors if t.layer == 1)
    total = found.beyond(3)
    assert total.count == sum(t.beyond[0].count for t in found.tensors)
    assert total.share == total.count / found.n
    expected = sum(t.gini * t.n for t in found.tensors) / found.n
    assert found.weighted("gini") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kurtosis", "expected"),
    [(50.1, "HEAVY"), (50, "MODERATE"), (15, "MODERATE"), (14.9, "MILD"), (5, "MILD"), (4.9, "GAUSSIAN")],
)
def test_classes_are_cut_where_the_method_says(kurtosis, expected):
    assert KurtosisClass.of(kurtosis) == expected


def test_a_damaged_weight_names_the_tensor_and_nothing_of_it_is_stored(tiny_model, resolved, store, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "bad"
    shutil.copytree(tiny_model("llama"), folder)
    local = resolved(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"model\.layers\.1\.mlp\.up_proj has NaN .* first in row 3"):
        weight_statistics(local, store=store)
    stored = {contents(file).meta["name"] for file in store.root.glob("weight-statistics/*")}
    assert "model.layers.1.mlp.up_proj" not in stored


def test_a_model_without_linears_has_no_statistics():
    from evenbits.errors import ModelError

    with pytest.raises(ModelError, match="at least one linear layer"):
        WeightStatistics(fingerprint="x", tensors=(), whole={}.__getitem__)
