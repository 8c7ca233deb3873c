"""Languages: one tag for each, and what is known about it with the source of every value.

Tags come in many spellings (`deu_Latn`, `zh-CN`, `sr@latin`, `pt_BR`). `normalise` gives each the shortest standard
BCP-47 tag; `describe` adds name, script, family and resource level. The table is `languages.toml` beside this file.
What is not known is None, and `sources` then holds the reason.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evenbits.errors import CorpusError
from evenbits.rows import Row

if TYPE_CHECKING:
    import langcodes

__all__ = ["Language", "Tier", "describe", "families_of", "known_languages", "normalise", "tiers"]

Tier = Literal["high", "middle", "low"]

# Written in more than one script in public corpora, so the script is always part of the tag.
SCRIPT_ALWAYS = frozenset({"sr", "zh"})

# `pt` is European Portuguese in public catalogues although CLDR's likely region of `pt` is Brazil.
HOME_REGION = {"pt": "PT"}

# Codes of the variety that a macrolanguage's own tag stands for in public corpora (ISO 639-3, as FLORES writes them).
# The rest of langcodes' list is not followed: it would merge Twi with Akan, or Western Punjabi with Lahnda.
STANDARD_OF = {
    "als": "sq",
    "arb": "ar",
    "ayr": "ay",
    "azj": "az",
    "cmn": "zh",
    "dik": "din",
    "ekk": "et",
    "gaz": "om",
    "gug": "gn",
    "ike": "iu",
    "khk": "mn",
    "kmr": "ku",
    "knc": "kr",
    "kng": "kg",
    "knn": "kok",
    "kpv": "kv",
    "lvs": "lv",
    "npi": "ne",
    "ory": "or",
    "pbu": "ps",
    "pes": "fa",
    "plt": "mg",
    "rmy": "rom",
    "swh": "sw",
    "uzn": "uz",
    "ydd": "yi",
    "zsm": "ms",
}

# ISO 639's codes for several, undetermined, uncoded languages and for no linguistic content; langcodes' None for `und`.
NO_LANGUAGE = frozenset({None, "und", "mul", "mis", "zxx"})

# gettext's `language@modifier`: what the modifier says in BCP 47.
# A script's own code and registered variants (`be@tarask`) need no entry; `@euro` speaks of money, not of language.
MODIFIERS = {
    "latin": "Latn",
    "cyrillic": "Cyrl",
    "arabic": "Arab",
    "devanagari": "Deva",
    "shaw": "Shaw",
    "ijekavian": "ijekavsk",
    "ijekavianlatin": "Latn-ijekavsk",
    "valencia": "valencia",
    "euro": "",
}

# The rule that turns a class of Joshi et al. into a tier; fixed before measuring.
TIER_OF_CLASS: Mapping[int, Tier] = MappingProxyType({0: "low", 1: "low", 2: "low", 3: "middle", 4: "high", 5: "high"})
EXPOSURE_SOURCE = "training bytes given for this model family; tier by thirds of the logarithmic range"


@dataclass(frozen=True, kw_only=True, slots=True)
class Language(Row):
    """What is known about a language. Every field but `tag` and `sources` has an entry in `sources`.

    `script`: ISO 15924. `family`, `branch`: Glottolog names. `resource_class`: 0 (least) to 5, Joshi et al. 2020.
    `tier`: high (class 4, 5), middle (3), low (0 to 2), or by exposure where that is given. `exposure_bytes`: training
    bytes where they are known exactly. A field that is None has the reason in `sources` instead of a source.
    """

    tag: str
    name: str
    script: str | None
    family: str | None
    branch: str | None
    resource_class: int | None
    tier: Tier | None
    exposure_bytes: int | None
    sources: Mapping[str, str]


def normalise(tag: str) -> str:
    """Return the shortest standard BCP-47 tag of `tag`, which may be written with `_`, `@modifier` or `.charset`.

    The script is kept where it is not the usual one of the language (`uz-Cyrl`), and always present where public
    corpora have several (`sr-Cyrl`, `sr-Latn`, `zh-Hans`, `zh-Hant`). The region is kept where it is not the usual one
    (`es-AR`, `pt-BR`; `de_DE` is `de`). Raises `CorpusError` for what is not a language tag.
    """
    return _normalised(tag)


@lru_cache(maxsize=4096)
def _normalised(tag: str) -> str:
    standard = _standard(tag)
    primary = STANDARD_OF.get(standard.language or "", standard.language or "")
    script, region = standard.script, standard.territory
    if primary in SCRIPT_ALWAYS:
        script = script or _likely(primary, None, region)[0]
    elif script == _likely(primary, None, region)[0]:
        script = None
    if region == HOME_REGION.get(primary, _likely(primary, script, None)[1]):
        region = None
    parts = [primary, script, region, *(standard.variants or [])]
    return "-".join(part for part in parts if part)


def _standard(tag: str) -> langcodes.Language:
    """Parse `tag` with langcodes, or raise `CorpusError` naming it."""
    import langcodes

    text, _, modifier = tag.strip().partition("@")
    text, modifier = text.partition(".")[0], modifier.partition(".")[0]  # glibc and X write the charset on either side
    subtags = [part for part in re.split("[-_]", text) if part]
    if modifier:
        extra = _subtags_of(modifier)
        if extra is None:
            raise CorpusError(f"{tag!r} has the unknown modifier @{modifier}; known are @{', @'.join(MODIFIERS)}")
        scripts = [part for part in extra if part.istitle()]
        subtags = [*subtags[:1], *scripts, *subtags[1:], *(part for part in extra if part not in scripts)]
    joined = "-".join(subtags)
    if not subtags or not langcodes.tag_is_valid(joined):
        raise CorpusError(
            f"{tag!r} is not a language tag. Use BCP 47, such as de, sr-Latn, zh-Hans or pt-BR; "
            "deu_Latn and pt_BR are understood too."
        )
    standard = langcodes.Language.get(langcodes.standardize_tag(joined))
    if standard.language in NO_LANGUAGE:
        raise CorpusError(f"{tag!r} names no language; use a tag such as de, sr-Latn or zh-Hans")
    return standard


def _subtags_of(modifier: str) -> list[str] | None:
    """Return what gettext's `modifier` says as BCP-47 subtags, or None where that is not known."""
    import langcodes

    lower = modifier.lower()
    if lower in MODIFIERS:
        return [part for part in MODIFIERS[lower].split("-") if part]
    subtag = lower.title() if len(lower) == 4 else lower
    known = len(lower) >= 4 and lower.isalnum() and lower.isascii() and langcodes.tag_is_valid(f"und-{subtag}")
    return [subtag] if known else None


