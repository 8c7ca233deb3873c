"""Foreign files: JSON and TOML that somebody else wrote, read within bounds and by type.

Such a file may be huge, nested a hundred thousand deep, or hold numbers of five thousand digits, text that is no
Unicode and one key twice. Each of these raises the caller's kind of error, one sentence with file and place; whoever
asks an `Entries` for a key gets a value of the type asked for, or a sentence with file and key.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenbits.errors import EvenbitsError, IntegrityError

__all__ = [
    "Entries",
    "fetch_again",
    "named",
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_object",
    "read_toml",
    "shown",
]

Refusal = Callable[[str], EvenbitsError]
"""What makes the caller's error of a sentence: a class of errors.py, or a function that adds what to do."""

LARGEST = 1 << 26  # bytes; no configuration, index or policy comes near
DEEPEST = 64  # objects and lists inside one another
LONGEST_NUMBER = 40  # digits; 64 bits need 20, and 10^30 stands for "no limit" in configurations of tokenizers
WHOLE = 1 << 63  # whole numbers lie below: what other programs read into 64 bits
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MISSING: Any = object()


def fetch_again(what: str) -> IntegrityError:
    """Return the error for a file of a model that came from elsewhere."""
    return IntegrityError(f"{what}; fetch the model again.")


def read_json(file: Path, *, error: Refusal, largest: int = LARGEST, infinite: bool = False) -> Any:
    """Return what a JSON file holds; `error` as `parse_json` has it, and where the file cannot be read."""
    return parse_json(read_bytes(file, error=error, largest=largest), source=str(file), error=error, infinite=infinite)


def read_object(file: Path, *, error: Refusal, largest: int = LARGEST, infinite: bool = False) -> Entries:
    """Return the object that a JSON file holds."""
    return Entries.of(read_json(file, error=error, largest=largest, infinite=infinite), source=str(file), error=error)


def read_toml(file: Path, *, error: Refusal, largest: int = LARGEST) -> dict[str, Any]:
    """Return the table that a TOML file holds; `error` as `parse_toml` has it, and where the file cannot be read."""
    return parse_toml(read_bytes(file, error=error, largest=largest), source=str(file), error=error)


def read_bytes(file: Path, *, error: Refusal, largest: int = LARGEST) -> bytes:
    """Return a regular file of at most `largest` bytes."""
    try:
        if not file.is_file():
            raise error(f"{file} is not there" if not file.exists() else f"{file} is no regular file")
        with file.open("rb") as stream:
            content = stream.read(largest + 1)
    except (OSError, ValueError) as reason:  # ValueError: a NUL in the name
        raise error(f"{file} cannot be read: {reason}") from reason
    if len(content) > largest:
        raise error(f"{file} is larger than {largest} bytes, which no file of its kind is")
    return content


def parse_json(content: bytes, *, source: str, error: Refusal, infinite: bool = False, start: int = 0) -> Any:
    """Return the value of a JSON text in UTF-8, which begins at byte `start` of its file; `infinite` allows infinity.

    Raises `error`, beginning with `source`, for what is not JSON, a key that is there twice, whole numbers of more than
    40 digits, text that is no Unicode, and more than 64 levels.
    """
    text = _decoded(content, source, error)
    strict = _Strict(source, error, infinite)
    try:
        value = json.loads(
            text,
            parse_int=strict.whole,
            parse_float=strict.fraction,
            parse_constant=strict.constant,
            object_pairs_hook=strict.object,
        )
    except json.JSONDecodeError as reason:
        place = start + len(text[: reason.pos].encode())
        raise error(f"{source} is not JSON at byte {place} ({reason.msg})") from reason
    except RecursionError:
        raise error(f"{source} is nested more than {DEEPEST} levels deep") from None
    _check(value, source, error, strings=SURROGATE.search(text) is not None)
    return value


def parse_toml(content: bytes, *, source: str, error: Refusal) -> dict[str, Any]:
    """Return the table of a TOML text in UTF-8; raises `error` as `parse_json` does."""
    try:
        table = tomllib.loads(_decoded(content.removeprefix(codecs.BOM_UTF8), source, error))
    except tomllib.TOMLDecodeError as reason:
        raise error(f"{source} is not TOML: {reason}") from reason
    except ValueError:
        raise error(f"{source} holds a number of thousands of digits") from None
    except RecursionError:
        raise error(f"{source} is nested more than {DEEPEST} levels deep") from None
    _check(table, source, error, strings=False)
    return table


