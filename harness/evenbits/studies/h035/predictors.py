"""What is known of a model's languages before it is quantized: every metric that may predict damage, on one footing.

Shapes: L languages, R orders of the layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evenbits.cells import Subject
from evenbits.observe.activations.lookup import activations
from evenbits.observe.activations.statistics import ActivationStatistics, token_parity
from evenbits.records import Corpus
from evenbits.studies.h035.errors import local_errors
from evenbits.studies.h035.overlap import Overlap, kurtosis_overlap
from evenbits.text.languages import describe
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.variant import FULL_PRECISION

__all__ = ["METRICS", "TAYLOR", "Metric", "Predictors", "measure_predictors"]

Float64 = NDArray[np.float64]

ENGLISH = "en"
TAYLOR = "taylor"
"""The language's first-order change plus the mean over languages of the gradient-weighted error: two segments are too
few for the curvature of a language, and enough for that of a model. Within a model it is the first-order change and a
constant, so it takes part where models are compared only."""
PERMUTED_ORDERS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A pre-quantization metric.

    `label`: for tables. `scale`: `log` where only ratios mean something, as for counts; `asinh` where ratios do
    and it may be negative, as for kurtosis; `bits` where it estimates excess bits itself; else `plain`. `high`, `low`:
    what it says of a language, for a person.
    """

    label: str
    scale: Literal["log", "asinh", "bits", "plain"]
    high: str
    low: str