@lru_cache(maxsize=4096)
def _likely(primary: str, script: str | None, region: str | None) -> tuple[str | None, str | None]:
    """Return CLDR's likely (script, region), or None for what CLDR does not say.

    langcodes falls back to English (`Latn`, `US`) for languages CLDR does not list, hence the look into the table.
    """
    import langcodes
    from langcodes.data_dicts import LIKELY_SUBTAGS

    for key in (f"{primary}-{region}" if region else "", f"{primary}-{script}" if script else "", primary):
        if key in LIKELY_SUBTAGS:
            likely = langcodes.Language.get(LIKELY_SUBTAGS[key], normalize=False)
            return likely.script, likely.territory
    return None, None


@cache
def _table() -> Mapping[str, Any]:
    text = files("evenbits.text").joinpath("languages.toml").read_text(encoding="utf-8")
    return MappingProxyType(tomllib.loads(text))


def known_languages() -> tuple[str, ...]:
    """Return the primary language subtags the table has a row for, sorted."""
    return tuple(sorted(_table()["languages"]))


def describe(tag: str, *, exposure: Mapping[str, int] | None = None) -> Language:
    """Return what is known about the language of `tag` (any spelling `normalise` understands).

    `exposure` gives training bytes by language for a model family where they are known exactly; it then decides the
    tier instead of the public proxy: on a logarithmic scale from the least to the most trained language (those with 0
    bytes aside), the lowest third is `low`, the highest `high`, the rest `middle`; 0 bytes is `low`; where all have
    the same within a tenth, all are `middle`. Raises `CorpusError` for an invalid tag.
    """
    public = _described(normalise(tag))
    if exposure is None:
        return public
    sources = dict(public.sources)
    tier, bytes_seen = _tier(public.tag, exposure, sources)
    return replace(public, tier=tier, exposure_bytes=bytes_seen, sources=sources)


