"""Which languages pay when a multilingual language model is quantized, why, and what to protect. See docs/api.md."""

import os

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

if "OMP_WAIT_POLICY" not in os.environ:
    # Read when torch is imported, which nothing above does: how long a thread of torch spins until the others are done.
    # The default is 150 times as long; where other programs are busy, too, it spins away the time that those need.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
