"""The report document: built from what a run measured, checked against its schema, written and read as JSON.

Two runs with equal inputs give equal documents apart from `timing` and `environment`. That is why `seconds` of a
measurement row is null and what a test took stands in `timing.tests`, by test id.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from evenbits.errors import ReportError
from evenbits.estimates import ROLES, Measurement
from evenbits.foreign import read_json
from evenbits.observe.runs import training_run
from evenbits.report.contributions import Contributions
from evenbits.report.verdicts import rank, verdicts
from evenbits.rows import plain
from evenbits.studies.gate.harm import with_pooled

__all__ = [
    "SCHEMA_VERSION",
    "asked",
    "build",
    "dump",
    "load",
    "order_key",
    "require_writable",
    "schema",
    "validate",
    "write",
]

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes away; added keys do not raise it."""

LARGEST = 1 << 29
"""Bytes of a report that is read."""

HALF_PAIRS = re.compile("[\ud800-\udfff]")

GATE_INPUTS = ("policy", "baseline", "shard")
"""Inputs of the deployment gate; absent where it did not run."""


def build(
    *,
    measurements: Sequence[Measurement],
    contributions: Contributions,
    inputs: Mapping[str, Any],
    environment: Mapping[str, Any],
    timing: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the document as plain JSON types, checked. `ReportError` names the key that does not follow the schema.

    `inputs`: `models` (texts), `corpus` (text), `specs` (texts) as they were asked for, and `not_run`, the evals that
    the run did not take, counted by reason like text that was left out. What such sizes cannot decide, and what
    `contributions` know about them, the digests above all, is added. A digest stays null for an input that no selected
    test touched. Models and specs that rows or contributions name beyond those follow in alphabetical order.
    """
    rows = [replace(row, seconds=None) for row in sorted(measurements, key=order_key)]
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "environment": plain(environment),
        "inputs": {
            "models": _described(inputs["models"], contributions.entries("models"), [row.model for row in rows]),
            "corpus": {"text": inputs["corpus"], "digest": None, **(contributions.once("corpus") or {})},
            "specs": _described(inputs["specs"], contributions.entries("specs"), [row.spec for row in rows]),
            **({"not_run": plain(inputs["not_run"])} if inputs.get("not_run") else {}),
            **({"cannot_decide": never} if (never := _cannot_decide(rows, inputs["models"], contributions)) else {}),
            **{name: found for name in GATE_INPUTS if (found := contributions.once(name)) is not None},
        },
        "damage": with_pooled(contributions.entries("damage")),
        "measurements": [row.to_json() for row in rows],
        "verdicts": verdicts(rows),
        "recipes": contributions.entries("recipes"),
        **({"sections": added} if (added := contributions.entries("sections")) else {}),
        "timing": plain(timing),
    }
    validate(document)
    return document


def _cannot_decide(rows: Sequence[Measurement], models: Sequence[str], contributions: Contributions) -> list[str]:
    """Return what a run of these sizes leaves underpowered whatever it finds; nothing where no text was touched."""
    from evenbits.studies.plan import out_of_reach

    corpus = contributions.once("corpus") or {}
    languages, segments = corpus.get("languages", []), corpus.get("segments", {}).get("evaluation")
    if segments is None:
        return []
    return list(
        out_of_reach(
            {"gate" if row.role == "gate" else row.hypothesis for row in rows},
            languages=[one["tag"] for one in languages],
            tiers={one["tag"]: one["tier"] for one in languages if one.get("tier") in {"low", "high"}},
            segments=segments,
            runs=len({training_run(text) for text in models}),
        )
    )


def asked(document: Mapping[str, Any], section: str) -> list[str]:
    """Return the texts of the `models` or `specs` that were named for the run of a report, in their order."""
    return [entry["text"] for entry in document["inputs"][section] if entry.get("asked", True)]


def order_key(row: Measurement) -> tuple[Any, ...]:
    """Return the sort key of a measurement row: hypothesis, role, test, model, spec. Sorting by it is stable."""
    return (*rank(row.hypothesis), ROLES.index(row.role), row.test, row.model or "", row.spec or "")


def _described(
    texts: Iterable[str], entries: Sequence[Mapping[str, Any]], named: Iterable[str | None]
) -> list[dict[str, Any]]:
    """Return one entry per text, in the order asked for; what rows name or was contributed beyond those follows."""
    known = {str(entry["text"]): dict(entry) for entry in entries}
    asked = list(dict.fromkeys(texts))
    beyond = sorted({*known, *(text for text in named if text is not None)} - set(asked))
    return [{"text": text, "digest": None, "asked": text in asked, **known.get(text, {})} for text in [*asked, *beyond]]


@cache
def schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of the document."""
    loaded: dict[str, Any] = json.loads((files("evenbits.report") / "schema.json").read_text(encoding="utf-8"))
    return loaded


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


def validate(document: object) -> None:
    """Check `document` against the schema; `ReportError` names the first key at fault and what is allowed there."""
    for path, number in _not_finite(document, ""):
        raise ReportError(f"The report has {number} at {_readable(path)}; an undefined number is null with a reason.")
    for path in _upside_down(document, ""):
        raise ReportError(f"The report has an interval at {_readable(path)} whose low lies above its high.")
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(document))
    if error is None:
        return
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in error.absolute_path).lstrip(".")
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}..."
    raise ReportError(f"The report does not follow its schema at {_readable(where)}: {_readable(message)}.")


