"""What a run of these sizes cannot decide whatever it finds: said before it spends an hour."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from evenbits.statistics.means import FEWEST_FOR_PASS
from evenbits.studies.established.growth import FEWEST_RUNS
from evenbits.studies.h035.study import NEEDED
from evenbits.studies.h036.profiles import ALPHA, MIN_LANGUAGES
from evenbits.studies.h037.friendliness import MIN_RUNS
from evenbits.studies.h039.study import MIN_LANGUAGES as MIN_TIER

__all__ = ["DECIDED_OVER", "not_by_text", "out_of_reach"]

FLIPS_NEEDED = next(size for size in range(1, 64) if 2.0 ** (1 - size) < ALPHA)
"""Segments from which sign flips of whole segments, two-sided, can have p < .05."""


DECIDED_OVER = {
    "H-035": "languages",
    "H-037": "tensors and models",
    "H-038": "languages and training runs",
    "X-1": "languages and training runs",
    **dict.fromkeys(("E-1", "E-2", "E-3", "E-4", "E-5"), "languages, layers and models"),
}
"""What hypotheses are decided over whose criterion no segments, however many, decide."""


def not_by_text(asked: Collection[str]) -> Iterator[str]:
    """Yield a sentence for those of the hypotheses `asked` that `--until-decided` adds no segments for."""
    by_unit: dict[str, list[str]] = {}
    for name in sorted(set(asked) & set(DECIDED_OVER)):
        by_unit.setdefault(DECIDED_OVER[name], []).append(name)
    for units, names in by_unit.items():
        yield f"{', '.join(names)} sooner than with all segments: decided over {units}, which no text makes more"


def out_of_reach(
    asked: Collection[str], *, languages: Sequence[str], tiers: Mapping[str, str], segments: int, runs: int
) -> Iterator[str]:
    """Yield a sentence for each of the hypotheses `asked` (and `gate`) that these sizes leave underpowered.

    `tiers`: `low` or `high` by language. `segments`: per language. `runs`: training runs of the models.
    """
    count, counted = len(languages), f"{runs} training run{'' if runs == 1 else 's'}"
    if "gate" in asked and segments < FEWEST_FOR_PASS:
        yield f"gate passes nothing with {segments} segments, needed {FEWEST_FOR_PASS}"
    if "H-035" in asked and count < NEEDED:
        yield f"H-035 has no verdict with {count} languages, needed {NEEDED}"
    if "H-036" in asked and (segments < FLIPS_NEEDED or count < MIN_LANGUAGES):
        yield (
            f"H-036 has no verdict with {segments} segments and {count} languages, needed {FLIPS_NEEDED} and "
            f"{MIN_LANGUAGES}"
        )
    if "H-037" in asked and runs < MIN_RUNS:
        yield f"H-037's prediction has no verdict with {counted}, needed {MIN_RUNS}"
    low, high = (sum(level == tier for level in tiers.values()) for tier in ("low", "high"))
    if "H-039" in asked and max(low, high) > 0 and min(low, high) < MIN_TIER:
        yield f"H-039 has no verdict with {low} low- and {high} high-resource languages, needed {MIN_TIER} of each"
    if "E-1" in asked and runs < MIN_RUNS:
        yield f"E-1 has no verdict with {counted}, needed {MIN_RUNS}"
    if "E-3" in asked and runs < FEWEST_RUNS:
        yield f"E-3 has no verdict with {counted}, needed {FEWEST_RUNS} with checkpoints"
