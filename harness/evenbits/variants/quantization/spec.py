"""The text form of a quantization: what is rounded to which grid, what is kept, what stays untouched.

Grammar (no blanks; modifiers in any order on input, in this order on output)::

    spec      = "none" | grid modifier*                 "full" is read as "none": nothing is quantized
    grid      = "int" bits "-" span ["-asym"]           bits 2..8; int4-g64, int8-row, int4-g64-asym
              | "nf4-b" size                            blocks of `size` weights along the input dimension
    span      = "tensor" | "row" | "g" size             one scale per tensor, per output row, per group of inputs
    modifier  = "+keep" percent "%:" criterion ["[" languages "]"] ["@global"]
              | "+clip:mse" ["[" languages "]"]
              | "+protect:" name                        module path or its beginning: stays in high precision
              | "+only:" name                           only these are quantized (single-layer sweeps)
              | "+include:" ("embedding" | "head")      quantized too; by default they are not
    criterion = "magnitude" | "activation" | "sensitivity" | "superweight" | "random"

Several specs are separated by commas. Commas inside square brackets separate languages and never split a list.
Several names are given by repeating the modifier (`+protect:model.layers.0+protect:model.layers.5`), which needs no
quoting in a shell and is the form every report writes; `+protect:model.layers.0|model.layers.5` is read as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal, TypeVar, get_args

from evenbits.errors import CorpusError, SpecError

__all__ = ["Clip", "Criterion", "Grid", "Keep", "QuantSpec", "checked_tags", "parse_spec", "parse_specs"]

Criterion = Literal["magnitude", "activation", "sensitivity", "superweight", "random"]
Extra = Literal["embedding", "head"]
Measured = Literal["input_rms", "gradient_square", "peaks"]

CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
LANGUAGE_AWARE: tuple[Criterion, ...] = ("activation", "sensitivity")
EXTRAS: tuple[Extra, ...] = get_args(Extra)
NEEDS: dict[Criterion, Measured] = {
    "activation": "input_rms",
    "sensitivity": "gradient_square",
    "superweight": "peaks",
}

GRIDS = "int2..int8 with -tensor, -row or -gN (optionally followed by -asym), nf4-bN, or none"
MODIFIERS = "keepP%:CRITERION, clip:mse, protect:NAME, only:NAME, include:embedding, include:head"

_INT = re.compile(r"int(\d{1,9})-(tensor|row|g(\d{1,9}))(-asym)?")
_NF4 = re.compile(r"nf4-b(\d{1,9})")
_KEEP = re.compile(r"keep([^%]*)%:([^\[@]*)(?:\[([^\]]*)\])?(?:@(.*))?")
_CLIP = re.compile(r"clip:([^\[]*)(?:\[([^\]]*)\])?")
_PERCENT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The values a weight may take, and how many neighbours share a scale.

    `kind`: `int` (evenly spaced) or `nf4` (16 quantiles of a normal distribution). `bits`: per weight.
    `span`: weights sharing a scale: the `tensor`, an output `row`, or a `group` of `size` neighbouring inputs.
    `symmetric`: integers in [-(2^(b-1) - 1), 2^(b-1) - 1]; otherwise [0, 2^b - 1] with a zero point.
    """

    kind: Literal["int", "nf4"] = "int"
    bits: int
    span: Literal["tensor", "row", "group"]
    size: int | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise SpecError(f"int{self.bits}: bits must be 2 to 8")
        if (self.span == "group") != (self.size is not None):
            raise SpecError("a grid has a group size exactly when its span is a group")
        if self.size is not None and self.size < 2:
            raise SpecError(f"a group of {self.size} cannot share a scale: the smallest group is 2")
        if self.kind == "nf4" and (self.bits != 4 or self.span != "group" or not self.symmetric):
            raise SpecError("nf4 has 4 bits and blocks along the input dimension: write nf4-b64")

    def __str__(self) -> str:
        if self.kind == "nf4":
            return f"nf4-b{self.size}"
        span = f"g{self.size}" if self.size is not None else self.span
        return f"int{self.bits}-{span}{'' if self.symmetric else '-asym'}"

    def scales(self, shape_OI: tuple[int, int]) -> int:
        """Return how many scales a matrix of O x I weights needs; `SpecError` where a group does not divide I."""
        rows, columns = shape_OI
        if self.span == "tensor":
            return 1
        if self.size is None:
            return rows
        if columns % self.size:
            raise SpecError(f"groups of {self.size} do not divide {columns} inputs")
        return rows * (columns // self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """Retention: `percent` of the weights, largest by `criterion`, stay in FP16 and leave the fit of the grid.

    `languages`: whose statistics decide; empty means all. `scope`: per `tensor`, or of all tensors together (`global`).
    """

    percent: Decimal
    criterion: Criterion
    languages: tuple[str, ...] = ()
    scope: Literal["tensor", "global"] = "tensor"

    def __post_init__(self) -> None:
        if not self.percent.is_finite() or not 0 < self.percent <= 100:
            raise SpecError(
                f"keep{self.percent}%: the share must be above 0 and at most 100 percent; "
                "to keep nothing leave the modifier out"
            )
        if self.criterion not in CRITERIA:
            raise SpecError(f"unknown criterion {self.criterion!r}: one of {', '.join(CRITERIA)}")
        if self.languages and self.criterion not in LANGUAGE_AWARE:
            raise SpecError(
                f"{self.criterion}[{','.join(self.languages)}]: {self.criterion} does not look at languages; "
                f"only {' and '.join(LANGUAGE_AWARE)} do"
            )
        if self.scope not in {"tensor", "global"}:
            raise SpecError(f"@{self.scope}: the scope of keep is @tensor (the default) or @global")
        object.__setattr__(self, "percent", self.percent.normalize())
        object.__setattr__(self, "languages", checked_tags(self.languages))

    def __str__(self) -> str:
        scope = "@global" if self.scope == "global" else ""
        return f"keep{self.percent:f}%:{self.criterion}{_bracket(self.languages)}{scope}"

    def count(self, size: int) -> int:
        """Return round(percent / 100 x size), computed exactly, halves to even."""
        return int((self.percent * size / 100).to_integral_value(rounding=ROUND_HALF_EVEN))


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Clipping: each group's range is shrunk where that lowers the squared error.

    With `languages` the error of an input counts by its mean square activation in those languages.
    """

    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", checked_tags(self.languages))

    def __str__(self) -> str:
        return f"clip:mse{_bracket(self.languages)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantSpec:
    """One quantization of a model; `str(spec)` is its canonical text and `parse_spec` reads it back.

    `grid`: None for full precision. `protect`, `only`: module paths or their beginnings. `include`: of `embedding`,
    `head`.
    """

    grid: Grid | None
    keep: Keep | None = None
    clip: Clip | None = None
    protect: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    include: tuple[Extra, ...] = ()

    def __post_init__(self) -> None:
        for name in self.include:
            if name not in EXTRAS:
                raise SpecError(f"include:{name}: allowed are {', '.join(f'include:{extra}' for extra in EXTRAS)}")
        object.__setattr__(self, "protect", _names("protect", self.protect))
        object.__setattr__(self, "only", _names("only", self.only))
        object.__setattr__(self, "include", tuple(sorted(set(self.include))))
        if self.grid is None and (self.keep or self.clip or self.protect or self.only or self.include):
            raise SpecError("none quantizes nothing and takes no modifiers")

    def __str__(self) -> str:
        if self.grid is None:
            return "none"
        parts = [str(self.grid)]
        parts += [str(modifier) for modifier in (self.keep, self.clip) if modifier is not None]
        parts += [f"protect:{name}" for name in self.protect]
        parts += [f"only:{name}" for name in self.only]
        parts += [f"include:{name}" for name in self.include]
        return "+".join(parts)

    @property
    def label(self) -> str:
        """Short text for tables and figures: as `str`, but more than two names are counted, not listed."""
        if self.grid is None:
            return "full precision"
        parts = [str(self.grid)]
        parts += [str(modifier) for modifier in (self.keep, self.clip) if modifier is not None]
        for verb, names in (("protect", self.protect), ("only", self.only), ("include", self.include)):
            if names:
                parts.append(f"{verb}:{'|'.join(names) if len(names) <= 2 else f'{len(names)} modules'}")
        return "+".join(parts)

    @property
    def base(self) -> QuantSpec:
        """The same grid on the whole model, without retention, clipping, protection or selection."""
        return QuantSpec(grid=self.grid, include=self.include)

    @property
    def bits(self) -> int | None:
        """Bits per weight of the grid, without scales; None for full precision."""
        return None if self.grid is None else self.grid.bits

    @property
    def needs_float32(self) -> bool:
        """Whether the spec is scored in float32: from 6 bits on bf16 noise is as large as the damage (METHOD 3).

        Full precision has no damage; it is scored in whatever its partner needs.
        """
        return self.grid is not None and self.grid.bits >= 6

    @property
    def is_drawn(self) -> bool:
        """Whether the seed decides which weights are kept."""
        return self.keep is not None and self.keep.criterion == "random"

    @property
    def needs(self) -> frozenset[Measured]:
        """The measurements that must exist before this spec can be applied."""
        needed: set[Measured] = set()
        if self.keep is not None and self.keep.criterion in NEEDS:
            needed.add(NEEDS[self.keep.criterion])
        if self.clip is not None and self.clip.languages:
            needed.add("input_rms")
        return frozenset(needed)

    def with_keep(
        self,
        percent: Decimal | float | str,
        criterion: Criterion,
        *,
        languages: tuple[str, ...] = (),
        scope: Literal["tensor", "global"] = "tensor",
    ) -> QuantSpec:
        """Return the spec with another retention; `percent` 0 keeps nothing (the modifier is left out)."""
        share = _percent(str(percent))
        if share == 0:
            return replace(self, keep=None)
        return replace(self, keep=Keep(percent=share, criterion=criterion, languages=languages, scope=scope))

    def with_only(self, *names: str) -> QuantSpec:
        """Return the spec restricted to the modules `names` (paths or their beginnings)."""
        return replace(self, only=names)

    def with_protect(self, *names: str) -> QuantSpec:
        """Return the spec with exactly the modules `names` protected."""
        return replace(self, protect=names)


Modifier = TypeVar("Modifier", Keep, Clip)


def parse_spec(text: str) -> QuantSpec:
    """Return the spec that `text` describes; `SpecError` names the part at fault and what is allowed there."""
    head, *modifiers = text.strip().split("+")
    try:
        return _built(_grid(head), modifiers)
    except SpecError as error:
        raise SpecError(f"spec {text!r}: {error}") from None


def split_specs(text: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated list of specs, in order; commas inside [ ] belong to a language list."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    if any(not part.strip() for part in parts):
        raise SpecError(f"spec list {text!r} has an empty entry: write specs separated by single commas")
    return tuple(part.strip() for part in parts)


def parse_specs(text: str) -> tuple[QuantSpec, ...]:
    """Return the specs of simulated rounding in a comma-separated list, in order."""
    return tuple(parse_spec(part) for part in split_specs(text))


def _built(grid: Grid | None, modifiers: list[str]) -> QuantSpec:
    keep: Keep | None = None
    clip: Clip | None = None
    names: dict[str, list[str]] = {"protect": [], "only": [], "include": []}
    for part in modifiers:
        verb, _, rest = part.partition(":")
        if part.startswith("keep"):
            keep = _once(part, keep, _keep(part))
        elif verb == "clip":
            clip = _once(part, clip, _clip(part))
        elif verb in names:
            names[verb] += rest.split("|")
        else:
            raise SpecError(f"unknown modifier {part!r}; allowed are {MODIFIERS}")
    return QuantSpec(
        grid=grid,
        keep=keep,
        clip=clip,
        protect=tuple(names["protect"]),
        only=tuple(names["only"]),
        include=tuple(names["include"]),  # type: ignore[arg-type]  # checked when the spec is built
    )


def _grid(text: str) -> Grid | None:
    if text in {"none", "full"}:
        return None
    if match := _NF4.fullmatch(text):
        return Grid(kind="nf4", bits=4, span="group", size=int(match[1]))
    match = _INT.fullmatch(text)
    if match is None:
        raise SpecError(
            f"unknown grid {text!r}; allowed are {GRIDS}. Several names in protect or only are joined by | "
            "or by repeating the modifier, not by commas"
        )
    span: Literal["tensor", "row", "group"]
    span = "group" if match[3] else "row" if match[2] == "row" else "tensor"
    return Grid(bits=int(match[1]), span=span, size=int(match[3]) if match[3] else None, symmetric=match[4] is None)


def _keep(text: str) -> Keep:
    match = _KEEP.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is not of the form keepP%:CRITERION, such as keep0.1%:magnitude")
    criterion = match[2]
    if criterion not in CRITERIA:
        raise SpecError(f"unknown criterion {criterion!r} in {text!r}; allowed are {', '.join(CRITERIA)}")
    languages = () if match[3] is None else tuple(match[3].split(","))
    if match[4] is not None and match[4] not in {"tensor", "global"}:
        raise SpecError(f"unknown scope @{match[4]} in {text!r}; allowed are @tensor (the default) and @global")
    scope: Literal["tensor", "global"] = "global" if match[4] == "global" else "tensor"
    return Keep(percent=_percent(match[1]), criterion=criterion, languages=languages, scope=scope)


def _clip(text: str) -> Clip:
    match = _CLIP.fullmatch(text)
    if match is None or match[1] != "mse":
        raise SpecError(f"unknown clipping {text!r}; allowed are clip:mse and clip:mse[LANGUAGE,...]")
    return Clip(languages=() if match[2] is None else tuple(match[2].split(",")))


def _once(part: str, earlier: Modifier | None, now: Modifier) -> Modifier:
    if earlier is not None:
        raise SpecError(f"{part!r} comes after {str(earlier)!r}: a spec has at most one of each")
    return now


def _percent(text: str) -> Decimal:
    if not _PERCENT.fullmatch(text):
        raise SpecError(f"keep{text}%: {text!r} is not a number of percent above 0, such as 0.1")
    return Decimal(text)


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return language tags in their normal form, each once, in order; `SpecError` for one that is none."""
    if not tags:
        return ()
    from evenbits.text.languages import normalise

    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise SpecError(f"{tag!r} is not a language tag; write tags separated by commas, such as [de,sr-Cyrl]")
    try:
        return tuple(sorted({normalise(tag) for tag in tags}))
    except CorpusError as error:
        raise SpecError(str(error)) from None


def _names(verb: str, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _NAME.fullmatch(name):
            raise SpecError(f"{verb}:{name}: {name!r} is not a module path such as model.layers.0.mlp")
    return tuple(sorted(set(names), key=_natural))


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a module path: layer 2 before layer 10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split("."))


def _bracket(languages: tuple[str, ...]) -> str:
    return f"[{','.join(languages)}]" if languages else ""
