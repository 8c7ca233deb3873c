"""The deployment gate: a quantized model ships only if no language pays more than the policy allows.

The limits stand in the policy file, not here: they are a team's decision. Every limit is decided on the 95 % interval;
what straddles it is inconclusive. A missing result fails the gate. What the policy excuses is shown as skipped.
"""

import pytest


@pytest.mark.gate
def test_language_stays_within_the_policy(gate_language, gate):
    """The damage of the language lies within every limit that the policy sets for it."""
    result = gate.language(gate_language)
    assert result.let_through, result.explain()
    result.skip_if_excused()


@pytest.mark.gate
def test_disparity_stays_within_the_policy(gate_metric, gate):
    """Low-resource languages do not pay more, compared with high-resource ones, than the policy allows."""
    result = gate.disparity(gate_metric)
    assert result.let_through, result.explain()
    result.skip_if_excused()


@pytest.mark.gate
@pytest.mark.usefixtures("gate_change")
def test_no_language_is_worse_than_the_baseline(gate, gate_baseline):
    """No language loses more than in the report of an earlier run, segment by segment, over all languages at once."""
    result = gate.changes(gate_baseline)
    assert result.let_through, result.explain()
    result.skip_if_excused()
