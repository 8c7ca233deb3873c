"""H-039: does keeping the largest k of the weights in FP16 bring low- and high-resource languages together?

A study holds the measurements; findings are functions of a study and a generator.
"""

from harness.retention.controls import equal_bits, monotone, random_control
from harness.retention.parity import parity
from harness.retention.study import RetentionStudy, retention_specs, study_retention, tiers

__all__ = [
    "RetentionStudy",
    "equal_bits",
    "monotone",
    "parity",
    "random_control",
    "retention_specs",
    "study_retention",
    "tiers",
]
