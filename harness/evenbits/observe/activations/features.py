"""Features of how distributed a language's representations are: pure functions of activation statistics (H-038).

Entropies are normalised by their largest value (the logarithm of the number of parts), so that they lie in [0, 1]: 0
where one part has everything, 1 where all have the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenbits.observe.activations.statistics import ActivationStatistics

__all__ = [
    "aligned_similarity",
    "channel_entropy",
    "half_prediction",
    "head_utilisation_entropy",
    "language_features",
    "layer_usage_entropy",
    "normalised_entropy",
    "participation_of_tokens",
    "participation_ratio",
]

Float64 = NDArray[np.float64]

RIDGE = 0.1
"""Added to the diagonal of the correlation matrix in `half_prediction`. Fixed, in units of a channel's variance: with
a few hundred tokens an unpenalised fit measures the number of tokens more than redundancy."""


def participation_ratio(moment_DD: Float64) -> float:
    """Return (tr C)^2 / tr(C^2) of a covariance or second-moment matrix: how many directions share the variance.

    1 to D; equals k for k equal eigenvalues (Gao et al. 2017, bioRxiv 214262). All-zero raises ValueError.
    """
    c = np.asarray(moment_DD, dtype=np.float64)
    squares = float((c * c).sum())
    if squares == 0:
        raise ValueError("the participation ratio of a zero matrix is undefined")
    return float(np.trace(c)) ** 2 / squares


def participation_of_tokens(
    second_DD: Float64, first_D: Float64, skewed_D: Float64, fourth: float, *, tokens: int, projected: int | None = None
) -> float:
    """Participation ratio of the covariance of hidden states, without the bias of few tokens; in [1, D].

    Of N tokens, the plain ratio never exceeds N and grows with N, so languages that need more tokens for the same text
    would look more distributed. Here the terms of a token with itself are taken out of both sums over pairs of tokens
    (h centred on their mean): ((sum_t |h_t|^2)^2 - sum_t |h_t|^4) / (|sum_t h_t h_t^T|_F^2 - sum_t |h_t|^4).
    Where pairs of different tokens share no direction at all, the ratio is D.

    Args: `second_DD` sum of h h^T, `first_D` sum of h, `skewed_D` sum of |h|^2 h, `fourth` sum of |h|^4, all over the
    `tokens`. `projected`: the number of dimensions k of a Gaussian random projection that h went through, else None;
    then E|G C G^T|_F^2 = (1 + 1/k) |C|_F^2 + (tr C)^2 / k is solved for |C|_F^2.
    """
    mean = first_D / tokens
    square = float(mean @ mean)
    central = second_DD - tokens * np.outer(mean, mean)
    trace = float(np.trace(central))
    # sum_t |h_t - m|^4, from |h - m|^2 = |h|^2 - 2 h.m + |m|^2
    own = (
        fourth
        + 4 * float(mean @ second_DD @ mean)
        + tokens * square**2
        - 4 * float(skewed_D @ mean)
        + 2 * square * float(np.trace(second_DD))
        - 4 * square * float(first_D @ mean)
    )
    pairs, aligned = trace**2 - own, float((central * central).sum()) - own
    if projected is not None:
        aligned = (aligned - pairs / projected) / (1 + 1 / projected)
    dimensions = float(len(first_D))
    if trace <= 0:
        return 1.0  # all tokens have the same state: one direction, the mean
    if aligned <= pairs / dimensions:
        return dimensions
    return max(1.0, pairs / aligned)


def normalised_entropy(shares: Float64) -> float:
    """Entropy of non-negative `shares` (any sum) over its largest value ln n; 1 for a single part.

    Shares that are all zero, negative or not finite raise ValueError.
    """
    p = np.asarray(shares, dtype=np.float64).ravel()
    total = float(p.sum())
    if not p.size or not np.isfinite(total) or total <= 0 or p.min() < 0:
        raise ValueError("entropy needs non-negative finite shares that are not all zero")
    if p.size == 1:
        return 1.0
    p = p[p > 0] / total
    return float(-(p * np.log(p)).sum() / np.log(np.size(shares)))


def channel_entropy(second_moment_I: Float64) -> float:
    """Entropy of activation energy over the input channels of one module; `second_moment_I` is E[x_i^2]."""
    return normalised_entropy(second_moment_I)


def layer_usage_entropy(write_L: Float64) -> float:
    """Entropy over layers of what they write relative to the stream, attention and MLP together."""
    return normalised_entropy(np.asarray(write_L))


def head_utilisation_entropy(head_norm_LH: Float64) -> float:
    """Mean over layers of the entropy of output energy (squared norm) over the layer's attention heads."""
    return float(np.mean([normalised_entropy(np.square(row)) for row in head_norm_LH]))


