"""The figures that llama.cpp's perplexity tool and model cards print, from a damage row, under their names.

| Name                  | Is                                                                                      |
|-----------------------|-----------------------------------------------------------------------------------------|
| Mean KLD, 99.0% KLD   | KL(full || quantized) of a token in nats: its mean, its 99th percentile                 |
| Same top p            | share of tokens, in per cent, whose most likely next token is the same                  |
| Mean delta p, RMS ... | change of the true token's probability, in per cent: its mean, its root mean square     |
| PPL(Q)/PPL(base)      | exp of the mean change of a token's negative log-likelihood                             |

Tokens are the model's own, so none of them compares languages or models: excess bits do. All are undefined where the
artefact cuts text into other tokens than the original.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["NAMES", "familiar", "recovery"]

NAMES = ("Mean KLD", "99.0% KLD", "Same top p", "Mean delta p", "RMS delta p", "PPL(Q)/PPL(base)")
LARGEST = 700.0  # nats; beyond it a ratio of perplexities is no number


def familiar(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of one damage row by name; None where undefined."""
    kl, changed = row["kl_nats_per_token"], row["top1_changed"]
    mean, delta = row.get("mean_delta_p"), row["rms_delta_p"]  # reports of older versions lack the mean
    other_tokens = "other tokens" in str(kl.get("reason") or "") or "begins with token" in str(kl.get("reason") or "")
    growth = (row["nll_quantized"] - row["nll_full"]) / row["tokens"] if row["tokens"] else None
    return {
        "Mean KLD": kl["mean"],
        "99.0% KLD": kl["p99"],
        "Same top p": None if changed is None else 100 * (1 - changed),
        "Mean delta p": None if mean is None else 100 * mean,
        "RMS delta p": None if delta is None else 100 * delta,
        "PPL(Q)/PPL(base)": None if other_tokens or growth is None or growth > LARGEST else math.exp(growth),
    }


def recovery(full: float | None, quantized: float | None) -> float | None:
    """Return what model cards call recovery: the quantized score in per cent of the full one; None of nothing."""
    return None if not full or quantized is None else 100 * quantized / full
