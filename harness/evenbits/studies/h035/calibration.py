"""Calibration: metrics and measured damage of known models, from which damage of a new model is forecast.

A calibration is a small JSON file of measurements, not of fitted numbers: what is fitted depends on which models have
to be left out for the model at hand. The one in the package comes from the reference family.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from evenbits.cells import Subject, measure
from evenbits.errors import UsageError
from evenbits.foreign import Entries, read_object
from evenbits.records import Corpus
from evenbits.studies.h035.errors import local_errors
from evenbits.studies.h035.predictors import METRICS, Predictors, measure_predictors
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.rounding import rounded

__all__ = ["CalibratedModel", "Calibration", "calibrated_model", "load_calibration", "one_run_by_function"]

SCHEMA = 1
SHIPPED = "calibration.json"
DIGITS = 6
LARGEST = 1e12
"""Size of a number that is believed: no metric and no damage comes near."""
SAME_LIKELIHOOD = 1e-3
"""Relative difference of full-precision NLL, in every language, up to which two models are one function: about what
arithmetic in bfloat16 moves it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibratedModel:
    """One model of a calibration.

    `run`: training run; checkpoints of one run are left out together. `metrics`: spec -> metric -> value by language;
    metrics that were undefined are absent. `excess_bits`: spec -> mean excess bits by language, on other segments.
    """

    text: str
    fingerprint: str
    run: str
    model_type: str
    parameters: int
    resource_kind: str | None
    languages: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, tuple[float, ...]]]
    excess_bits: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if not self.languages:
            raise UsageError(f"calibration: {self.text} has no languages; make the calibration again.")
        for spec, damage in self.excess_bits.items():
            for name, values in {"excess_bits": damage, **self.metrics[spec]}.items():
                if len(values) != len(self.languages):
                    raise UsageError(
                        f"calibration: {self.text} has {len(values)} values of {name} under {spec} for "
                        f"{len(self.languages)} languages; make the calibration again."
                    )

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "fingerprint": self.fingerprint,
            "run": self.run,
            "model_type": self.model_type,
            "parameters": self.parameters,
            "resource_kind": self.resource_kind,
            "languages": list(self.languages),
            "metrics": {
                spec: {name: [_rounded(value) for value in values] for name, values in by_name.items()}
                for spec, by_name in self.metrics.items()
            },
            "excess_bits": {spec: [_rounded(v) for v in values] for spec, values in self.excess_bits.items()},
        }

    @classmethod
    def read(cls, entry: Entries) -> CalibratedModel:
        by_spec, damage = entry.entries("metrics"), entry.entries("excess_bits")
        measured = {spec: by_spec.entries(spec) for spec in damage.content}
        return cls(
            **{name: entry.text(name) for name in ("text", "fingerprint", "run", "model_type")},
            parameters=entry.whole("parameters", least=1),
            resource_kind=entry.text("resource_kind", None),
            languages=tuple(entry.texts("languages")),
            metrics={
                spec: {name: one.numbers(name, most=LARGEST) for name in one.content if name in METRICS}
                for spec, one in measured.items()
            },
            excess_bits={spec: damage.numbers(spec, most=LARGEST) for spec in damage.content},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Known models on one text. `corpus`: name and numbers of the text; `name`: where the calibration came from."""

    name: str
    corpus: Mapping[str, Any]
    models: tuple[CalibratedModel, ...]

    @property
    def specs(self) -> tuple[str, ...]:
        """Specs that every model was measured under."""
        first, *others = [tuple(model.excess_bits) for model in self.models] or [()]
        return tuple(spec for spec in first if all(spec in other for other in others))

    def require(self, spec: str) -> None:
        """Raise `UsageError` where damage under `spec` is not known of every model."""
        if spec not in self.specs:
            raise UsageError(
                f"{self.name} has no damage under {spec}; it knows {', '.join(self.specs) or 'nothing'}. Choose one "
                f"with --spec, or calibrate it: evenbits diagnose --calibrate MODEL... --spec {spec} -o FILE"
            )

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model.run for model in self.models))

    def without(self, *runs: str) -> Calibration:
        """Return the calibration without all models of some training runs."""
        return replace(self, models=tuple(model for model in self.models if model.run not in runs))

    def runs_of(self, *, fingerprint: str, run: str) -> tuple[str, ...]:
        """Return the training runs to leave out for a model: its own, by weights and by name."""
        own = {model.run for model in self.models if model.fingerprint == fingerprint}
        return tuple(sorted(own | {name for name in self.runs if name == run}))

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA,
            "corpus": dict(self.corpus),
            "models": [model.to_json() for model in self.models],
        }

    def dump(self) -> str:
        """Return the text of the file: one line per list of numbers."""
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False) + "\n"


def calibrated_model(
    model: Subject, specs: Sequence[QuantSpec], *, probe: Corpus, evaluation: Corpus, run: str
) -> CalibratedModel:
    """Measure metrics on `probe` and damage on `evaluation`, which must not overlap."""
    if set(probe.segment_ids) & set(evaluation.segment_ids):
        raise ValueError("metrics and damage of a calibration must come from different segments")
    # All specs in the same passes.
    local_errors(model.on_demand(), probe, specs, store=model.store, seed=model.seed, progress=model.progress)
    found: dict[str, Predictors] = {str(spec): measure_predictors(model, spec, probe) for spec in specs}
    return CalibratedModel(
        text=model.local.text,
        fingerprint=model.local.fingerprint,
        run=run,
        model_type=model.local.model_type,
        parameters=model.local.parameters,
        resource_kind=next(iter(found.values())).resource_kind,
        languages=probe.languages,
        metrics={
            spec: {name: tuple(values.tolist()) for name, values in one.values.items()} for spec, one in found.items()
        },
        excess_bits={str(spec): _excess_bits(model, spec, evaluation) for spec in specs},
    )


def _excess_bits(model: Subject, spec: QuantSpec, text: Corpus) -> tuple[float, ...]:
    """Return the mean excess bits by language; a damage table would add divergence and noise floor."""
    damage = measure(model, {str(spec): rounded(spec, model, divergence=False)}, text)
    return tuple(damage.excess_bits(str(spec)).mean(axis=1).tolist())


def one_run_by_function(models: Sequence[CalibratedModel]) -> tuple[CalibratedModel, ...]:
    """Return the models with those of equal likelihood in every language put into one training run, the first's.

    A rescaled or converted copy has other weights and another name, and still tells what its original would lose.
    """
    known: list[CalibratedModel] = []
    for model in models:
        twin = next((one for one in known if _same_function(one, model)), None)
        known.append(model if twin is None else replace(model, run=twin.run))
    return tuple(known)


def _same_function(one: CalibratedModel, other: CalibratedModel) -> bool:
    likelihoods = [next(iter(model.metrics.values()), {}).get("nll_full") for model in (one, other)]
    if likelihoods[0] is None or likelihoods[1] is None or one.languages != other.languages:
        return False
    return all(math.isclose(a, b, rel_tol=SAME_LIKELIHOOD) for a, b in zip(likelihoods[0], likelihoods[1], strict=True))


def load_calibration(file: Path | None) -> Calibration:
    """Return the calibration in `file`, or the one of the package. `UsageError` says what is wrong with the file."""
    name = "the reference family (shipped)" if file is None else str(file)
    remake = "make one with `evenbits diagnose --calibrate MODEL... -o FILE`"
    source = Path(str(files("evenbits.studies.h035").joinpath(SHIPPED))) if file is None else file
    data = read_object(source, error=lambda what: UsageError(f"{what}, so it is no calibration; {remake}."))
    if data.content.get("schema_version") != SCHEMA:
        raise UsageError(f"{name} is no calibration of version {SCHEMA}; {remake}.")
    models = tuple(CalibratedModel.read(one) for one in data.rows("models"))
    return Calibration(name=name, corpus=data.entries("corpus").content, models=models)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
