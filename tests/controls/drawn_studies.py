"""Drawn studies: measurements with a planted effect of known size, or without one, for the findings of H-035 to H-039.

Nothing is measured: what a model would give is drawn from a generator, in milliseconds, in the form that findings read.

Legend: L languages, P layers, S segments, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate
from evenbits.observe.weights.statistics import SigmaCount, TensorStatistics, WeightStatistics
from evenbits.records import Losses
from evenbits.studies.h035.overlap import kurtosis_overlap
from evenbits.studies.h035.predictors import METRICS, Predictors
from evenbits.studies.h035.study import PredictionStudy
from evenbits.studies.h036.critical import CriticalLayers, top_layers
from evenbits.studies.h036.study import LayerStudy, Unit
from evenbits.studies.h037 import SHARES, Ablation, ModelPoint
from evenbits.studies.h038 import EXPECTED, FeatureTable, ResilienceGroups, ResilienceStudy, SettledGroups
from evenbits.studies.h039.study import PERCENTS, RetentionStudy
from evenbits.variants.quantization.spec import parse_spec
from numpy.typing import NDArray
from reference_languages import LANGUAGES
from weight_records import of_tensors

__all__ = [
    "LANGUAGES",
    "TIER",
    "critical_layers_of",
    "layer_study",
    "model_points",
    "outlier_model",
    "prediction_study",
    "resilience_study",
    "retention_study",
]

Float64 = NDArray[np.float64]

"""Those of the reference family."""

TIER = {tag: ("low", "between", "high")[place % 3] for place, tag in enumerate(LANGUAGES)}
"""Dealt in turn, so that tier has nothing to do with family or script."""

LEVEL = np.array([{"low": -1.0, "between": 0.0, "high": 1.0}[TIER[tag]] for tag in LANGUAGES])
LN2 = math.log(2)


# -- H-039: disparity over k -------------------------------------------------------------------------------------------


def retention_study(
    ratios: Sequence[float],
    *,
    rng: np.random.Generator,
    sigma: float = 0.15,
    segments: int = 24,
    each: int = 12,
    noise: float = 0.2,
    tier: Mapping[str, str] | None = None,
) -> RetentionStudy:
    """Damage at each k of the programme's grid, low-resource languages at `ratios` times the high-resource mean.

    Log damage of a language is normal around its group with deviation `sigma`; its mean is the planted one, around
    which segments vary by `noise` times as much. With two ratios, k is 0 and .1 %. `tier`: other labels for the same
    languages.
    """
    percents = PERCENTS if len(ratios) == len(PERCENTS) else (PERCENTS[0], PERCENTS[3])
    planted = {f"l{i:02d}": "low" for i in range(each)} | {f"h{i:02d}": "high" for i in range(each)}
    languages = tuple(sorted(planted))
    own = np.exp(sigma * rng.standard_normal(len(languages)) - sigma**2 / 2)
    low = np.array([planted[tag] == "low" for tag in languages])
    kept = {percent: str(parse_spec("int4-row").with_keep(percent, "magnitude")) for percent in percents}
    columns = {}
    full = np.full((len(languages), segments), 200.0)
    for step, (spec, ratio) in enumerate(zip(kept.values(), ratios, strict=True)):
        mean_L = 10 * 0.8**step * own * np.where(low, ratio, 1.0)
        excess = mean_L[:, None] * (1 + noise * rng.standard_normal((len(languages), segments)))
        columns[spec] = Column(
            spec=spec,
            dtype="float32",
            bits_per_weight=4.1 + 0.1 * step,
            floor_bits=Estimate(value=0.01, n=8, method="given"),
            full={tag: _losses(tag, row) for tag, row in zip(languages, full, strict=True)},
            quantized={
                tag: _losses(tag, base + row, np.abs(row))
                for tag, base, row in zip(languages, full, excess, strict=True)
            },
        )
    names = tuple(f"s{i}" for i in range(segments))
    table = Damage(
        model="control", fingerprint="0f", corpus_digest="0e", languages=languages, segment_ids=names, columns=columns
    )
    return RetentionStudy(table=table, kept=kept, random={}, tier=tier or planted)


def _losses(tag: str, bits: Float64, kl: Float64 | None = None) -> Losses:
    count = np.full(len(bits), 50, dtype=np.int64)
    names = tuple(f"s{i}" for i in range(len(bits)))
    return Losses(
        language=tag,
        segment_ids=names,
        nll=bits * LN2,
        tokens=count,
        utf8_bytes=count,
        kl=None if kl is None else kl * LN2,
    )


# -- H-036: layers and languages ---------------------------------------------------------------------------------------


def layer_study(
    dose: float, *, rng: np.random.Generator, layers: int = 6, segments: int = 20, permuted: bool = False
) -> LayerStudy:
    """Damage by layer, language and segment, with an interaction of standard deviation `dose` beside noise of 1.

    Languages differ in size, by which all of it is multiplied: without an interaction they have the same shares.
    `permuted`: in each segment the languages of a family change places, which leaves no profile to any language.
    """
    count = len(LANGUAGES)
    profile = np.linspace(6, 3, layers)[:, None] + dose * rng.normal(size=(layers, count))
    damage_PLS = profile[:, :, None] + rng.normal(size=(layers, count, segments))
    damage_PLS *= np.linspace(1.0, 1.2, count)[:, None]
    study = LayerStudy(
        model="control",
        spec=parse_spec("int4-row"),
        units=tuple(Unit(label=str(i), layer=i, names=(f"layers.{i}",)) for i in range(layers)),
        layers=layers,
        languages=LANGUAGES,
        tier={tag: level for tag, level in TIER.items() if level != "between"},
        excess_bits=damage_PLS,
        full_bits=damage_PLS.sum(axis=0),
        nll_bits=np.full(count, 100.0),
        cost=np.ones(layers),
        bits_per_weight=4.25,
        floor=Estimate(value=0.0, n=32, method="given"),
    )
    if permuted:
        families = np.array(study.families)
        for family in sorted(set(families)):
            inside = np.flatnonzero(families == family)
            for segment in range(segments):
                damage_PLS[:, inside, segment] = damage_PLS[:, rng.permutation(inside), segment]
    return study


def critical_layers_of(
    dose: float, *, rng: np.random.Generator, layers: int = 20
) -> tuple[tuple[CriticalLayers, ...], dict[int, float]]:
    """What each language writes in each layer, and the kurtosis of layers; the first four are outlier layers.

    Log writes are normal; low-resource languages write exp(`dose`) times as much into outlier layers. At 0, critical
    layers are random.
    """
    found = []
    for tag in LANGUAGES:
        log_write = rng.normal(size=layers)
        log_write[:4] += dose * (TIER[tag] == "low")
        write = np.exp(log_write)
        found.append(CriticalLayers(language=tag, write=write, raw=write, layers=top_layers(write)))
    return tuple(found), {layer: 60.0 if layer < 4 else 1.0 for layer in range(layers)}


# -- H-037: sparsity ---------------------------------------------------------------------------------------------------


def model_points(dose: float, *, rng: np.random.Generator, runs: int = 16) -> list[ModelPoint]:
    """Training runs whose recovered damage follows sparsity by `dose` standard deviations beside noise of 1."""
    sparsity = rng.normal(size=runs)
    recovered = dose * sparsity + rng.normal(size=runs)
    return [
        ModelPoint(model=f"m{i}", run=f"m{i}", sparsity=float(s), damage=10.0, recovered=float(r))
        for i, (s, r) in enumerate(zip(sparsity, recovered, strict=True))
    ]


def outlier_model(
    share: float, *, rng: np.random.Generator, size: float = 9.0, tensors: int = 14, shape: tuple[int, int] = (200, 500)
) -> tuple[WeightStatistics, dict[float, Ablation]]:
    """Normal matrices in which a `share` of the weights is multiplied to `size` deviations, and what zeroing costs.

    Damage of zeroing weights goes with the energy removed, one bit for each thousandth, with scatter over languages and
    segments. `size` 1 is the same model with its outliers rescaled away.
    """
    found, removed = [], {part: np.zeros(2) for part in SHARES}
    for place in range(tensors):
        w = rng.standard_normal(shape)
        flat = w.reshape(-1)
        outliers = rng.permutation(flat.size)[: round(share * flat.size)]
        if size != 1:
            flat[outliers] = size * np.sign(flat[outliers])
        found.append(_tensor(place, w))
        energy = np.sort(flat**2)[::-1] / (flat**2).sum()
        for part in SHARES:
            removed[part] += [energy[: round(part * flat.size)].sum() / tensors, part / tensors]
    ablations = {}
    for part, (top, random) in removed.items():
        scatter = 1 + 0.05 * rng.standard_normal((2, 4, 8))
        ablations[part] = Ablation(
            share=part,
            languages=("de", "fi", "ja", "sw"),
            top=1000 * top * scatter[0],
            random=1000 * random * scatter[1],
            floor_bits=0.001,
        )
    return of_tensors(found), ablations


def _tensor(place: int, w: Float64, *, column_kurtosis: Float64 | None = None) -> TensorStatistics:
    """Return the statistics that findings read; those of rows are filled with ones."""
    rows, columns = np.ones(w.shape[0]), np.ones(w.shape[1])
    z = (w - w.mean()) / w.std()
    counts = [int((np.abs(z) > sigma).sum()) for sigma in (3, 5, 10)]
    ranked = np.sort(np.abs(w).reshape(-1))[::-1]
    return TensorStatistics(
        name=f"t{place}",
        layer=place,
        part="mlp",
        role="up_proj",
        shape=(w.shape[0], w.shape[1]),
        mean=float(w.mean()),
        std=float(w.std()),
        skew=float((z**3).mean()),
        kurtosis=float((z**4).mean() - 3),
        absmax=float(ranked[0]),
        beyond=tuple(SigmaCount(sigma=s, count=c, share=c / w.size) for s, c in zip((3, 5, 10), counts, strict=True)),
        concentration=float(ranked[: w.size // 100].sum() / ranked[: w.size // 10].sum()),
        gini=0.4,
        hoyer=0.1,
        row_std=rows,
        row_absmax=rows,
        row_kurtosis=rows,
        row_concentration=rows,
        row_gini=rows,
        row_hoyer=rows,
        row_beyond=np.zeros((3, w.shape[0]), dtype=np.int64),
        column_std=columns,
        column_kurtosis=columns if column_kurtosis is None else column_kurtosis,
    )


# -- H-035: energy in heavy-tailed weights -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """The part of the activation statistics that the overlap reads: E[x_i^2] of each input channel."""

    input_square: Mapping[str, Float64]

    def channel_square(self, module: str) -> Float64:
        return self.input_square[module]

    def energy(self, module: str) -> Float64:
        square = self.channel_square(module)
        return np.asarray(square / square.sum())


def prediction_study(
    dose: float, *, rng: np.random.Generator, permuted: bool = False, outliers: bool = True
) -> PredictionStudy:
    """Languages with energy of their own in channels that meet heavy-tailed columns, and damage that follows it.

    Four layers of 64 channels, every sixteenth column heavy-tailed: fewer than the tenth that counts as a high region.
    Damage is 20 bits, plus `dose` standard deviations of the true overlap beside noise of 1. `permuted`: damage dealt
    to other languages. `outliers=False`: the same weights with the tails rescaled away, so that every column is alike.
    """
    names, count = [f"t{layer}" for layer in range(4)], len(LANGUAGES)
    heavy = np.arange(64) % 16 == 0
    tails = np.where(heavy, 30.0, 0.0) if outliers else np.zeros(64)
    w = rng.standard_normal((32, 64))
    weights = of_tensors([_tensor(layer, w, column_kurtosis=tails) for layer in range(4)])
    taste = np.exp(0.5 * rng.normal(size=count))
    energy = {
        tag: Energy(input_square={name: rng.gamma(4, 1, 64) * np.where(heavy, taste[at], 1.0) for name in names})
        for at, tag in enumerate(LANGUAGES)
    }
    found = kurtosis_overlap(energy, weights)
    truth = np.array([np.mean([one.energy(name)[heavy].sum() for name in names]) for one in energy.values()])
    damage = 20 + dose * (truth - truth.mean()) / truth.std() + rng.normal(size=count)
    if permuted:
        damage = damage[rng.permutation(count)]
    values = {name: np.exp(rng.normal(size=count)) for name in METRICS}
    values |= {"kurtosis_overlap": found.quantile_form, "weighted_kurtosis": found.continuous_form}
    predictors = Predictors(
        model="control",
        spec="int4-row",
        languages=LANGUAGES,
        segments=8,
        values=values,
        missing={},
        permuted=rng.normal(size=(20, count)),
        columns=found.columns,
    )
    return PredictionStudy(
        predictors=predictors, damage=dict.fromkeys(("excess_bits", "relative_increase", "kl"), damage), floor=0.0
    )


# -- H-038: features of resilience -------------------------------------------------------------------------------------


def resilience_study(dose: float, *, rng: np.random.Generator, permuted: bool = False) -> ResilienceStudy:
    """Residuals that half of each tier has below and half above zero, and features that follow half of the way.

    The first five features, by their expected signs, fall with the residual by `dose` beside noise of 1; the others are
    noise. `permuted`: the features belong to other languages.
    """
    count = len(LANGUAGES)
    design = np.column_stack([np.ones(count), LEVEL])
    third = count // 3
    signs = np.stack([rng.permutation(np.arange(third) % 2 * 2.0 - 1.0) for _ in range(3)], axis=1).ravel()
    residual = signs + 0.1 * rng.normal(size=count)
    residual -= design @ np.linalg.lstsq(design, residual, rcond=None)[0]
    columns = rng.normal(size=(count, len(EXPECTED)))
    columns[:, :5] -= dose * residual[:, None]
    columns *= np.array(list(EXPECTED.values()), dtype=float)
    if permuted:
        columns = columns[rng.permutation(count)]
    groups = ResilienceGroups(
        spec="int4-row",
        metric="excess_bits",
        languages=LANGUAGES,
        tier=tuple(TIER[tag] for tag in LANGUAGES),
        resource_name="ln training bytes",
        design=design,
        residual=residual,
        coefficients={"constant": 0.0, "ln training bytes": 0.0},
        left_out={},
    )
    features = {
        name: dict(zip(LANGUAGES, column.tolist(), strict=True))
        for name, column in zip(EXPECTED, columns.T, strict=True)
    }
    settled = SettledGroups(by_metric={"excess_bits": groups}, without_likelihood=groups)
    return ResilienceStudy(groups=settled, features=FeatureTable(values=features))