METRICS: Mapping[str, Metric] = {
    "kurtosis_overlap": Metric(
        label="kurtosis overlap",
        scale="plain",
        high="much of its energy enters heavy-tailed weights",
        low="little of its energy enters heavy-tailed weights",
    ),
    "weighted_kurtosis": Metric(
        label="energy-weighted kurtosis",
        scale="asinh",
        high="its energy enters columns of high kurtosis",
        low="its energy enters columns of low kurtosis",
    ),
    "token_parity": Metric(
        label="token parity", scale="log", high="many tokens for the same text", low="few tokens for the same text"
    ),
    "nll_full": Metric(
        label="full-precision NLL", scale="log", high="badly predicted already", low="well predicted: more to lose"
    ),
    "resource": Metric(label="resource level", scale="plain", high="much training text", low="little training text"),
    "script": Metric(label="non-Latin script", scale="plain", high="not in Latin script", low="in Latin script"),
    "stream_norm": Metric(
        label="residual-stream norm", scale="log", high="large hidden states", low="small hidden states"
    ),
    "quantization_error": Metric(
        label="energy-weighted quantization error",
        scale="log",
        high="rounding moves its products much",
        low="rounding moves its products little",
    ),
    "gradient_error": Metric(
        label="gradient-weighted error",
        scale="log",
        high="its loss is sensitive to the rounded weights",
        low="its loss is hardly sensitive to the rounded weights",
    ),
    "first_order": Metric(
        label="first-order change",
        scale="bits",
        high="rounding moves weights against its gradient",
        low="rounding moves weights along its gradient",
    ),
    TAYLOR: Metric(
        label="second-order estimate",
        scale="bits",
        high="gradient and curvature speak against it",
        low="gradient and curvature hardly speak against it",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictors:
    """Metrics of one model by name, each [L] in the order of `languages`; those that are undefined have a reason.

    `permuted` [R, L]: quantile overlap with the kurtosis of the layers permuted. `columns` [L]: overlap with columns
    alone. `resource_kind`: what the resource level is, `log10 of training bytes` or `class`. `facts`: counts for data.
    """

    model: str
    spec: str
    languages: tuple[str, ...]
    segments: int
    values: Mapping[str, Float64]
    missing: Mapping[str, str]
    permuted: Float64
    columns: Float64
    resource_kind: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.values) | set(self.missing) != set(METRICS):
            raise ValueError("every metric needs values or a reason")
        for name, values in self.values.items():
            if values.shape != (len(self.languages),) or not np.isfinite(values).all():
                raise ValueError(f"{name} must be {len(self.languages)} finite numbers, got {values}")

    @property
    def families(self) -> tuple[str, ...]:
        """Family of each language; languages without a known one stand alone."""
        return tuple(describe(tag).family or f"unknown: {tag}" for tag in self.languages)

    @property
    def strata(self) -> tuple[str, ...]:
        """Family and script of each language: within these, languages are exchangeable."""
        return tuple(f"{describe(tag).family or tag} {describe(tag).script}" for tag in self.languages)


def measure_predictors(
    model: Subject, spec: QuantSpec, text: Corpus, *, exposure: Mapping[str, int] | None = None
) -> Predictors:
    """Measure every metric on `text`. No quantized model is ever run.

    `exposure`: training bytes by language; None takes what stands beside the weights, or else resource classes.
    """
    held = model.on_demand()
    statistics = activations(held, text, store=model.store, progress=model.progress)
    losses = model.losses(FULL_PRECISION, text)
    overlap = kurtosis_overlap(statistics, model.weight_statistics())
    errors = local_errors(held, text, [spec], store=model.store, seed=model.seed, progress=model.progress)[str(spec)]
    known = model.local.exposure if exposure is None else exposure
    kind, resource = _resource(text.languages, known)
    first_order = np.array([errors[tag].first_order.sum() for tag in text.languages])
    gradient_error = np.array([errors[tag].weighted.sum() for tag in text.languages])
    measured: dict[str, Float64 | str] = {
        "kurtosis_overlap": overlap.quantile_form,
        "weighted_kurtosis": overlap.continuous_form,
        "token_parity": _parity(statistics),
        "nll_full": np.array([losses[tag].nll.mean() for tag in text.languages]) / math.log(2),
        "resource": resource,
        "script": _script(text.languages),
        "stream_norm": np.array([statistics[tag].stream_norm.mean() for tag in text.languages]),
        "quantization_error": np.array([errors[tag].relative.sum() for tag in text.languages]),
        "gradient_error": gradient_error,
        "first_order": first_order,
        TAYLOR: first_order + gradient_error.mean(),
    }
    return Predictors(
        model=model.local.text,
        spec=str(spec),
        languages=text.languages,
        segments=len(text),
        values={name: found for name, found in measured.items() if not isinstance(found, str)},
        missing={name: found for name, found in measured.items() if isinstance(found, str)},
        permuted=_permuted(overlap, seed=model.seed),
        columns=overlap.columns,
        resource_kind=kind,
        facts={"high_columns": overlap.high_columns, "high_tensors": list(overlap.high_tensors)},
    )


def _permuted(overlap: Overlap, *, seed: int) -> Float64:
    orders = overlap.orders(rng=np.random.default_rng(seed), most=PERMUTED_ORDERS)
    return np.stack([overlap.permuted(order) for order in orders]) if orders else np.empty((0, len(overlap.languages)))


def _parity(statistics: Mapping[str, ActivationStatistics]) -> Float64 | str:
    if ENGLISH not in statistics:
        return f"token parity is relative to English, which is not among the {len(statistics)} languages"
    return np.array(list(token_parity(statistics, reference=ENGLISH).values()))


def _resource(languages: Sequence[str], exposure: Mapping[str, int] | None) -> tuple[str | None, Float64 | str]:
    """Return training bytes on a logarithmic scale (0 bytes count as 1), else the class of Joshi et al."""
    described = [describe(tag, exposure=exposure) for tag in languages]
    amounts = [one.exposure_bytes for one in described]
    kind = "class" if exposure is None else "log10 of training bytes"
    levels = [one.resource_class for one in described] if exposure is None else amounts
    unknown = [tag for tag, level in zip(languages, levels, strict=True) if level is None]
    if unknown:
        return None, f"the resource level of {', '.join(unknown)} is not known"
    values = np.array([level for level in levels if level is not None], dtype=np.float64)
    return kind, values if exposure is None else np.log10(np.maximum(values, 1.0))


def _script(languages: Sequence[str]) -> Float64 | str:
    """Return 1 where a language is not written in Latin script: outside findings contrast these two."""
    scripts = [describe(tag).script for tag in languages]
    unknown = [tag for tag, script in zip(languages, scripts, strict=True) if script is None]
    if unknown:
        return f"the script of {', '.join(unknown)} is not known"
    return np.array([float(script != "Latn") for script in scripts])
