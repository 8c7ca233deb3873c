"""Weight statistics made by hand, for tests that look at what is concluded from them."""

import numpy as np
from evenbits.observe.weights.statistics import SigmaCount, TensorStatistics, WeightStatistics

KINDS = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "o_proj": "attention",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


def tensor(role="up_proj", *, layer=0, kurtosis=1.0, beyond=0, size=(100, 100), part=None):
    """A tensor of which `beyond` weights lie beyond three, five and ten standard deviations."""
    rows, columns = np.ones(size[0]), np.ones(size[1])
    n = size[0] * size[1]
    counts = tuple(SigmaCount(sigma=s, count=beyond, share=beyond / n) for s in (3, 5, 10))
    part = part or KINDS.get(role, "mlp")
    name = f"model.layers.{layer}.{'self_attn' if part == 'attention' else 'mlp'}.{role}"
    return TensorStatistics(
        name=name,
        layer=layer,
        part=part,
        role=role,
        shape=size,
        mean=0.0,
        std=1.0,
        skew=0.0,
        kurtosis=kurtosis,
        reason="no spread" if kurtosis is None else None,
        absmax=9.0,
        beyond=counts,
        concentration=0.2,
        gini=0.4,
        hoyer=0.1,
        row_std=rows,
        row_absmax=rows,
        row_kurtosis=rows,
        row_concentration=rows,
        row_gini=rows,
        row_hoyer=rows,
        row_beyond=np.zeros((3, size[0]), dtype=np.int64),
        column_std=columns,
        column_kurtosis=columns,
    )


def model(kurtosis=None, beyond=None, *, layers=2, otherwise=1.0):
    """Statistics of a model with all seven kinds of matrices in each layer.

    `kurtosis`, `beyond`: by (layer, kind), where they are not `otherwise` and none.
    """
    kurtosis, beyond = kurtosis or {}, beyond or {}
    tensors = tuple(
        tensor(kind, layer=layer, kurtosis=kurtosis.get((layer, kind), otherwise), beyond=beyond.get((layer, kind), 0))
        for layer in range(layers)
        for kind in KINDS
    )
    return of_tensors(tensors)


def of_tensors(tensors):
    """Statistics of a model whose matrices inside the layers are `tensors`."""
    whole = {one.name: one for one in tensors}
    return WeightStatistics(fingerprint="0f", tensors=tuple(tensors), whole=whole.__getitem__)
