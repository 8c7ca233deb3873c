"""Exposure: does a language lose more where a model was shown less of it? A cause, not a correlation.

Models that were trained alike but for which languages they were shown much of; the same language is compared with
itself, so that neither script, tokens nor the text can explain a difference.
"""

from evenbits.studies.exposure import wants
from evenbits.studies.exposure.effect import ExposureEffect, exposed_tables, exposure_effect, exposure_findings
from evenbits.studies.exposure.wants import MIRRORED, SPECS
from evenbits.studies.study import Study

__all__ = [
    "MIRRORED",
    "SPECS",
    "STUDY",
    "ExposureEffect",
    "exposed_tables",
    "exposure_effect",
    "exposure_findings",
]

STUDY = Study(
    claims={"X-1": "Exposure: a language loses more where the model was shown less of it"},
    wants={"exposure_tables": wants.exposure_tables},
)
