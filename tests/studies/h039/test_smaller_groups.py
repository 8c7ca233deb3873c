"""The same bits spent on smaller groups: which specs, and how they compare."""

import math

import pytest
from evenbits.estimates import Verdict
from evenbits.studies.h039 import SmallerGroups, equal_bits
from evenbits.studies.h039.smaller_groups import _smaller_groups
from evenbits.variants.quantization.spec import parse_spec
from retention_tables import HIGH, LOW, MATCHED, REMOVED, RIVAL, means_of, rng, study_of


def grouped(means, comparator=None, **kwargs):
    pair = None if comparator is None else (RIVAL, MATCHED)
    return SmallerGroups(retention=study_of(means, comparator=comparator, **kwargs), pair=pair)


def test_equal_bits_compares_the_disparities_of_two_specs_that_cost_the_same():
    means = means_of(REMOVED, scatter=0.0)
    wide = {tag: 12.0 if tag in LOW else 6.0 for tag in LOW + HIGH}  # smaller groups leave a ratio of 2
    finding = equal_bits(grouped(means, comparator=wide, spread=0.0), rng=rng())
    assert finding.estimate.value == pytest.approx(math.log(1.0 / 2.0))  # the matched spec stands at ratio 1
    assert finding.verdict is None
    assert "int4-g64" in finding.because
    even = dict.fromkeys(LOW + HIGH, 6.0)
    held = equal_bits(grouped(means, comparator=even), rng=rng()).estimate
    assert held.low <= 0 <= held.high  # the interval decides, and neither way
    assert equal_bits(grouped(means), rng=rng()).verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("text", "comparator"),
    [
        ("int4-g64", "int4-g32"),
        ("int3-row", "int3-g64"),
        ("int4-tensor", "int4-g64"),
        ("int4-g8", None),
        ("int4-g64-asym", "int4-g32-asym"),
        ("nf4-b64", None),
        ("int4-g64+include:head", "int4-g32+include:head"),
    ],
)
def test_the_comparator_is_the_next_smaller_group(text, comparator):
    found = _smaller_groups(parse_spec(text))
    assert (None if found is None else str(found)) == comparator
