"""Importance: the measurements by which single weights are ranked.

Quantization does not measure anything itself. Whoever has activation statistics hands them over as an `Importance`;
`MeasuredImportance` is one made of plain mappings. A measurement that is missing is a `SpecError` that says which one,
raised before a weight is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from evenbits.errors import SpecError

__all__ = ["Importance", "MeasuredImportance"]


class Importance(Protocol):
    """Measurements of the linear module `name`; `languages` None means all that were measured."""

    def input_rms(self, name: str, languages: tuple[str, ...] | None) -> Tensor:
        """Return the root mean square of every input channel, [I], float32; of fused experts of each expert, [E, I]."""

    def gradient_square(self, name: str, languages: tuple[str, ...] | None) -> Tensor:
        """Return the mean squared gradient of the loss by every weight, [O, I], float32."""

    def peaks(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the largest absolute input of every channel, [I] or [E, I], and the largest absolute output, [O]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredImportance:
    """Importance from mappings of arrays (numpy or torch).

    `second_moment`: language -> module -> mean square of each input channel, [I].
    `gradient_second_moment`: language -> module -> mean squared gradient, [O, I].
    `peak`: module -> (largest absolute input [I], largest absolute output [O]).

    Languages count equally, whatever their number of tokens: a language-aware choice must not drown in the language
    with the most text.
    """

    second_moment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gradient_second_moment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peak: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def input_rms(self, name: str, languages: tuple[str, ...] | None) -> Tensor:
        return _mean(self.second_moment, "input second moments", name, languages).sqrt()

    def gradient_square(self, name: str, languages: tuple[str, ...] | None) -> Tensor:
        return _mean(self.gradient_second_moment, "squared gradients", name, languages)

    def peaks(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self.peak:
            raise SpecError(f"{name}: no activation peaks were measured there; superweight retention needs them")
        inputs, outputs = self.peak[name]
        return _float32(inputs), _float32(outputs)


def _mean(measured: Mapping[str, Mapping[str, Any]], what: str, name: str, languages: tuple[str, ...] | None) -> Tensor:
    chosen = tuple(sorted(measured)) if languages is None else languages
    if not chosen:
        raise SpecError(f"{name}: no {what} were measured; this spec needs them")
    total: Tensor | None = None
    for language in chosen:
        if language not in measured:
            known = ", ".join(sorted(measured)) or "no language"
            raise SpecError(f"no {what} were measured in {language}; there are {known}")
        if name not in measured[language]:
            raise SpecError(f"{name}: no {what} were measured there in {language}; this spec needs them")
        here = _float32(measured[language][name])
        total = here.clone() if total is None else total.add_(here)
    assert total is not None  # noqa: S101 - chosen is not empty
    return total.div_(len(chosen))


def _float32(array: Any) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32)
