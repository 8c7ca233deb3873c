"""Which languages pay when a multilingual language model is quantized, why, and what to protect. See docs/api.md."""

from evenbits.api import (
    Options,
    Report,
    damage,
    diagnose,
    load_corpus,
    open_report,
    parse_spec,
    plan,
    protect,
    rank,
)
from evenbits.errors import EvenbitsError
from evenbits.records import Corpus

__all__ = [
    "Corpus",
    "EvenbitsError",
    "Options",
    "Report",
    "damage",
    "diagnose",
    "load_corpus",
    "open_report",
    "parse_spec",
    "plan",
    "protect",
    "rank",
]
