"""Choosing segments by seed. The lot of a segment depends on its id and the seed, on nothing else.

Shards that hold other languages, or a few other segments, therefore choose and divide alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from evenbits.errors import CorpusError, UsageError
from evenbits.numbers import counted
from evenbits.records import Corpus, LeftOut

__all__ = ["drawn_from", "sample", "split"]

# Two uses of one seed must not share their lots: a sample would otherwise fall into one half.
SAMPLE, SPLIT = 1, 2

NOT_DRAWN = "not in the sample asked for"


def sample(corpus: Corpus, segments: int, *, seed: int) -> Corpus:
    """Return `segments` segments drawn without replacement, the same in every language, in their old order.

    Those not drawn are counted in `left_out`. Where the corpus has no more than `segments`, it is returned whole:
    whether that is enough is for the caller to say. Raises `UsageError` for fewer than one.
    """
    if segments < 1:
        raise UsageError(f"--segments {segments}: at least one segment is needed")
    if segments >= len(corpus):
        return corpus
    drawn = _by_lot(corpus.segment_ids, seed=seed, use=SAMPLE)[:segments]
    unused = LeftOut(what="segment", language=None, count=len(corpus) - segments, reason=NOT_DRAWN)
    return corpus.select(indices=tuple(sorted(drawn)), left_out=(unused,))


def drawn_from(corpus: Corpus) -> int:
    """Return how many segments there were before `sample` drew those of `corpus`."""
    return len(corpus) + sum(one.count for one in corpus.left_out if one.reason == NOT_DRAWN)


def split(corpus: Corpus, *, seed: int) -> tuple[Corpus, Corpus]:
    """Return (probe, evaluation): two disjoint halves of the segments; of an odd number, evaluation has one more.

    No document is divided where the corpus knows its documents and has two: evaluation then has what is over. Raises
    `CorpusError` where there are fewer than two segments.
    """
    if len(corpus) < 2:
        raise CorpusError(
            f"{corpus.name} has {counted(len(corpus), 'segment')}; probe and evaluation need at least one each"
        )
    units: dict[str, list[int]] = {}
    for place, name in enumerate(corpus.documents if len(set(corpus.documents)) > 1 else corpus.segment_ids):
        units.setdefault(name, []).append(place)
    names = list(units)
    members = [units[names[place]] for place in _by_lot(names, seed=seed, use=SPLIT)]
    ends = list(accumulate(map(len, members[:-1])))
    half = max((end for end in ends if 2 * end <= len(corpus)), default=ends[0])
    order = [place for places in members for place in places]
    return (
        corpus.select(indices=tuple(sorted(order[:half])), part="probe"),
        corpus.select(indices=tuple(sorted(order[half:])), part="evaluation"),
    )


def _by_lot(segment_ids: Sequence[str], *, seed: int, use: int) -> list[int]:
    """Return the places of `segment_ids` in the order of lots drawn from (seed, use, id)."""
    if seed < 0:
        raise UsageError(f"--seed {seed}: a seed is 0 or a positive whole number")

    def lot(segment_id: str) -> float:
        words = np.frombuffer(hashlib.sha256(segment_id.encode("utf-8", "surrogatepass")).digest(), dtype="<u4")
        return float(np.random.default_rng([seed, use, *words.tolist()]).random())

    return sorted(range(len(segment_ids)), key=lambda place: (lot(segment_ids[place]), segment_ids[place]))
