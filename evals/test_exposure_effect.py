"""X-1: a language loses more where the model was shown less of it.

The programme takes it for granted that low-resource languages pay because they are low in resources. Over the languages
of one model that cannot be told from what else these languages are; where exposure was dealt by lot, it can.
"""

import pytest
from evenbits.estimates import Threshold

LOSES_MORE = Threshold(
    metric="low_minus_high_bits",
    op=">",
    bound=0.0,
    why="the sign that `low-resource languages pay more` needs, the language being the same; fixed 2026-11",
)


@pytest.mark.hypothesis("X-1")
@pytest.mark.criterion
def test_a_language_loses_more_where_it_was_shown_less(exposure_findings, record):
    """At 4, 3 and 2 bits and in two formats of llama.cpp, over models that differ in exposure alone."""
    results = [record(found, LOSES_MORE, spec=spec) for spec, found in exposure_findings.items()]
    assert all(one.supported for one in results), " ".join(one.explain() for one in results)
