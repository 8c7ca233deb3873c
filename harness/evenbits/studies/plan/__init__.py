"""What a run can decide: power of each decision as it is made, from a pilot's variance components."""

from __future__ import annotations

from evenbits.studies.plan.pilot import Pilot, pilot_of
from evenbits.studies.plan.powers import TARGET, Planned, planned
from evenbits.studies.plan.reach import DECIDED_OVER, not_by_text, out_of_reach

__all__ = ["DECIDED_OVER", "TARGET", "Pilot", "Planned", "not_by_text", "out_of_reach", "pilot_of", "planned"]
