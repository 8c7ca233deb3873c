"""Weight statistics beside scipy.stats on the same tensors, and the memory they take.

Both read the checkpoint from disk and give the same statistics; runs alternate.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from evenbits.models import checkpoint
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.observe.weights.checkpoint import weight_statistics
from evenbits.store import Store
from resident_memory import RESIDENT

pytestmark = [pytest.mark.slow, pytest.mark.bench]

ROOT = Path(__file__).resolve().parents[2]
FASTER = 5.0
ROUNDS = int(os.environ.get("EVENBITS_BENCH_ROUNDS", "5"))

PEAK = (
    RESIDENT
    + """
import json, sys
from pathlib import Path
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.models.outline import outline_anatomy
from evenbits.store import Store
from evenbits.observe.weights.checkpoint import weight_statistics

folder, store = Path(sys.argv[1]), Store(Path(sys.argv[2]))
local = resolve(parse_model(str(folder)), store=store)
outline_anatomy(folder)  # imports torch and transformers: not what is measured
forget_peak()
start = resident("VmRSS")
weight_statistics(local, store=store)
print(json.dumps({"start": start, "peak": resident("VmHWM")}))
"""
)


def write_checkpoint(folder, *, hidden, layers, vocabulary, dtype):
    """A llama with heavy-tailed random weights, without a tokenizer model beyond what resolving asks for."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.02, generator=generator)
                parameter.view(-1)[::1009] *= 12  # tails, so that no statistic is that of a plain normal
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def checkpoint_folder(request, tmp_path_factory, tiny_tokenizer):
    """About 57 million weights in matrices of 768 x 768 to 768 x 2048; bfloat16 is what checkpoints ship in."""
    folder = tmp_path_factory.mktemp("speed") / request.param
    tiny_tokenizer.save_pretrained(folder)
    return write_checkpoint(folder, hidden=768, layers=8, vocabulary=512, dtype=getattr(torch, request.param))


def moments_by_scipy(w):
    return {
        "mean": w.mean(),
        "std": w.std(),
        "skew": scipy.stats.skew(w, axis=None),
        "kurtosis": scipy.stats.kurtosis(w, axis=None),
        "rows": scipy.stats.kurtosis(w, axis=1),
        "columns": scipy.stats.kurtosis(w, axis=0),
    }


def spread(a):
    """Gini and concentration ratio of every line of the ascending magnitudes `a`."""
    n = a.shape[-1]
    gini = a @ (2.0 * np.arange(1, n + 1) - n - 1) / (n * a.sum(axis=-1))
    top, wide = (max(1, round(share * n)) for share in (0.01, 0.1))
    return gini, a[..., -top:].sum(axis=-1) / a[..., -wide:].sum(axis=-1)


def order_by_numpy(w):
    z = np.abs(scipy.stats.zscore(w, axis=None))
    a = np.abs(w)
    gini, concentration = spread(np.sort(a, axis=None))
    row_gini, row_concentration = spread(np.sort(a, axis=1))
    return {
        "beyond": [int((z > sigma).sum()) for sigma in (3, 5, 10)],
        "gini": gini,
        "concentration": concentration,
        "row_gini": row_gini,
        "row_concentration": row_concentration,
    }


def by_peers(folder, names):
    """The statistics by scipy.stats, and by numpy where scipy has none; seconds of each part."""
    found, moments, orders = {}, 0.0, 0.0
    for name in names:
        start = time.perf_counter()
        w = checkpoint.read(folder, f"{name}.weight").double().numpy()
        found[name] = moments_by_scipy(w)
        middle = time.perf_counter()
        found[name] |= order_by_numpy(w)
        moments, orders = moments + middle - start, orders + time.perf_counter() - middle
    return found, moments, orders


def test_weight_statistics_are_five_times_faster_than_scipy(benchmark, checkpoint_folder, tmp_path, row):
    local = resolve(parse_model(str(checkpoint_folder)), store=Store(tmp_path / "models"))
    warm = weight_statistics(local, store=Store(tmp_path / "warm"))
    names = [tensor.name for tensor in (*warm.tensors, *warm.outside)]
    rounds, peer = [], {}

    def peers_first():
        found, *seconds = by_peers(checkpoint_folder, names)
        peer.update(found)
        rounds.append(seconds)
        return (local,), {"store": Store(tmp_path / f"round{len(rounds)}")}

    found = benchmark.pedantic(weight_statistics, setup=peers_first, rounds=ROUNDS)
    for tensor in map(found.__getitem__, names):
        expected = peer[tensor.name]
        for field in ("mean", "std", "skew", "kurtosis", "gini", "concentration"):
            assert getattr(tensor, field) == pytest.approx(expected[field], rel=1e-7, abs=1e-12)
        assert [count.count for count in tensor.beyond] == expected["beyond"]
        np.testing.assert_allclose(tensor.row_kurtosis, expected["rows"], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(tensor.column_kurtosis, expected["columns"], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(tensor.row_gini, expected["row_gini"], rtol=1e-9)
        np.testing.assert_allclose(tensor.row_concentration, expected["row_concentration"], rtol=1e-9)
    found = row(
        work=f"weight statistics, 57 M weights in {checkpoint_folder.name}",
        ours=benchmark.stats.stats.data,
        peer=[moments + orders for moments, orders in rounds],
        peer_name="scipy.stats and numpy",
        target=FASTER,
        at_least=True,
    )
    assert found.reached, found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("gib", [0.5, 1, 2, 4, 8, 16])
def test_peak_memory_does_not_grow_with_the_checkpoint(tmp_path, gib, once, row):
    """Sparse checkpoints in the shape of Qwen3-8B with fewer layers; the head is too large to be sorted at once."""
    from evenbits.models.shipped import reference_root
    from sparse_checkpoint import QWEN3_8B, write_sparse

    layer = 2 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 12288 * 4096)
    vocabulary = min(QWEN3_8B["vocab_size"], int(gib * 2**30 / 4 / 2 / 4096))  # half of a small one is its vocabulary
    layers = max(1, round((gib * 2**30 - 4 * vocabulary * 4096) / layer))
    shape = {**QWEN3_8B, "num_hidden_layers": layers, "vocab_size": vocabulary}
    folder = write_sparse(tmp_path / "sparse", shape, tokenizer=reference_root() / "a1")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = once(
            lambda: subprocess.run(
                [sys.executable, "-c", PEAK, str(folder), str(tmp_path / "store")],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
        )
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**30
    finally:
        shutil.rmtree(folder)
    memory = json.loads(done.stdout)
    above = memory["peak"] - memory["start"]
    work = f"memory of weight statistics, {size:.1f} GiB"
    found = row(work=work, ours=[above], peer=[512.0], peer_name="allowed", target=1, at_least=False, unit="MiB")
    assert found.reached, found
