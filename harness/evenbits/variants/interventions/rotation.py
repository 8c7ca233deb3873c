"""Rotation of the residual stream: the same function, with weights spread over all directions.

An RMS norm without gain commutes with an orthogonal Q: norm(x Q) = norm(x) Q. So the gains are first folded into the
products that read a norm's output; then whatever writes into the stream is multiplied by Q and whatever reads it by
its inverse. Outliers that sit in single directions of the stream are mixed into all of them, and kurtosis falls.
Source: SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024) and QuaRot (arXiv 2404.00456).

Legend: D width of the stream; W of a product is out x in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenbits.variants.interventions.shape import LlamaShape

__all__ = ["random_rotation", "rotated"]


def random_rotation(width: int, *, rng: np.random.Generator) -> Tensor:
    """Return a random orthogonal D x D matrix, uniform (Haar): QR of a normal matrix with the signs of R's diagonal."""
    q, r = np.linalg.qr(rng.standard_normal((width, width)))
    return torch.from_numpy(q * np.sign(np.diag(r)))


def rotated(
    weights: Mapping[str, Tensor], shape: LlamaShape, *, rng: np.random.Generator
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the rotated weights and the entries of the configuration that change with them.

    A head that shared the embedding's weight no longer does: the final norm's gain is folded into it alone. Arithmetic
    is float64, results have the dtype of the originals; store them in float32.
    """
    anatomy = shape.anatomy
    found = dict(weights)
    embedding, head = f"{anatomy.embedding}.weight", f"{anatomy.head}.weight"
    q_DD = random_rotation(int(found[embedding].shape[1]), rng=rng)
    final = f"{anatomy.final_norm}.weight"
    found[head] = _read(found.get(head, found[embedding]), found[final], q_DD)
    found[embedding] = _written(found[embedding].T, q_DD).T.contiguous()
    found[final] = torch.ones_like(found[final])
    for block in anatomy.blocks:
        for norm, readers in (
            ("input_layernorm", [f"{block.attention}.{name}" for name in ("q_proj", "k_proj", "v_proj")]),
            ("post_attention_layernorm", [f"{block.mlp}.{name}" for name in ("gate_proj", "up_proj")]),
        ):
            gain = f"{block.name}.{norm}.weight"
            for reader in readers:
                found[f"{reader}.weight"] = _read(found[f"{reader}.weight"], found[gain], q_DD)
            found[gain] = torch.ones_like(found[gain])
        for writer in (block.attention_product, block.mlp_product):
            for name in (f"{writer}.weight", f"{writer}.bias"):
                if name in found:
                    found[name] = _written(found[name], q_DD)
    return found, {"tie_word_embeddings": False}


def _read(w_OD: Tensor, gain_D: Tensor, q_DD: Tensor) -> Tensor:
    """Return the weight of a product that reads the rotated stream: W diag(gain) Q."""
    return ((w_OD.double() * gain_D.double()) @ q_DD).to(w_OD.dtype)


def _written(w_D: Tensor, q_DD: Tensor) -> Tensor:
    """Return the weight [D, I] or bias [D] of a product that writes into the rotated stream: Q^T W."""
    return (q_DD.T @ w_D.double()).to(w_D.dtype)
