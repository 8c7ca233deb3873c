"""Findings over all models of a run, from a record of each: by the same functions in a run and in a merge of shards.

A run over some of the models decides from their records and puts these into its report. `evenbits merge` joins the
records of all shards and decides again. So nothing but the records may enter such a finding; they are plain JSON, and
a run reads them back from it as a merge does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from evenbits.estimates import Finding, Threshold, plain
from evenbits.studies.established import (
    ModelDamage,
    ModelHeads,
    ModelWeights,
    outliers_explain_disparity,
    outliers_grow,
    outliers_sit_in_attention,
    parity_is_not_degradation,
    sinks_are_not_outliers,
)
from evenbits.studies.h037 import ModelPoint, across_models, against_damage, training_runs
from evenbits.studies.h038 import TrainedModel, recommend, training_choices, training_recipes

__all__ = ["DECISIONS", "KINDS", "Decided", "Decision", "Kind", "ModelRecord", "Records", "decide"]

Member = Any
"""What a finding takes of a model: one of the classes that `KINDS` names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of record. `read` makes a member of what was written, given its training run.

    `per`: what a model has one record of this kind for: the `model`, the run's `first spec`, or every `spec`.
    `every`: whether every model has one; else only the models that the finding can use.
    """

    read: Callable[[Mapping[str, Any], str], Member]
    per: Literal["model", "first spec", "spec"]
    every: bool = True


KINDS: Mapping[str, Kind] = {
    "sparsity": Kind(per="first spec", read=lambda row, run: ModelPoint.from_json(row, run=run)),
    "damage": Kind(per="first spec", read=lambda row, run: ModelDamage.from_json(row, run=run)),
    "weights": Kind(per="model", read=lambda row, run: ModelWeights.from_json(row, run=run)),
    "heads": Kind(per="model", read=lambda row, run: ModelHeads.from_json(row, run=run)),
    "training": Kind(per="spec", every=False, read=lambda row, _: TrainedModel.from_json(row)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecord:
    """What one model brings into findings over models. `values`: of `kind`, under `spec` where they depend on one.

    `origin`: what changed copies of a model share with it (`studies.h037.origin_of`), None where it is not known.
    """

    kind: str
    model: str
    spec: str | None
    origin: str | None = None
    values: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(
        cls,
        kind: str,
        measured: Any,  # noqa: ANN401 - one of the classes of `KINDS`
        *,
        model: str,
        spec: str | None = None,
        origin: str | None = None,
    ) -> ModelRecord:
        """Return the record of what was `measured`, which has a `to_json`."""
        return cls(kind=kind, model=model, spec=spec, origin=origin, values=plain(measured.to_json()))

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "model": self.model, "spec": self.spec, "origin": self.origin,
            "values": dict(self.values),
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ModelRecord:
        return cls(**{key: row[key] for key in ("kind", "model", "spec", "origin", "values")})


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """The records of one kind of the models of a run, in the order in which the models were asked for."""

    kind: str
    spec: str | None
    records: tuple[ModelRecord, ...]

    def members(self) -> list[Member]:
        """Return what the records say, each with its training run as it shows among all of them."""
        runs = training_runs({one.model: one.origin for one in self.records})
        return [KINDS[self.kind].read(one.values, runs[one.model]) for one in self.records]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """A finding over models, and the recipes that it supports."""

    finding: Finding
    recipes: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """How a finding over models comes out of records of one kind.

    `decide(members, spec, bound, rng)`. `recipes`: the kind of recipe it may write; it alone writes these.
    """

    kind: str
    decide: Callable[[Sequence[Member], str | None, float, np.random.Generator], Decided]
    recipes: str | None = None


def _found(find: Callable[..., Finding]) -> Callable[..., Decided]:
    return lambda members, _spec, _bound, rng: Decided(finding=find(members, rng=rng))


def _found_small(find: Callable[..., Finding]) -> Callable[..., Decided]:
    """The threshold's bound is the margin inside which a correlation counts as small."""
    return lambda members, _spec, bound, rng: Decided(finding=find(members, margin=bound, rng=rng))


def _training(members: Sequence[Member], spec: str | None, _: float, rng: np.random.Generator) -> Decided:
    said = recommend({one.name: one for one in members}, str(spec), rng=rng)
    return Decided(finding=training_choices(said), recipes=training_recipes(said, str(spec)))


DECISIONS: Mapping[str, Decision] = {
    "across_models": Decision(kind="sparsity", decide=_found(across_models)),
    "against_damage": Decision(kind="sparsity", decide=_found(against_damage)),
    "outliers_explain_disparity": Decision(kind="damage", decide=_found(outliers_explain_disparity)),
    "outliers_sit_in_attention": Decision(kind="weights", decide=_found(outliers_sit_in_attention)),
    "outliers_grow": Decision(kind="weights", decide=_found(outliers_grow)),
    "sinks_are_not_outliers": Decision(kind="heads", decide=_found_small(sinks_are_not_outliers)),
    "parity_is_not_degradation": Decision(kind="damage", decide=_found_small(parity_is_not_degradation)),
    "training_choices": Decision(kind="training", decide=_training, recipes="training"),
}
"""By name, as a report writes it."""


def decide(name: str, records: Records, threshold: Threshold, *, seed: int) -> Decided:
    """Return the finding `name` over the models of `records`. Its random numbers depend on `seed` alone."""
    decision = DECISIONS[name]
    if decision.kind != records.kind:
        raise ValueError(f"{name} is decided from records of {decision.kind}, not of {records.kind}")
    return decision.decide(records.members(), records.spec, threshold.bound, np.random.default_rng(seed))
