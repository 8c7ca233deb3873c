"""Plain names of what is measured, with the term of the trade and its meaning: for tooltips and the glossary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["GLOSSARY", "METRICS", "Term", "plain_metric", "tooltip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """`plain`: how a report calls it. `term`: what the trade calls it. `meaning`: in a sentence."""

    plain: str
    term: str
    meaning: str


GLOSSARY = (
    Term(
        plain="Extra loss, bits",
        term="excess bits",
        meaning="How many bits more the model needs to predict a segment after quantization. Segments say the same "
        "thing in every language, so languages compare.",
    ),
    Term(
        plain="Extra loss, %",
        term="relative increase",
        meaning="The same, as a share of what the model needed before: 0 % is no loss, 100 % twice as bad at "
        "predicting the text.",
    ),
    Term(
        plain="Pooled, bits",
        term="pooled_bits",
        meaning="The extra loss in bits, drawn towards the other languages as far as segments are few: of many "
        "uncertain values the largest is too large. Languages are ordered by it.",
    ),
    Term(
        plain="Drift per token",
        term="KL divergence, nats per token",
        meaning="How far the predicted probabilities move on average, whether they become worse or only different.",
    ),
    Term(
        plain="Top word changed, %",
        term="top-1 changed",
        meaning="Share of positions at which another token is now the most likely one.",
    ),
    Term(
        plain="Segments",
        term="n",
        meaning="Aligned pieces of text per language that were scored; the fewer, the wider the intervals.",
    ),
    Term(
        plain="95 % interval",
        term="confidence interval",
        meaning="Where the value lies if other segments of the same kind had been drawn, in 19 of 20 such draws.",
    ),
    Term(
        plain="Noise floor",
        term="below_floor",
        meaning="What the arithmetic itself scatters; a loss below three times that is not told apart from none.",
    ),
    Term(
        plain="Resource level",
        term="low, middle, high",
        meaning="How much text of a language the model was trained on where that is known, else how much there is in "
        "the world.",
    ),
    Term(
        plain="Gap",
        term="disparity",
        meaning="Mean loss of low-resource minus that of high-resource languages; as a ratio: divided by it.",
    ),
    Term(
        plain="Supported",
        term="verdict",
        meaning="The claim is shown by the interval. Not supported: the interval rules it out, or another condition "
        "of the claim failed. Underpowered: neither, with this many data.",
    ),
    Term(
        plain="Metric-sensitive",
        term="metric_sensitive",
        meaning="Counting the damage another way gives another verdict, so no single number should be relied on.",
    ),
    Term(
        plain="Outliers",
        term="excess kurtosis, sigma counts",
        meaning="Single weights far larger than their neighbours; HEAVY, MODERATE, MILD and GAUSSIAN say how much of "
        "them a model has.",
    ),
    Term(
        plain="Bits per weight",
        term="bits_per_weight",
        meaning="What a weight takes up in all, scales and kept weights included.",
    ),
)

METRICS: Mapping[str, str] = {
    "class_stability": "resamples that give the same class, share",
    "partial_omega_squared": "layers and languages together explain, share",
    "partial_omega_squared_share": "layers and languages together explain, share",
    "pearson_r_overlap_excess_bits": "correlation of overlap with loss",
    "partial_r_overlap_excess_bits": "the same, other causes held fixed",
    "pearson_kurtosis_disparity": "correlation of outliers with the gap",
    "pearson_parity_damage": "correlation of token count with loss",
    "pearson_sink_kurtosis": "correlation of attention sinks with outliers",
    "spearman_sparsity_damage": "rank correlation of sparsity with loss",
    "spearman_sparsity_recovered": "rank correlation of sparsity with what is recovered",
    "rank_correlation_with_k": "rank correlation with the share kept",
    "largest_cliffs_delta": "how well one feature tells the groups apart",
    "least_cliffs_delta": "how well the weakest feature tells the groups apart",
    "cliffs_delta_distribution": "how well it tells the groups apart",
    "cliffs_delta_overlap": "how well overlap tells the groups apart",
    "disparity_ratio": "loss of low- over that of high-resource languages",
    "log_disparity_change": "change of that ratio (logarithm)",
    "growth_of_largest_kurtosis": "growth of the largest outliers, times",
    "share_of_heavy_models": "share of outlier-heavy models",
    "perplexity_factor": "perplexity times",
    "recovered_bits": "loss spared, bits",
    "saved_bits": "loss spared, bits",
    "saved_bits_of_worst_language": "loss spared in the worst language, bits",
    "saved_bits_of_low_resource_languages": "loss spared in low-resource languages, bits",
    "damage_ratio": "loss, times",
    "damage_difference": "difference in loss, bits",
    "added_held_out_r2": "added forecast of left-out languages (R2)",
    "explained_by_single_layers": "explained by single layers, share",
    "excess_bits": "extra loss, bits per segment",
    "relative_increase": "extra loss, share",
    "kl": "drift, nats per token",
    "disparity": "gap between low- and high-resource languages, bits",
    "excess_bits_increase": "change since the baseline, bits per segment",
}
"""Plain names of the metrics of verdicts; others are shown by their own name, as words."""


def plain_metric(name: str) -> str:
    """Return the plain name of a metric, its own name as words where it has none."""
    return METRICS.get(name, name.replace("_", " "))


def tooltip(name: str) -> str:
    """Return what stands behind a plain name (of a column or a metric): the term and what it means; else nothing."""
    for term in GLOSSARY:
        if name.removesuffix(" [95 %]") == term.plain:
            return f"{term.term}: {term.meaning}"
    return next((metric.replace("_", " ") for metric, plain in METRICS.items() if plain == name), "")
