"""What attention and MLP of each layer write, against the residual stream they are added to.

Shapes: h_ND stream before the layer, a_ND the write of attention, m_ND the write of the MLP, out_ND stream after the
layer, N text tokens; sums [L].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.scoring.arithmetic import home_of_sums, in_float64

__all__ = ["LayerWrites", "WriteSums"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWrites:
    """Means over text tokens, per layer [L], float64.

    `attention_write`, `mlp_write`: |write| / |stream it is added to|, the magnitude of METHOD (H-036).
    `attention_norm`, `mlp_norm`, `stream_norm`: raw Euclidean norms; the stream's is that before the layer.
    `unexplained`: share of what the layer adds to the stream that the two writes do not make.
    """

    attention_write: Float64
    mlp_write: Float64
    attention_norm: Float64
    mlp_norm: Float64
    stream_norm: Float64
    unexplained: Float64


class WriteSums:
    """Sums of norms and of their ratios; `parallel` where the MLP is added beside attention, not after it."""

    FIELDS = ("attention_write", "mlp_write", "attention_norm", "mlp_norm", "stream_norm", "unexplained", "added")

    def __init__(self, layers: int, *, parallel: bool, device: torch.device) -> None:
        self.parallel = parallel
        self.sums = {
            field: torch.zeros(layers, dtype=torch.float64, device=home_of_sums(device)) for field in self.FIELDS
        }

    def add(
        self,
        layer: int,
        h_ND: torch.Tensor,
        a_ND: torch.Tensor,
        m_ND: torch.Tensor,
        out_ND: torch.Tensor,
        *,
        dtype: torch.dtype,
    ) -> None:
        """Add one batch's text tokens at `layer`, float32; `dtype`: of the stream, whose rounding explains itself."""
        added_ND = out_ND - h_ND
        before, attention, mlp, after, added, missing = (
            torch.linalg.vector_norm(x, dim=1) for x in (h_ND, a_ND, m_ND, out_ND, added_ND, added_ND - a_ND - m_ND)
        )
        at_mlp = before if self.parallel else torch.linalg.vector_norm(h_ND + a_ND, dim=1)
        for field, values in (
            ("attention_write", _ratio(attention, before)),
            ("mlp_write", _ratio(mlp, at_mlp)),
            ("attention_norm", attention),
            ("mlp_norm", mlp),
            ("stream_norm", before),
            ("unexplained", (missing - torch.finfo(dtype).eps * after).clamp(min=0)),
            ("added", added),
        ):
            self.sums[field][layer] += in_float64(values).sum()

    def finish(self, tokens: int) -> LayerWrites:
        means = {field: (total / tokens).cpu().numpy() for field, total in self.sums.items()}
        added = means.pop("added")
        means["unexplained"] = np.divide(means["unexplained"], added, out=np.zeros_like(added), where=added > 0)
        return LayerWrites(**means)


def _ratio(write: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
    # Into a stream of zeros (an embedding row of zeros) any write counts as the whole of it.
    return torch.where(stream > 0, write / stream, (write > 0).to(write.dtype))
