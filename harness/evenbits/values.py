"""Values of options: from what was typed or written down to what `Settings` holds, or one sentence why not.

Each function takes one value and raises `UsageError` where it is none; heavy modules are read inside, by whoever has
such a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits.errors import UsageError
from evenbits.families import Family, family
from evenbits.paths import expanded
from evenbits.report.saved import find_report

if TYPE_CHECKING:  # read lazily: a session without evals imports nothing of this
    from evenbits.models.references import ModelRef
    from evenbits.variants.registry import Spec

__all__ = [
    "Value",
    "as_address",
    "as_baseline",
    "as_corpus",
    "as_count",
    "as_device",
    "as_family",
    "as_file",
    "as_folder",
    "as_it_is",
    "as_languages",
    "as_models",
    "as_names",
    "as_one_of",
    "as_seed",
    "as_shard",
    "as_specs",
    "as_switch",
]

DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]*))?|mps", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A value of the option `name`; a relative path among it starts at `folder`, beside whoever wrote it down."""

    name: str
    value: Any
    folder: Path


def as_it_is(value: Value) -> Any:
    """Return the value unread."""
    return value.value


def as_switch(value: Value) -> bool:
    """Return whether a switch is on."""
    return bool(value.value)


def _texts(value: Value) -> Sequence[str]:
    return [value.value] if isinstance(value.value, str) else value.value


def as_models(value: Value) -> tuple[ModelRef, ...]:
    """Return the models that are named, families that ship as their models."""
    texts = _texts(value)
    if not texts:
        return ()
    from evenbits.models.references import parse_model
    from evenbits.models.shipped import expand

    return expand([parse_model(text) for text in dict.fromkeys(texts)])


def as_specs(value: Value) -> tuple[Spec, ...]:
    """Return the quantizations that are named, each once."""
    from evenbits.variants.registry import parse_specs

    specs = tuple(dict.fromkeys(spec for text in _texts(value) for spec in parse_specs(text)))
    if not specs:
        raise UsageError("--spec names no quantization; give one such as int4-g64.")
    return specs


def as_corpus(value: Value) -> str:
    """Return the name of a corpus that can be understood."""
    from evenbits.text import parse_corpus

    parse_corpus(value.value)
    return str(value.value)


def as_languages(value: Value) -> str | None:
    """Return tags separated by commas, a number or `all`, as one text; None where nobody asked."""
    if value.value is None:
        return None
    from evenbits.text import parse_languages

    text = ",".join(value.value) if isinstance(value.value, list) else str(value.value)
    parse_languages(text)
    return text


def _whole(value: Value, *, least: int) -> int | None:
    if value.value is None:
        return None
    try:
        number = int(value.value)
    except ValueError:
        raise UsageError(f"--{value.name} {value.value!r} is not a whole number.") from None
    if number < least:
        raise UsageError(f"--{value.name} {number} is too small; it must be {least} or more.")
    return number


def as_count(value: Value) -> int | None:
    """Return a whole number of 1 or more, None where there is none."""
    return _whole(value, least=1)


def as_names(value: Value) -> tuple[str, ...]:
    """Return the names of a list that commas separate, each once."""
    names = (name.strip() for text in _texts(value) for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def as_seed(value: Value) -> int | None:
    """Return a whole number of 0 or more."""
    return _whole(value, least=0)


def as_one_of(*words: str) -> Callable[[Value], str]:
    """Return a check that takes one of `words`."""

    def check(value: Value) -> str:
        if value.value not in words:
            raise UsageError(f"--{value.name} {value.value!r} is unknown; use {' or '.join(words)}.")
        return str(value.value)

    return check


def as_device(value: Value) -> str:
    """Return the name of a device, which need not be there."""
    if not DEVICE.fullmatch(value.value):
        raise UsageError(f"--device {value.value!r} is unknown; use auto, cpu, cuda, cuda:N (such as cuda:1) or mps.")
    return str(value.value)


def as_address(value: Value) -> str | None:
    """Return the address of a cluster that this machine is part of."""
    if value.value is not None and value.value.startswith("ray://"):
        raise UsageError(
            f"--ray-address {value.value!r} is for clients outside a cluster, and evenbits reads the store that the "
            "workers fill: start it on a machine of the cluster, with --ray-address auto or HOST:PORT of its head."
        )
    return None if value.value is None else str(value.value)


def as_family(value: Value) -> Family | None:
    """Return the model family of that name."""
    return None if value.value is None else family(value.value)


def as_folder(value: Value) -> Path | None:
    """Return the path of a folder, which need not exist."""
    if value.value is None:
        return None
    if not str(value.value).strip():
        raise UsageError(f"--{value.name} {value.value!r} names no folder.")
    folder = value.folder / expanded(value.value)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--{value.name} {value.value!r} is a file; name a folder.")
    return folder


def as_file(value: Value) -> Path | None:
    """Return the path of a file, which must exist."""
    if value.value is None:
        return None
    file = value.folder / expanded(value.value)
    if not file.is_file():
        raise UsageError(f"--{value.name} {value.value!r} is no file; it was looked for at {file}.")
    return file


def as_baseline(value: Value, saved: Path) -> Path | None:
    """Return the file of a report that is named by its path, its number among the saved ones, or `latest`."""
    if value.value is None:
        return None
    found = find_report(value.value, saved)
    if found.parent == saved:
        return found
    inside = value.folder / found / "report.json"
    return inside if inside.is_file() else as_file(value)


def as_shard(value: Value) -> tuple[int, int] | None:
    """Return (i, n) of `I/N`, counted from 1."""
    if value.value is None:
        return None
    index, slash, count = value.value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(
            f"--shard {value.value!r} is not understood; write I/N, such as 2/4 for the second of four parts."
        )
    return int(index), int(count)
