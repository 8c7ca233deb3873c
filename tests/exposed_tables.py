"""Damage tables by hand in which languages are shown much in one model and little in another."""

import numpy as np
from evenbits.cells.damage import Column, Damage
from evenbits.estimates import Estimate
from evenbits.records import Losses

SPEC, SEGMENTS = "int3-row", 12
LANGUAGES = tuple(f"x{letter}" for letter in "abcdefghij")
TURNED = {
    "one": dict.fromkeys(LANGUAGES[:5], "high") | dict.fromkeys(LANGUAGES[5:], "low"),
    "two": dict.fromkeys(LANGUAGES[:5], "low") | dict.fromkeys(LANGUAGES[5:], "high"),
}


def table(excess, *, full=100.0):
    """A damage table with `excess[language]` mean bits; segments differ by the same shift everywhere."""
    shift = np.linspace(-1, 1, SEGMENTS)
    ids = tuple(f"s{at}" for at in range(SEGMENTS))
    whole = np.ones(SEGMENTS, dtype=np.int64)

    def losses(tag, bits, kl):
        return Losses(
            language=tag,
            segment_ids=ids,
            nll=(full + bits) * np.log(2),
            tokens=10 * whole,
            utf8_bytes=40 * whole,
            kl=kl,
        )

    column = Column(
        spec=SPEC,
        dtype="float32",
        bits_per_weight=3.0,
        floor_bits=Estimate(value=0.0, n=1, method="none"),
        full={tag: losses(tag, 0 * shift, None) for tag in excess},
        quantized={tag: losses(tag, b + shift, np.abs(b) * np.log(2) + 0 * shift) for tag, b in excess.items()},
    )
    return Damage(
        model="m", fingerprint="0", corpus_digest="0", languages=tuple(excess), segment_ids=ids, columns={SPEC: column}
    )


def of_language(place):
    """What makes languages differ whatever they were shown: 10 to 28 bits."""
    return 10.0 + 2 * place


def tables(low_adds):
    return {
        name: table(
            {tag: of_language(place) + (low_adds if tier[tag] == "low" else 0.0) for place, tag in enumerate(LANGUAGES)}
        )
        for name, tier in TURNED.items()
    }
