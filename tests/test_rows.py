"""Rows: a record is its fields by name, and what was written reads back as the same record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from evenbits.rows import Row, plain


class Kind(StrEnum):
    WARM = "warm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner(Row):
    value: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer(Row):
    KEYS: ClassVar = {"inner": "within"}

    inner: Inner
    kind: Kind
    maybe: Inner | None = None
    several: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    free: Mapping[str, object] = field(default_factory=dict)
    work: object = field(default=None, repr=False, compare=False)


FULL = Outer(
    inner=Inner(value=1.5),
    kind=Kind.WARM,
    maybe=Inner(value=None),
    several=(Inner(value=0.0), Inner(value=2.0)),
    by_name={"de": Inner(value=3.0)},
    free={"any": [1, "x", None]},
    work=np.zeros(9),
)


def test_a_record_reads_back_as_itself():
    assert Outer.from_json(FULL.to_json()) == FULL
    bare = Outer(inner=Inner(value=None), kind=Kind.WARM)
    assert Outer.from_json(bare.to_json()) == bare


def test_a_row_has_the_fields_under_their_keys_and_no_working_arrays():
    assert list(FULL.to_json()) == ["within", "kind", "maybe", "several", "by_name", "free"]
    assert FULL.to_json()["by_name"] == {"de": {"value": 3.0}}


def test_a_key_that_lacks_is_named():
    with pytest.raises(KeyError, match="within"):
        Outer.from_json({"kind": "warm"})


def test_numbers_of_numpy_paths_and_sets_become_plain():
    assert plain({"a": np.float64(1), "b": {2, 1}, "c": Path("x"), "d": np.arange(2)}) == {
        "a": 1.0,
        "b": [1, 2],
        "c": "x",
        "d": [0, 1],
    }


def test_what_json_cannot_carry_is_refused():
    with pytest.raises(ValueError, match="None with a reason"):
        plain([float("nan")])
    with pytest.raises(TypeError, match="cannot be written to a report"):
        plain(object())
