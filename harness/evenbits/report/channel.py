"""How results travel from a test to the report: as JSON text in the test's `user_properties`.

Under xdist a test runs in another process, and only plain types come back, with the reports of that test. So what a
test is, what it measured and what its fixtures learned are written as texts under these names; the controller reads
them, and alone writes the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from evenbits.rows import plain

__all__ = ["CONTRIBUTION", "IDENTITY", "MEASUREMENT", "NAMES", "payloads", "sealed"]

IDENTITY = "evenbits.item"
MEASUREMENT = "evenbits.measurement"
CONTRIBUTION = "evenbits.contribution"
NAMES = frozenset({IDENTITY, MEASUREMENT, CONTRIBUTION})


def sealed(name: str, value: Any) -> tuple[str, str]:
    """Return the property that carries `value`; `ValueError` where it holds a number JSON cannot carry."""
    return name, json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def payloads(properties: Iterable[tuple[str, object]], name: str) -> Iterator[Any]:
    """Yield what was sealed under `name`, in the order of recording."""
    for key, text in properties:
        if key == name and isinstance(text, str):
            yield json.loads(text)
