"""What a run measures, drawn: damage of languages in families over aligned segments, where the truth is known.

For the simulations of decisions (`statistics/decisions/`), which call the public decisions on it: at `SEGMENTS` per
language, `WORLD` sizes, `ICC` of families and `NOISES` of segments, as far as each means something to a decision.
"""

import math
from functools import cache
from itertools import product

import numpy as np
import pytest
from evenbits.statistics import binomial_band, mean_interval
from evenbits.text.languages import families_of, known_languages, tiers

ALPHA = 0.05
QUICK, MANY = 40, 1000
SEGMENTS = (5, 6, 10, 20, 50)
ICC = (0.0, 0.3, 0.6)
NOISES = ("normal", "t3", "lognormal")

WORLD = {  # families of low- and high-resource languages as they are: tiers and families coincide
    (11, 11): ([6, 3, 1, 1], [9, 1, 1]),
    (20, 20): ([8, 5, 3, 1, 1, 1, 1], [12, 3, 1, 1, 1, 1, 1]),
    (100, 25): ([30, 20, 10, 8, 6, 6, 5, 5] + [1] * 10, [15, 4, 2, 1, 1, 1, 1]),
}


def rng(*seed):
    return np.random.default_rng(seed)


def cells(*axes, quick, trials=QUICK, many=MANY):
    """Return every cell of `axes` with many draws in `slow`, and those of `quick` with few by default."""

    def named(cell, count, speed):
        label = "-".join("+".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in cell)
        return pytest.param(*cell, count, id=f"{label}-{speed}", marks=() if speed == "quick" else pytest.mark.slow)

    return [named(cell, trials, "quick") for cell in quick] + [named(cell, many, "many") for cell in product(*axes)]


def grid(*, quick, trials=QUICK):
    """Return all sizes, segments and correlations of families with normal segments; with others at a correlation of .3.

    Cells are (sizes, segments, icc, kind), followed by the number of draws.
    """
    return cells(WORLD, SEGMENTS, ICC, ("normal",), quick=quick, trials=trials) + cells(
        WORLD, SEGMENTS, (0.3,), NOISES[1:], quick=[]
    )


def replicates(count):
    """The quick number by default, many in `slow`."""
    return [pytest.param(count, id="quick"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]


def no_more_often_than(hits, trials, rate, *, confidence=0.999):
    return hits <= binomial_band(trials, rate, confidence=confidence)[1]


def holds(found, true):
    """Whether the interval has the true value inside; an open one reaches everywhere."""
    return (found.low is None or found.low <= true) and (found.high is None or true <= found.high)


def noise(draw, kind, size):
    """Return numbers of mean 0 and SD 1: normal, Student's with three degrees of freedom, or lognormal (log SD 1)."""
    match kind:
        case "normal":
            return draw.standard_normal(size)
        case "t3":
            return draw.standard_t(3, size) / math.sqrt(3)
        case _:
            return (np.exp(draw.standard_normal(size)) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)


def languages_of(sizes, *, mixed=False):
    """Return low and high tags and the family of each; `mixed`: families dealt over both tiers."""
    families = {}
    for tier, members in zip(("l", "h"), WORLD[sizes], strict=True):
        place = 0
        for number, size in enumerate(members):
            for _ in range(size):
                families[f"{tier}{place:03d}"] = f"f{place % 8}" if mixed else f"{tier}{number}"
                place += 1
    return [tag for tag in families if tag[0] == "l"], [tag for tag in families if tag[0] == "h"], families


@cache
def real_languages(sizes):
    """Return as many low- and high-resource languages of the language table, spread over it, and the tier of each."""
    known = tiers(known_languages())
    chosen = {}
    for tier, size in zip(("low", "high"), sizes, strict=True):
        tags = sorted(tag for tag, found in known.items() if found == tier)
        chosen |= {tags[place]: tier for place in np.linspace(0, len(tags) - 1, size).astype(int)}
    return tuple(chosen), chosen


def by_family(draw, tags, icc, *, families=None, kind="normal", times=()):
    """Return numbers of mean 0 and SD 1, [L, *times]; a share `icc` of the variance is common to a family."""
    families = families_of(tags) if families is None else families
    names = {name: place for place, name in enumerate(dict.fromkeys(families[tag] for tag in tags))}
    shared = noise(draw, kind, (len(names), *times))[[names[families[tag]] for tag in tags]]
    return math.sqrt(icc) * shared + math.sqrt(1 - icc) * noise(draw, kind, (len(tags), *times))


def around(draw, means, segments, *, cv=1.1, kind="normal"):
    """Return damage [L, S] around `means`: segments vary by `cv` times the mean, half of it shared by all languages."""
    shared = 0.5 * noise(draw, kind, segments)
    own = math.sqrt(0.75) * noise(draw, kind, (len(means), segments))
    return np.asarray(means)[:, None] * (1 + cv * (shared + own))


def drawn(draw, sizes, segments, *, icc=0.0, ratio=1.0, spread=0.5, cv=1.1, mixed=False, kind="normal"):
    """Return damage by language [S], low-resource ones at `ratio` times the others on average.

    Log means of languages have SD `spread`, a share `icc` of whose square lies between families.
    """
    low, high, families = languages_of(sizes, mixed=mixed)
    tags = [*low, *high]
    deviation = spread * by_family(draw, tags, icc, families=families)
    means = 10 * np.where([tag in set(low) for tag in tags], ratio, 1.0) * np.exp(deviation - spread**2 / 2)
    table = dict(zip(tags, around(draw, means, segments, cv=cv, kind=kind), strict=True))
    return table, low, high, families


def rows_of(values):
    """Return damage rows of one model and spec, by language in the order of `values`."""
    return [
        {
            "model": "m",
            "spec": "int4-g64",
            "language": tag,
            "segments": len(one),
            "excess_bits": mean_interval(one, rng=rng(0), resamples=100).to_json(),
            "excess_bits_by_segment": np.asarray(one).tolist(),
        }
        for tag, one in values.items()
    ]
