"""Where single-layer damage lies: early, middle or late, and whether that is the same for all languages (Q6).

Shapes: P layers, L languages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenbits.studies.h036.study import LayerStudy

__all__ = ["THIRDS", "Depth", "where_damage_lies"]

THIRDS = ("early", "middle", "late")
SAME_FOR_ALL, ALIKE = 0.9, 0.5
"""Share of languages that must lose most in the same third, and mean rank correlation of their profiles, before one
plan is said to serve all of them."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """Damage by thirds of the depth.

    `shares`: of all single-layer damage (summed over layers, mean over languages; negative damage counts as none).
    `top`: the costliest layers with their share, largest first. `agreeing`: languages whose costliest third is the
    overall one, of `languages`. `correlation`: mean rank correlation of a language's profile with the mean of the
    others', None where there are fewer than two languages or a profile is flat.
    """

    shares: dict[str, float]
    top: tuple[tuple[str, float], ...]
    agreeing: int
    languages: int
    correlation: float | None

    @property
    def costliest(self) -> str:
        return max(self.shares, key=lambda third: self.shares[third])

    @property
    def same_for_all(self) -> bool:
        alike = self.correlation is not None and self.correlation >= ALIKE
        return alike and self.agreeing >= SAME_FOR_ALL * self.languages

    @property
    def brief(self) -> str:
        return " / ".join(f"{third} {share:.0%}" for third, share in self.shares.items())

    @property
    def sentence(self) -> str:
        """Q6 in a sentence with numbers."""
        layers = ", ".join(f"{label} ({share:.0%})" for label, share in self.top)
        similar = "" if self.correlation is None else f", mean rank correlation of profiles {self.correlation:.2f}"
        plan = ": one plan can serve all" if self.same_for_all else ""
        return (
            f"Of single-layer damage {self.brief}; the costliest layers are {layers}; {self.agreeing} of "
            f"{self.languages} languages lose most in the {self.costliest} third{similar}{plan}."
        )

    def advice(self, *, shown: bool) -> str:
        """Return what to do. `shown`: whether the study has decided how languages' layers differ."""
        if not shown:
            return (
                f"Not shown yet, a first look: the {self.costliest} layers cost most; `evenbits protect` measures what "
                "protecting them saves, and more segments decide."
            )
        plan = ", by one plan for all languages" if self.same_for_all else ""
        return f"Protect the {self.costliest} layers first{plan}; `evenbits protect` measures what that saves."

    def to_json(self) -> dict[str, Any]:
        return {
            "shares": dict(self.shares),
            "top": [list(pair) for pair in self.top],
            "agreeing": self.agreeing,
            "languages": self.languages,
            "correlation": self.correlation,
            "sentence": self.sentence,
        }


def where_damage_lies(study: LayerStudy) -> Depth:
    """Return where the damage of single layers lies. Units smaller than a layer count towards their layer's third."""
    damage_PL = np.maximum(study.means, 0.0)
    third_P = np.array([_third(unit.layer, study.layers) for unit in study.units])
    by_third = np.stack([damage_PL[third_P == number].sum(axis=0) for number in range(3)])
    total = float(damage_PL.sum()) or 1.0
    overall = int(by_third.sum(axis=1).argmax())
    share_P = damage_PL.sum(axis=1) / total
    order = np.argsort(-share_P, kind="stable")[: max(1, round(len(study.units) / 5))]
    return Depth(
        shares={name: float(by_third[number].sum() / total) for number, name in enumerate(THIRDS)},
        top=tuple((study.units[int(place)].label, float(share_P[place])) for place in order[:5]),
        agreeing=int((by_third.argmax(axis=0) == overall).sum()),
        languages=len(study.languages),
        correlation=_agreement(study.means),
    )


def _third(layer: int, layers: int) -> int:
    """Return 0, 1 or 2 by the layer's centre: of four layers, the first is early, two are in the middle."""
    return min(2, int(3 * (layer + 0.5) / layers))


def _agreement(means_PL: Float64) -> float | None:
    units, languages = means_PL.shape
    if units < 3 or languages < 2:
        return None
    found = []
    for place in range(languages):
        others = np.delete(means_PL, place, axis=1).mean(axis=1)
        own_P, others_P = _ranks(means_PL[:, place]), _ranks(others)
        if min(float(own_P.std()), float(others_P.std())) == 0:
            return None
        found.append(float(np.corrcoef(own_P, others_P)[0, 1]))
    return float(np.mean(found))


def _ranks(values: Float64) -> Float64:
    """Return ranks, ties sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count - 1) / 2)[place], dtype=np.float64)
