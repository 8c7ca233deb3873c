"""Power of each criterion at the doses that the controls plant: `python -m controls.powers` prints it as Markdown.

Studies are drawn at the sizes of the reference family's main job: 33 languages of which 11 are low and 11 high, 40
segments (24 for layers), 8 layers of 7 matrices, 9 training runs. Where a dose has not the power asked for, the same
dose is tried on more of what the criterion is decided over; where that cannot be drawn, larger doses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from evenbits.estimates import Finding, Threshold
from evenbits.statistics import paired_disparity
from evenbits.studies.h035 import overlap_predicts
from evenbits.studies.h036 import different_layers
from evenbits.studies.h037 import across_models, clear_pattern
from evenbits.studies.h038 import discriminating_features
from evenbits.studies.h039 import parity
from evenbits.studies.plan.powers import TARGET

from controls.drawn_studies import (
    layer_study,
    model_points,
    outlier_model,
    prediction_study,
    resilience_study,
    retention_study,
)
from controls.recovery import supported

__all__ = ["app", "main"]

RUNS, LAYERS, MATRICES, SEGMENTS, SWEPT, EACH = 9, 8, 56, 40, 24, 11
MIRRORED = 22
"""Languages of a mirrored pair that are low in one model and high in the other."""

Draw = Callable[[np.random.Generator], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A criterion at one dose: `draw` says whether one study is `supported`; `more`: what else is tried, in order."""

    criterion: str
    planted: str
    draw: Draw
    more: Sequence[tuple[str, Draw]] = ()


def judged(find: Callable[[np.random.Generator], Finding], op: str, bound: float, hypothesis: str) -> Draw:
    """Return the draw that an eval's threshold decides."""
    threshold = Threshold(metric="as in the eval", op=op, bound=bound, why="as in the eval")
    return lambda rng: supported(find(rng), threshold, hypothesis=hypothesis)


def cases() -> Iterator[Case]:
    for dose in (1.0, 3.0):
        yield Case(
            criterion="H-035",
            planted=f"r {dose / math.hypot(1, dose):.2f} between overlap and damage, needed > .5",
            draw=_predicts(dose),
            more=[(f"r {dose / math.hypot(1, dose):.2f}", _predicts(dose)) for dose in (1.25, 1.5, 2.0)],
        )
    for dose in (0.1, 0.2, 0.4):
        yield Case(
            criterion="H-036",
            planted=f"an interaction of {dose} SD of the noise, {dose**2 / (1 + dose**2):.3f} of the variance",
            draw=_layers(dose),
            more=[(f"{size} segments", _layers(dose, size)) for size in (40, 80, 160)],
        )
    for share, size in ((1e-4, 12.0), (1e-2, 6.0)):
        yield Case(
            criterion="H-037, clear pattern",
            planted=f"{100 * share:g} % of the weights at {size:g} SD",
            draw=_pattern(share, size),
        )
    for dose in (1.0, 3.0):
        yield Case(
            criterion="H-037, sparse is easier",
            planted=f"r {dose / math.hypot(1, dose):.2f} between sparsity and what is recovered",
            draw=_runs(dose),
            more=[(f"{runs} runs", _runs(dose, runs)) for runs in (12, 16, 24)],
        )
    for dose in (0.5, 1.5, 8.0):
        yield Case(
            criterion="H-038",
            planted=f"five features that fall with the residual by {dose} SD",
            draw=_features(dose),
            more=[(f"{larger} SD", _features(larger)) for larger in (1.0, 1.5, 2.0, 3.0, 4.0)],
        )
    for left in (1.0, 1.1):
        for spread in (0.15, 0.55):
            yield Case(
                criterion="H-039",
                planted=f"a ratio of 3 at k = 0, {left:g} at .1 %; languages differ by SD {spread} of the logarithm",
                draw=_retention(left, spread),
                more=[
                    (f"{each} languages a tier", _retention(left, spread, each)) for each in (16, 20, 30, 50, 100, 200)
                ],
            )
    for ratio in (1.25, 1.5):
        yield Case(
            criterion="X-1, mirrored pairs",
            planted=f"{ratio} times as much at low exposure; two models disagree by SD .2",
            draw=_mirrored(ratio),
            more=[(f"{count} languages", _mirrored(ratio, count)) for count in (30, 60, 120)],
        )


def _predicts(dose: float) -> Draw:
    return judged(lambda rng: overlap_predicts(prediction_study(dose, rng=rng), rng=rng), ">", 0.5, "H-035")


def _layers(dose: float, segments: int = SWEPT) -> Draw:
    def find(rng: np.random.Generator) -> Finding:
        return different_layers(layer_study(dose, rng=rng, layers=LAYERS, segments=segments), rng=rng)

    return judged(find, ">", 0.0, "H-036")


def _pattern(share: float, size: float) -> Draw:
    def find(rng: np.random.Generator) -> Finding:
        return clear_pattern(*outlier_model(share, rng=rng, size=size, tensors=MATRICES), rng=rng)

    return judged(find, ">=", 0.95, "H-037")


def _runs(dose: float, runs: int = RUNS) -> Draw:
    return judged(lambda rng: across_models(model_points(dose, rng=rng, runs=runs), rng=rng), ">", 0.0, "H-037")


def _features(dose: float) -> Draw:
    return judged(lambda rng: discriminating_features(resilience_study(dose, rng=rng), rng=rng), ">=", 0.474, "H-038")


def _retention(left: float, spread: float, each: int = EACH) -> Draw:
    def find(rng: np.random.Generator) -> Finding:
        return parity(retention_study((3.0, left), rng=rng, sigma=spread, segments=SEGMENTS, each=each), rng=rng)

    return judged(find, "<", 1.25, "H-039")


def _mirrored(ratio: float, languages: int = MIRRORED) -> Draw:
    """Each language at low and at high exposure: log SD .5 over languages, segments vary by as much as their mean."""

    def draw(rng: np.random.Generator) -> bool:
        own = np.exp(0.5 * rng.standard_normal(languages))
        sides = own[:, None] * np.array([ratio, 1.0]) * np.exp(0.2 * rng.standard_normal((languages, 2)))
        shared = rng.standard_normal(SEGMENTS)
        table = {
            f"l{place:03d}": side[:, None] * (1 + 0.7 * shared + 0.7 * rng.standard_normal((2, SEGMENTS)))
            for place, side in enumerate(sides)
        }
        found = paired_disparity(table, families={tag: tag for tag in table}, rng=rng)
        return found.low is not None and found.low > 0

    return draw


def power(draw: Draw, draws: int, seed: int) -> float:
    """Share of independent studies that are `supported`."""
    return sum(draw(np.random.default_rng([seed, place])) for place in range(draws)) / draws


def rows(draws: int, seed: int) -> Iterator[str]:
    """The table, line by line as it is drawn."""
    yield "| Criterion | planted | power | .8 would take |"
    yield "|---|---|---|---|"
    for case in cases():
        found = power(case.draw, draws, seed)
        needed = "-" if found >= TARGET else _needed(case.more, draws, seed)
        yield f"| {case.criterion} | {case.planted} | {found:.2f} | {needed} |"


def _needed(more: Sequence[tuple[str, Draw]], draws: int, seed: int) -> str:
    for said, draw in more:
        if (found := power(draw, draws, seed)) >= TARGET:
            return f"{said} ({found:.2f})"
    return f"more than {more[-1][0]}" if more else "another size or share"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    draws: Annotated[int, typer.Option(min=1, help="Studies drawn for each power.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Print the power of each criterion, as Markdown."""
    for line in rows(draws, seed):
        typer.echo(line)


if __name__ == "__main__":
    app()
