"""Model families: the table `families.toml`, which `--family NAME` and the tox environments are driven by.

A family stands for options: its models, specs and number of segments apply where the command line gives none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from evenbits.errors import UsageError

__all__ = ["Family", "FamilyModel", "families", "family"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyModel:
    """A model of a family. `model`: as after --model. `gated`: its terms must be accepted on the hub first."""

    model: str
    licence: str
    gated: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family: what is measured of it where nothing else is asked for.

    `segments`: at most so many per language and half, unless --full is given. `tests`: eval modules, empty for all.
    `focus`: the models that evals of a single model run on, unless --full is given; the others take part in the evals
    over models. Empty for all. `without`: tests by name that cost too much for a first look, unless --full is given.
    """

    name: str
    title: str
    note: str
    spec: tuple[str, ...]
    segments: int
    models: tuple[FamilyModel, ...]
    tests: tuple[str, ...] = ()
    focus: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def option(self, name: str, *, full: bool) -> Any:
        """Return what the family says for the option `name`, None where it says nothing."""
        if name == "model":
            return [one.model for one in self.models]
        if name == "spec":
            return list(self.spec)
        return self.segments if name == "segments" and not full else None

    def summary(self) -> str:
        """Return what the family is and which of its models want their terms accepted, in a line."""
        gated = [one.model.partition("@")[0] for one in self.models if one.gated]
        wants = f"; gated on the hub: {', '.join(gated)}" if gated else ""
        only = f"; only {', '.join(self.tests)}" if self.tests else ""
        return f"family {self.name}: {self.title}{wants}{only}"

    def left_out(self) -> str:
        """Return what the default number of segments leaves out, in a sentence."""
        return (
            f"family {self.name}: at most {self.segments} segments per language in each half of the corpus; the rest "
            "is left out, and --full takes all of them"
        )

    def in_focus(self) -> str:
        """Return which models the evals of a single model are left out for, in a sentence."""
        return (
            f"family {self.name}: evals of a single model run on {', '.join(self.focus)}; the other models take part "
            "in the evals over models, and --full runs everything on all of them"
        )

    def dear(self) -> str:
        """Return which tests are left out because of what they cost, in a sentence."""
        return (
            f"family {self.name}: left out for their cost, unless named on the command line or with --full: "
            f"{', '.join(self.without)}"
        )


@cache
def families() -> Mapping[str, Family]:
    """Return the families by name, in the order of the table."""
    table = tomllib.loads((files("evenbits") / "families.toml").read_text(encoding="utf-8"))
    return {name: _family(name, entry) for name, entry in table.items()}


def family(name: str) -> Family:
    """Return the family `name`; `UsageError` names those there are."""
    found = families().get(name)
    if found is None:
        raise UsageError(f"--family {name!r} is unknown; there are {', '.join(families())}.")
    return found


def _family(name: str, entry: Mapping[str, Any]) -> Family:
    models = tuple(FamilyModel(**one) for one in entry["models"])
    listed = {key: tuple(entry[key]) for key in ("spec", "tests", "focus", "without") if key in entry}
    return Family(**{**entry, **listed, "name": name, "models": models})
