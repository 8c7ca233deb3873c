"""Variants: changes of a model that can be applied and undone, full precision among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch and transformers are imported when something has to be computed
    from evenbits.models import LoadedModel

__all__ = ["FULL_PRECISION", "Variant", "in_dtype"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A change of the model that can be applied and undone.

    `label` names it for people, `key` identifies it in the store, `apply(loaded)` is a context manager under which the
    model is changed. `dtype` overrides the run's arithmetic. `divergence`: whether KL is measured too.
    """

    label: str
    key: Mapping[str, Any]
    apply: Callable[[LoadedModel], AbstractContextManager[Any]]
    dtype: str | None = None
    divergence: bool = True


def _unchanged(_loaded: LoadedModel) -> AbstractContextManager[None]:
    return nullcontext()


FULL_PRECISION = Variant(label="full precision", key={"spec": "full"}, apply=_unchanged, divergence=False)


def in_dtype(variant: Variant, dtype: str) -> Variant:
    """Return the variant in another arithmetic."""
    return replace(variant, dtype=dtype)
