"""Simulated rounding as a variant: a grid, with kept weights, protected layers and clipping (`QuantSpec`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evenbits.errors import SpecError
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.variant import Original, Variant

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel
    from evenbits.variants.quantization.importance import Importance

__all__ = ["bits_per_weight", "rounded"]

SCHEMA = 1
"""Raised whenever the same inputs would give another plan."""


def rounded(spec: QuantSpec, original: Original, *, divergence: bool = True) -> Variant:
    """Return `spec` as a variant; specs of 6 bits and more are scored in float32 (their damage is that small).

    `SpecError` where it needs statistics and there is no probe text to take them on.
    """
    key: dict[str, Any] = {"spec": str(spec)}
    if spec.is_drawn:
        key["seed"] = original.seed
    if spec.needs:
        if original.probe is None:
            raise SpecError(f"{spec} needs {', '.join(sorted(spec.needs))}, and there is no probe text to measure on")
        key["probe"] = original.probe.digest

    @contextmanager
    def change(loaded: LoadedModel) -> Iterator[None]:
        from evenbits.variants.quantization.patching import quantized

        with quantized(loaded, spec, importance=_importance(loaded, spec, original), seed=original.seed):
            yield

    @contextmanager
    def in_layer(loaded: LoadedModel, layer: int | None) -> Iterator[None]:
        from evenbits.variants.quantization.patching import quantized

        inside = {linear.name: linear.layer for linear in loaded.anatomy.linears}
        with quantized(loaded, spec, seed=original.seed, where=lambda name: inside.get(name) == layer):
            yield

    sees_all = bool(spec.needs) or (spec.keep is not None and spec.keep.scope == "global")
    return Variant(
        label=str(spec),
        key=key,
        change=change,
        in_layer=None if sees_all else in_layer,
        dtype="float32" if spec.needs_float32 else None,
        divergence=divergence,
    )


def bits_per_weight(spec: QuantSpec, original: Original) -> float:
    """Return the storage of a linear weight under `spec`; `SpecError` where the spec does not fit the model.

    That it does not fit is stored, too: a merge, which has no model to plan for, has to know it.
    """

    def count() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        from evenbits.variants.quantization.patching import plan_for
        from evenbits.variants.quantization.planning import bits_per_weight as bits_of

        try:
            return {}, {"bits": bits_of(plan_for(original.local, spec))}
        except SpecError as error:
            return {}, {"refused": str(error)}

    key = {"schema": SCHEMA, "model": original.local.fingerprint, "spec": str(spec)}
    found = original.store.compute("plans", key, count).meta
    if "refused" in found:
        raise SpecError(found["refused"])
    return float(found["bits"])


def _importance(loaded: LoadedModel, spec: QuantSpec, original: Original) -> Importance | None:
    if not spec.needs or original.probe is None:
        return None
    from evenbits.observe.activations.importance import ActivationImportance

    return ActivationImportance(loaded, original.probe, store=original.store, progress=original.progress)
