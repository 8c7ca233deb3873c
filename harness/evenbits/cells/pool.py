"""Pooling: the measurements of several runs made into one store, from which the whole run is judged once.

A run leaves beside its report what it measured (`measurements/`), and in `run.json` what it was asked. Parts of a run
differ in models, specs or languages; whatever is in two of them has to be equal.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evenbits.cells.cell import KIND
from evenbits.errors import ReportError
from evenbits.foreign import read_object
from evenbits.models.device import KIND as DEVICES
from evenbits.models.device import Device
from evenbits.rows import Row
from evenbits.store import SEAL, Contents, contents

__all__ = ["MEASUREMENTS", "RUN", "Asked", "Pool", "asked_of", "pool"]

MEASUREMENTS = "measurements"
"""Folder beside a report."""

RUN = "run.json"

LISTS = ("model", "spec")
"""Options in which parts of one run may differ: the whole has all of them, in the order of the parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked(Row):
    """What a run was asked.

    `arguments`: tests, as pytest takes them, installed ones as `evenbits.evals[/FILE]`. `options`: name -> text, list
    of texts, or true for a switch. `shard`: the i-th of n parts of the gate's languages. `policy`: the text of its
    file, None without one.
    """

    arguments: tuple[str, ...]
    options: Mapping[str, Any]
    shard: tuple[int, int] | None = None
    policy: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A pooled store. `asked`: the whole run. `repeated`: entries found in several parts, equal in all of them."""

    store: Path
    asked: Asked
    repeated: int


def pool(parts: Sequence[Path], into: Path) -> Pool:
    """Copy the measurements of `parts`, folders of reports or stores, into a store at `into`, and return it.

    `ReportError` where a part has no measurements, where two contradict each other or were computed on different kinds
    of machines, where they were asked different things that cannot be joined, or where a shard is missing.
    """
    folders = {str(part): _measurements(part) for part in parts}
    asked = _joined({name: asked_of(folder) for name, folder in folders.items() if (folder / RUN).is_file()})
    origin: dict[Path, str] = {}
    repeated = 0
    for name, folder in folders.items():
        for file in sorted(path for path in folder.glob("*/*") if path.is_file() and not path.name.startswith(".")):
            place = file.relative_to(folder)
            if place.parts[0] == "locks":
                continue
            found = contents(file)
            target = into / place
            if place in origin:
                repeated += 1
                _refuse_contradiction(contents(target), found, origin[place], name)
                continue
            origin[place] = name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    into.mkdir(parents=True, exist_ok=True)
    (into / SEAL).touch()
    return Pool(store=into, asked=asked, repeated=repeated)


def asked_of(folder: Path) -> Asked:
    """Return what the run whose measurements are in `folder` was asked; `ReportError` where its file does not say."""

    def refused(what: str) -> ReportError:
        return ReportError(f"{what}. Run that part again.")

    row = read_object(folder / RUN, error=refused)
    shard = None if row.content.get("shard") is None else row.wholes("shard", length=2)
    return Asked(
        arguments=tuple(row.texts("arguments")),
        options=dict(row.entries("options").content),
        shard=None if shard is None else (shard[0], shard[1]),
        policy=row.text("policy", None),
    )


def _measurements(part: Path) -> Path:
    """Return where the measurements of a part lie: beside a report, or the part itself where it is a store."""
    folder = part.parent if part.suffix == ".json" else part
    if (folder / MEASUREMENTS).is_dir():
        return folder / MEASUREMENTS
    if not part.is_dir() or not (part / KIND).is_dir():
        raise ReportError(f"{part} holds no measurements: name the folder that a run wrote with --report, or a store.")
    return part


def _joined(runs: Mapping[str, Asked]) -> Asked:
    """Return the whole of which `runs` are parts."""
    if not runs:
        raise ReportError(f"none of the parts says what was asked ({RUN}): name at least one report's folder.")
    (first_name, first), *others = runs.items()
    lists = {name: _texts(first.options.get(name)) for name in LISTS}
    for name, other in others:
        if other.arguments != first.arguments:
            raise ReportError(f"{first_name} and {name} ran different tests; run the parts with the same selection.")
        if other.policy != first.policy:
            raise ReportError(f"{first_name} and {name} were decided by different policies; run them with the same.")
        keys = sorted({*first.options, *other.options} - {*LISTS, "shard"})
        differing = [key for key in keys if first.options.get(key) != other.options.get(key)]
        if differing:
            said = ", ".join(f"--{key} {first.options.get(key)} and {other.options.get(key)}" for key in differing)
            raise ReportError(f"{first_name} and {name} are no parts of one run: they had {said}. Run them alike.")
        for key in LISTS:
            lists[key] += [text for text in _texts(other.options.get(key)) if text not in lists[key]]
    _refuse_missing_shards(runs)
    options = {key: value for key, value in first.options.items() if key != "shard"} | lists
    return Asked(arguments=first.arguments, options=options, policy=first.policy)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _refuse_missing_shards(runs: Mapping[str, Asked]) -> None:
    """Raise `ReportError` where parts were divided by --shard and one of them is not there."""
    groups: dict[tuple[Any, ...], list[tuple[int, int] | None]] = {}
    for one in runs.values():
        group = tuple(tuple(_texts(one.options.get(key))) for key in LISTS)
        groups.setdefault(group, []).append(one.shard)
    for (models, specs), shards in groups.items():
        known = [shard for shard in shards if shard is not None]
        counts = {count for _, count in known}
        what = ", ".join((*models, *specs))
        if known and (len(known) < len(shards) or len(counts) > 1):
            raise ReportError(f"the parts of {what} are divided differently; merge the shards of one division.")
        missing = sorted(set(range(1, max(counts, default=0) + 1)) - {index for index, _ in known})
        if missing:
            lost = ", ".join(f"{index}/{max(counts)}" for index in missing)
            raise ReportError(f"the shards {lost} of {what} are missing; run them with --shard and merge all.")


def _refuse_contradiction(one: Contents, other: Contents, first: str, second: str) -> None:
    """Raise `ReportError` where two entries of one key hold different things."""
    same_meta = all(one.meta.get(key) == other.meta.get(key) for key in {*one.meta, *other.meta} - {"arithmetic"})
    same_arrays = one.arrays.keys() == other.arrays.keys() and all(
        np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays
    )
    if same_meta and same_arrays:
        return
    if one.kind == DEVICES:
        told = " and ".join(
            Device(**part.meta).key("bfloat16" if "products" in part.meta else "float32") for part in (one, other)
        )
        raise ReportError(
            f"{first} and {second} were not computed alike: {told}. Run all parts with the same versions on one kind "
            "of device; CPUs that multiply bfloat16 differently agree with --dtype float32."
        )
    named = ", ".join(f"{key} {json.dumps(value, ensure_ascii=False)[:80]}" for key, value in one.key.items())
    machines = {str(part.meta["arithmetic"]) for part in (one, other) if "arithmetic" in part.meta}
    why = f" They were computed as {' and as '.join(sorted(machines))}." if len(machines) > 1 else ""
    raise ReportError(
        f"{first} and {second} contradict each other in {one.kind} ({named}).{why} Leave one of them out, or measure "
        "that part again."
    )