def half_prediction(
    train: tuple[Float64, Float64], test: tuple[Float64, Float64], halves: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> float:
    """Share of variance of the channels `halves[1]` that a ridge map from `halves[0]` explains on held-out tokens.

    `train`, `test`: (E[h h^T] [D, D], E[h] [D]) of disjoint segments. Channels are scaled by their standard deviation
    in `train`, so that no massive channel decides; the value is the mean over target channels of 1 - MSE / variance,
    not below 0. Channels without variance take no part; where none is left, 0.
    """
    (m_train, mean_train), (m_test, mean_test) = train, test
    cov = m_train - np.outer(mean_train, mean_train)
    # Residuals on test data count from the training mean: a shift of the mean is not explained.
    shift = mean_test - mean_train
    cov_test = m_test - np.outer(mean_test, mean_test) + np.outer(shift, shift)
    std = np.sqrt(np.maximum(np.diag(cov), 0))
    alive = std > 1e-6 * max(float(std.max()), np.finfo(np.float64).tiny)
    sources, targets = (half[alive[half]] for half in halves)
    if not sources.size or not targets.size:
        return 0.0
    safe = np.where(alive, std, 1.0)
    cov, cov_test = cov / np.outer(safe, safe), cov_test / np.outer(safe, safe)
    inner = cov[np.ix_(sources, sources)] + RIDGE * np.eye(sources.size)
    w_ST = np.linalg.solve(inner, cov[np.ix_(sources, targets)])
    total = np.diag(cov_test)[targets]
    cross = cov_test[np.ix_(sources, targets)]
    explained = 2 * (w_ST * cross).sum(0) - (w_ST * (cov_test[np.ix_(sources, sources)] @ w_ST)).sum(0)
    seen = total > 0
    if not seen.any():
        return 0.0
    return max(0.0, float(np.mean(explained[seen] / total[seen])))


def aligned_similarity(a_SD: Float64, b_SD: Float64) -> float:
    """How much closer the states of the same segment are in two languages than those of different segments.

    `a_SD`, `b_SD`: mean hidden state of each aligned segment. Each language is centred on its own mean (which carries
    the language, not the content); the value is mean cosine over aligned pairs minus mean cosine over the others, -2
    to 2. Fewer than two segments raise ValueError.
    """
    if a_SD.shape != b_SD.shape or len(a_SD) < 2:
        raise ValueError(f"similarity needs at least two aligned segments, got {a_SD.shape} and {b_SD.shape}")
    a, b = (_unit_rows(x - x.mean(axis=0)) for x in (np.asarray(a_SD, np.float64), np.asarray(b_SD, np.float64)))
    cosine = a @ b.T
    n = len(cosine)
    same = float(np.trace(cosine))
    return same / n - (float(cosine.sum()) - same) / (n * (n - 1))


def _unit_rows(x: Float64) -> Float64:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Float64 = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    return unit


def language_features(
    statistics: ActivationStatistics, *, reference: ActivationStatistics | None = None
) -> dict[str, float | None]:
    """Return the features of one language that need no further pass of the model; None where one is undefined.

    `participation_early`, `_middle`, `_late`: mean participation ratio of thirds of the depth. `channel_entropy`: mean
    over the distinct inputs of products. `layer_usage_entropy`: None where attention and MLP do not write all that a
    layer adds. `head_utilisation_entropy`, `sink_mass` (mean attention to the first token): None where a layer gives no
    attention weights. `half_prediction`: mean over the judged layers. `reference_similarity`: mean over the state
    layers of `aligned_similarity` with `reference` (English, say); None without one, or with a single segment.
    """
    thirds = np.array_split(statistics.participation, 3)
    participation: dict[str, float | None] = {
        f"participation_{part}": float(values.mean()) if values.size else None
        for part, values in zip(("early", "middle", "late"), thirds, strict=True)
    }
    # q, k and v read the same input, as gate and up do: each input counts once.
    squares = map(statistics.channel_square, statistics.input_square)
    inputs = {square.tobytes(): square for square in squares}
    half, heads, sinks = statistics.half_prediction, statistics.head_norm, statistics.sink_mass
    similarity = None
    if reference is not None and len(statistics.tokens) > 1:
        pairs = zip(statistics.segment_state, reference.segment_state, strict=True)
        similarity = float(np.mean([aligned_similarity(a, b) for a, b in pairs]))
    return participation | {
        "channel_entropy": float(np.mean([channel_entropy(square) for square in inputs.values()])),
        "layer_usage_entropy": layer_usage_entropy(statistics.writes()[0]) if statistics.writes_whole else None,
        "head_utilisation_entropy": None if heads is None else head_utilisation_entropy(heads),
        "half_prediction": None if half is None else float(half.mean()),
        "sink_mass": None if sinks is None else float(sinks.mean()),
        "reference_similarity": similarity,
    }
