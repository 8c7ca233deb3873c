"""The deployment gate: limits of a policy, and comparison with a baseline."""

from evenbits.studies.study import Study

__all__ = ["STUDY"]

STUDY = Study(claims={"gate": "The deployment policy"})