def shown(value: Any, *, longest: int = 60) -> str:
    """Return a foreign value for a message: as in JSON, escapes instead of control characters, and cut."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError, OverflowError):
        text = f"a {type(value).__name__}"
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def named(text: str) -> str:
    """Return a foreign name for a message: as it is, but for escapes instead of control characters, and cut."""
    return shown(text, longest=120).strip('"') if text else "''"


@dataclass(frozen=True, slots=True)
class Entries:
    """An object of a foreign file, asked for its entries by type."""

    content: Mapping[str, Any]
    source: str
    error: Refusal

    @classmethod
    def of(cls, value: Any, *, source: str, error: Refusal) -> Entries:
        if not isinstance(value, Mapping):
            raise error(f"{source} must be an object, not {shown(value)}")
        return cls(value, source, error)

    def text(self, key: str, default: Any = MISSING) -> Any:
        """Return the string at `key`, or `default` where the key is absent or null."""
        return self._take(key, "a text", default, lambda value: isinstance(value, str))

    def whole(self, key: str, default: Any = MISSING, *, least: int = 0, most: int = WHOLE) -> Any:
        """Return the whole number at `key`, from `least` to `most`."""
        span = f"a whole number of at least {least}" if most == WHOLE else f"a whole number from {least} to {most}"
        return self._take(key, span, default, lambda value: _whole(value) and least <= value <= most)

    def number(self, key: str, default: Any = MISSING) -> Any:
        """Return the finite number at `key` as a float."""
        number = self._take(key, "a number", default, lambda value: _whole(value) or isinstance(value, float))
        if isinstance(number, float) and not math.isfinite(number):
            raise self.error(f"{self.source}: {key} is {number}, which is no number to compute with")
        return float(number) if _whole(number) else number

    def flag(self, key: str, default: Any = MISSING) -> Any:
        """Return the true or false at `key`."""
        return self._take(key, "true or false", default, lambda value: isinstance(value, bool))

    def texts(self, key: str, default: Any = MISSING) -> Any:
        """Return the list of strings at `key`."""
        return self._take(
            key,
            "a list of texts",
            default,
            lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        )

    def wholes(self, key: str, *, length: int | None = None) -> tuple[int, ...]:
        """Return the list of whole numbers, 0 or more, at `key`; of `length` where that is given."""
        wanted = "a list of whole numbers" if length is None else f"a list of {length} whole numbers"
        found = self._take(
            key,
            f"{wanted}, 0 or more",
            MISSING,
            lambda value: (
                isinstance(value, list)
                and all(_whole(one) and one >= 0 for one in value)
                and (length is None or len(value) == length)
            ),
        )
        return tuple(found)

    def numbers(self, key: str, *, most: float) -> tuple[float, ...]:
        """Return the list of numbers at `key`, none larger in size than `most`."""
        found = self._take(
            key,
            f"a list of numbers up to {most:g} in size",
            MISSING,
            lambda value: (
                isinstance(value, list)
                and all((_whole(one) or isinstance(one, float)) and abs(one) <= most for one in value)
            ),
        )
        return tuple(float(one) for one in found)

    def entries(self, key: str) -> Entries:
        """Return the object at `key`."""
        found = self._take(key, "an object", MISSING, lambda value: isinstance(value, Mapping))
        return Entries(found, f"{self.source}: {key}", self.error)

    def rows(self, key: str) -> Iterator[Entries]:
        """Yield the objects of the list at `key`."""
        found = self._take(key, "a list", MISSING, lambda value: isinstance(value, list))
        for index, value in enumerate(found):
            yield Entries.of(value, source=f"{self.source}: {key}[{index}]", error=self.error)

    def _take(self, key: str, wanted: str, default: Any, fits: Callable[[Any], bool]) -> Any:
        value = self.content.get(key)
        if value is None:
            if default is MISSING:
                raise self.error(f"{self.source} has no {key}, which must be {wanted}")
            return default
        if not fits(value):
            raise self.error(f"{self.source}: {key} must be {wanted}, not {shown(value)}")
        return value


@dataclass(frozen=True, slots=True)
class _Strict:
    """What json makes of numbers and objects, refusing what cannot be meant."""

    source: str
    error: Refusal
    infinite: bool

    def whole(self, text: str) -> int:
        if len(text) > LONGEST_NUMBER:
            raise self.error(f"{self.source} holds a whole number of {len(text)} digits, {text[:12]}...")
        return int(text)

    def fraction(self, text: str) -> float:
        if not math.isfinite(value := float(text)) and not self.infinite:
            raise self.error(f"{self.source} holds the number {text[:12]}, too large to compute with")
        return value

    def constant(self, name: str) -> float:
        if not self.infinite:
            raise self.error(f"{self.source} holds {name}, which is no number")
        return float(name)

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            raise self.error(f"{self.source} has the key {named(counts.most_common(1)[0][0])} twice")
        return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decoded(content: bytes, source: str, error: Refusal) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{source} is not UTF-8 at byte {reason.start}") from reason


def _check(value: Any, source: str, error: Refusal, *, strings: bool) -> None:
    """Refuse more than `DEEPEST` levels and, where `strings`, halves of surrogate pairs; without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
                texts: Any = one.keys()
            elif isinstance(one, list):
                below += one
                texts = ()
            else:
                texts = (one,) if isinstance(one, str) else ()
            if strings and any(not _is_unicode(text) for text in texts):
                raise error(
                    f"{source} holds {shown(next(t for t in texts if not _is_unicode(t)))}, which is no Unicode"
                )
        if not below:
            return
        level = below
    raise error(f"{source} is nested more than {DEEPEST} levels deep")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
