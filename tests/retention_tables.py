"""Retention studies made by hand: what each language loses at each k, around a planted ratio of low to high."""

import math
from functools import cache

import numpy as np
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate
from evenbits.records import Losses
from evenbits.studies.h039 import RetentionStudy
from evenbits.studies.h039.study import CONTROL_PERCENTS, PERCENTS
from evenbits.variants.quantization.spec import parse_spec

LN2 = math.log(2)
LOW = tuple(f"l{i:02d}" for i in range(8))
HIGH = tuple(f"h{i:02d}" for i in range(8))
SEGMENTS = 24
FULL_BITS = 200.0
RIVAL, MATCHED = "int4-g64", "int4-row+keep0.9%:magnitude"

# Ratio of low to high at each k of the programme's grid; and what as many random weights leave.
REMOVED = (3.0, 2.6, 2.0, 1.02, 1.0, 0.98)
STAYS = (3.0, 3.0, 3.0, 3.0, 3.0, 3.0)


def rng(seed=0):
    return np.random.default_rng(seed)


@cache
def named(segments):
    """Return ids of so many segments, and fifty tokens in each."""
    return tuple(f"s{i}" for i in range(segments)), np.full(segments, 50, dtype=np.int64)


def losses(tag, bits, kl=None):
    ids, count = named(len(bits))
    return Losses(
        language=tag,
        segment_ids=ids,
        nll=np.asarray(bits) * LN2,
        tokens=count,
        utf8_bytes=count,
        kl=None if kl is None else np.asarray(kl) * LN2,
    )


def study_of(
    means,
    *,
    languages=None,
    low=LOW,
    high=HIGH,
    spread=0.1,
    floor=0.01,
    kl=None,
    random=None,
    comparator=None,
    percents=PERCENTS,
    seed=0,
    full=None,
    extra=None,
):
    """`means[place][tag]`: mean excess bits at each k; around it a spread that differs by language and segment.

    `kl`: the same for KL, by default as the excess bits. `random`: means of the controls. `comparator`: means of
    `RIVAL`, which costs what `MATCHED` costs. `extra`: means of other specs, by text.
    """
    draws = rng(seed)
    languages = languages or tuple(sorted(low + high))
    full_bits = {tag: np.full(SEGMENTS, (full or {}).get(tag, FULL_BITS)) for tag in languages}
    kept = {percent: str(parse_spec("int4-row").with_keep(percent, "magnitude")) for percent in percents}
    randoms = {percent: f"int4-row+keep{percent}%:random" for percent in CONTROL_PERCENTS if percent in percents}
    by_spec = dict(zip(kept.values(), means, strict=True))
    by_spec |= dict.fromkeys(randoms.values(), random or means[0])
    by_kl = dict(zip(kept.values(), kl, strict=True)) if kl else {}
    if comparator is not None:
        by_spec |= {RIVAL: comparator, MATCHED: means[-2]}
    by_spec |= extra or {}
    columns = {}
    for place, (spec, mean) in enumerate(by_spec.items()):
        noise = {tag: 1 + spread * draws.standard_normal(SEGMENTS) for tag in languages}
        excess = {tag: mean[tag] * noise[tag] for tag in languages}
        divergence = {tag: by_kl.get(spec, mean)[tag] * np.abs(noise[tag]) for tag in languages}
        columns[spec] = Column(
            spec=spec,
            dtype="bfloat16",
            bits_per_weight=4.1 + 0.1 * place,
            floor_bits=Estimate(value=floor, n=8, method="given"),
            full={tag: losses(tag, full_bits[tag]) for tag in languages},
            quantized={tag: losses(tag, full_bits[tag] + excess[tag], np.abs(divergence[tag])) for tag in languages},
        )
    table = Damage(
        model="m",
        fingerprint="0f",
        corpus_digest="0e",
        languages=languages,
        segment_ids=tuple(f"s{i}" for i in range(SEGMENTS)),
        columns=columns,
    )
    tier = dict.fromkeys(low, "low") | dict.fromkeys(high, "high")
    return RetentionStudy(
        table=table,
        kept=kept,
        random=randoms,
        tier=tier,
    )


def means_of(ratios, *, high=10.0, falls=0.9, low_languages=LOW, high_languages=HIGH, scatter=0.1, seed=1):
    """Means per k: high-resource damage falls by `falls` at each step, low-resource stands at `ratios` times it."""
    draws = rng(seed)
    own = {
        tag: math.exp(scatter * z)
        for tag, z in zip(low_languages + high_languages, draws.standard_normal(16), strict=True)
    }
    table = []
    for step, ratio in enumerate(ratios):
        base = high * falls**step
        table.append({tag: own[tag] * base * (ratio if tag in low_languages else 1.0) for tag in own})
    return table