def _readable(text: str) -> str:
    """Return a path or message in one line: keys may hold anything."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text) or "the top"


def dump(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text: keys in the published order, UTF-8, one space of indentation."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
    # Half a surrogate pair, from a file's name in no encoding, has no UTF-8: written out, as people are shown it.
    return HALF_PAIRS.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text) + "\n"


def write(file: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part. `ReportError` where it cannot.

    Half a surrogate pair, which has no UTF-8 and comes from names of files in no encoding, is written as JSON does.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ReportError(f"{file} cannot be written: {error.strerror or error}.") from None


def require_writable(folder: Path) -> None:
    """Raise `ReportError` where no file could be written into `folder`; leave nothing there, not even the folder."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ReportError(f"{folder} cannot be written to: {error.strerror or error}. Choose another folder.") from None


def load(path: Path | str) -> dict[str, Any]:
    """Read and check a report: its document, or the folder that holds `report.json`.

    `ReportError` says what is wrong with the file, and at which key.
    """
    place = Path(path)
    file = place / "report.json" if place.is_dir() else place
    document = read_json(file, error=lambda what: ReportError(f"{what}, so it is no report."), largest=LARGEST)
    if isinstance(document, dict) and isinstance(document.get("schema_version"), int):
        found = document["schema_version"]
        if found > SCHEMA_VERSION:
            raise ReportError(
                f"{file} has schema_version {found}; this evenbits reads {SCHEMA_VERSION}. Read it with a newer one."
            )
    try:
        validate(document)
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from None
    return dict(document)


def _upside_down(value: object, path: str) -> Iterator[str]:
    """Yield the path of every interval whose bounds are exchanged, which a schema cannot say."""
    if isinstance(value, Mapping):
        bounds = [value.get(name) for name in ("low", "high")]
        numbers = [bound for bound in bounds if isinstance(bound, int | float)]
        if len(numbers) == len(bounds) and numbers[0] > numbers[1]:
            yield path.lstrip(".")
        for key, item in value.items():
            yield from _upside_down(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _upside_down(item, f"{path}[{place}]")


def _not_finite(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of every number that no float holds: NaN, infinity, and whole numbers without end."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path.lstrip("."), str(value)
    elif isinstance(value, int):
        if abs(value) > sys.float_info.max:
            yield path.lstrip("."), "a number too large for a float"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{place}]")