@lru_cache(maxsize=4096)
def _described(standard: str) -> Language:
    """Return what is publicly known of the language of a tag in its standard spelling."""
    import langcodes

    parsed = langcodes.Language.get(standard)
    primary = parsed.language or standard
    table = _table()
    row = table["languages"].get(primary)
    cited = table["sources"]
    sources = {"name": "CLDR, through langcodes"}
    script = parsed.script or _likely(primary, None, parsed.territory)[0]
    sources["script"] = "part of the tag" if parsed.script else "CLDR likely subtags"
    if script is None:
        sources["script"] = (
            f"unknown: CLDR lists no usual script for {primary}; write it in the tag, as in {primary}-Latn"
        )
    values: dict[str, Any] = {"family": None, "branch": None, "class": None} | dict(row or {})
    absent = f"unknown: {primary} is not in the table of languages"
    for field in ("family", "branch"):
        missing = absent if row is None else "the family has no usual branch above this language"
        sources[field] = missing if values[field] is None else cited["family"]
    sources["resource_class"] = cited["class"]
    if values["class"] is None:
        why = values.get("class_unknown", f"{primary} is not in the list of {cited['class']}")
        sources["resource_class"] = absent if row is None else f"unknown: {why}"
    sources["exposure_bytes"], sources["tier"] = "unknown: no exposure was given", "unknown: no resource class"
    if values["class"] is not None:
        sources["tier"] = f"{sources['resource_class']}; classes 4 and 5 high, 3 middle, 0 to 2 low"
    return Language(
        tag=standard,
        name=parsed.display_name(),
        script=script,
        family=values["family"],
        branch=values["branch"],
        resource_class=values["class"],
        tier=None if values["class"] is None else TIER_OF_CLASS[values["class"]],
        exposure_bytes=None,
        sources=sources,
    )


def families_of(languages: Iterable[str]) -> dict[str, str]:
    """Return the family of each language, its own tag where none is known: it then moves with no other."""
    families = {}
    for tag in languages:
        try:
            families[tag] = describe(tag).family or tag
        except CorpusError:  # a folder may name languages as it likes
            families[tag] = tag
    return families


def _tier(tag: str, exposure: Mapping[str, int], sources: dict[str, str]) -> tuple[Tier | None, int | None]:
    """Return tier and training bytes, and enter their sources."""
    amounts = {normalise(key): amount for key, amount in exposure.items()}
    negative = [key for key, amount in amounts.items() if amount < 0]
    if negative:
        raise CorpusError(f"exposure of {', '.join(sorted(negative))} is negative; give training bytes, 0 or more")
    amount = amounts.get(tag)
    sources["exposure_bytes"] = sources["tier"] = EXPOSURE_SOURCE
    if amount is None:
        sources["exposure_bytes"] = sources["tier"] = f"unknown: the exposure given has no entry for {tag}"
        return None, None
    return _third(amount, [value for value in amounts.values() if value > 0]), amount


def _third(amount: int, amounts: list[int]) -> Tier:
    """Return the third of the logarithmic range of `amounts` that `amount` falls in."""
    if amount == 0:
        return "low"
    low, high = min(amounts), max(amounts)
    if high * 10 <= low * 11:  # texts end at paragraphs: amounts within a tenth of each other are meant to be equal
        return "middle"
    # Whole numbers instead of logarithms, so that an amount exactly on a limit counts as reaching it.
    return "low" if amount**3 <= low**2 * high else "high" if amount**3 >= low * high**2 else "middle"


def tiers(languages: Sequence[str], *, exposure: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return `low` or `high` for the languages whose resource level is known and not in between."""
    levels = {tag: describe(tag, exposure=exposure).tier for tag in languages}
    return {tag: level for tag, level in levels.items() if level in {"low", "high"}}
