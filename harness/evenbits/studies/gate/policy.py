"""The policy of a deployment gate: limits by metric, tier and language, and waivers. TOML, checked key by key.

A language's own limit wins over that of its tier, which wins over that of the metric. The same order decides what an
inconclusive result does, with the key `inconclusive` at the top of the file last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, cast

from evenbits.errors import CorpusError, EvenbitsError, PolicyError
from evenbits.foreign import read_toml
from evenbits.text.languages import normalise

__all__ = ["LANGUAGE_METRICS", "METRICS", "UNITS", "BaselineRule", "Limit", "Policy", "Waiver", "load_policy"]

Inconclusive = Literal["fail", "pass"]

UNITS: Mapping[str, str] = {
    "excess_bits": "mean bits per segment",
    "relative_increase": "share of the full-precision negative log-likelihood",
    "kl": "mean nats per token",
    "task_loss": "share of the answers to --tasks",
    "disparity": "low-resource minus high-resource languages, bits per segment",
    "disparity_ratio": "low-resource over high-resource languages",
}
METRICS = tuple(UNITS)
"""What a policy can limit. The first four are decided by language, disparity over all languages at once."""

LANGUAGE_METRICS = METRICS[:4]
TIERS = ("high", "middle", "low")
CHOICES: tuple[Inconclusive, ...] = ("fail", "pass")

TOP = ("inconclusive", "metric", "waiver", "baseline")
WAIVER_TEXTS = ("metric", "owner", "reason", "language", "model", "spec")
WAIVER = ("metric", "language", "model", "spec", "owner", "reason", "expires")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """The limit that applies to one case. `where`: the entry of the policy that sets it."""

    metric: str
    bound: float
    inconclusive: Inconclusive
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One table of the policy: a limit, what an inconclusive result does, or both."""

    limit: float | None = None
    inconclusive: Inconclusive | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRules:
    """The rules of one metric, those of tiers and of languages."""

    rule: Rule
    tiers: Mapping[str, Rule] = field(default_factory=dict)
    languages: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """A named person's permission to miss one limit until a date. None for `model` or `spec` covers every one.

    `language` is None for disparity. The waiver holds through the day `expires`, in UTC.
    """

    metric: str
    language: str | None
    model: str | None
    spec: str | None
    owner: str
    reason: str
    expires: date

    @property
    def case(self) -> tuple[str, str | None, str | None, str | None]:
        return self.metric, self.language, self.model, self.spec

    def covers(self, metric: str, language: str | None, model: str, spec: str) -> bool:
        return (self.metric, self.language) == (metric, language) and all(
            mine is None or mine == its for mine, its in ((self.model, model), (self.spec, spec))
        )

    def describe(self) -> str:
        """Return who waived what until when, and why, without a full stop."""
        return f"waived by {self.owner} until {self.expires.isoformat()}: {self.reason.rstrip('.')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineRule:
    """How much worse than the baseline a language may become: mean excess bits per segment, now minus baseline.

    `inconclusive` is `pass` by default: two runs on different machines differ by rounding, and only a difference that
    is shown should stop a pipeline.
    """

    limit: float = 0.0
    inconclusive: Inconclusive = "pass"


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A checked policy. `content`: the same as plain JSON types; `Policy.parse(content)` gives the policy back."""

    inconclusive: Inconclusive
    metrics: Mapping[str, MetricRules]
    waivers: tuple[Waiver, ...]
    baseline: BaselineRule
    content: Mapping[str, Any]

    @classmethod
    def parse(cls, content: object, *, source: str = "the policy") -> Policy:
        """Check `content`, a TOML document or its JSON form. `PolicyError` names the key and what is allowed there."""
        top = _table(content, source, "the top", TOP)
        metrics = _table(top.get("metric", {}), source, "metric", METRICS)
        if not metrics:
            raise PolicyError(
                f"{source} limits nothing: add a table such as [metric.excess_bits] with a `limit`; metrics are "
                f"{', '.join(METRICS)}."
            )
        waivers = top.get("waiver", [])
        if not isinstance(waivers, list):
            raise PolicyError(f"{source}: waiver must be a list of tables headed [[waiver]], not {waivers!r:.80}.")
        rules = {name: _metric(name, table, source) for name, table in metrics.items()}
        return cls(
            inconclusive=_choice(top, source, "inconclusive") or "fail",
            metrics=rules,
            waivers=_distinct([_waiver(one, place, source) for place, one in enumerate(waivers, start=1)], source),
            baseline=_baseline(top.get("baseline", {}), source),
            content=_plain(top),
        )

    @property
    def languages(self) -> frozenset[str]:
        """Languages that a limit or a waiver names: the gate needs a result for each."""
        limited = {tag for rules in self.metrics.values() for tag in rules.languages}
        return frozenset(limited | {waiver.language for waiver in self.waivers if waiver.language is not None})

    @property
    def overall(self) -> tuple[str, ...]:
        """Limited metrics that are decided over all languages at once."""
        return tuple(name for name in METRICS if name in self.metrics and name not in LANGUAGE_METRICS)

    def limit(self, metric: str, *, language: str | None = None, tier: str | None = None) -> Limit | None:
        """Return the limit of `metric` for a language of `tier`, None where the policy sets none."""
        rules = self.metrics.get(metric)
        if rules is None:
            return None
        name = f"metric.{metric}"
        chain = [
            (f"{name}.language.{language}", rules.languages.get(language or "")),
            (f"{name}.tier.{tier}", rules.tiers.get(tier or "")),
            (name, rules.rule),
        ]
        known = [(where, rule) for where, rule in chain if rule is not None]
        bounds = [(where, rule.limit) for where, rule in known if rule.limit is not None]
        if not bounds:
            return None
        choices = [rule.inconclusive for _, rule in known if rule.inconclusive is not None]
        return Limit(
            metric=metric,
            bound=float(bounds[0][1]),
            inconclusive=choices[0] if choices else self.inconclusive,
            where=bounds[0][0],
        )

    def waiver(self, metric: str, *, language: str | None, model: str, spec: str) -> Waiver | None:
        """Return the waiver that covers a case: of several, the one that names most of it, and is valid longest."""
        found = [one for one in self.waivers if one.covers(metric, language, model, spec)]
        return max(found, key=lambda one: (sum(part is not None for part in one.case), one.expires), default=None)


def load_policy(path: Path | str) -> Policy:
    """Read and check a policy file. `PolicyError` says in a sentence what is wrong, and at which key."""
    file = Path(path)
    hint = "`evenbits policy init REPORT` writes a policy."
    content = read_toml(file, error=lambda what: PolicyError(f"{what}. {hint}"))
    return Policy.parse(content, source=str(path))


def _table(value: object, source: str, where: str, allowed: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PolicyError(f"{source}: {where} must be a table, not {value!r:.80}.")
    for key in value:
        if key not in set(allowed):
            raise PolicyError(f"{source}: {where} has the unknown key {key!r}; allowed are {', '.join(allowed)}.")
    return value


def _metric(name: str, value: object, source: str) -> MetricRules:
    where = f"metric.{name}"
    by_language = name in LANGUAGE_METRICS
    table = _table(value, source, where, ("limit", "inconclusive", *(("tier", "language") if by_language else ())))
    tiers = _table(table.get("tier", {}), source, f"{where}.tier", TIERS)
    languages: dict[str, Rule] = {}
    named = table.get("language", {})
    if not isinstance(named, Mapping):
        raise PolicyError(f"{source}: {where}.language must be a table of language tags, not {named!r:.80}.")
    for text, entry in named.items():
        tag = _tag(text, source, f"{where}.language")
        if tag in languages:
            raise PolicyError(f"{source}: {where}.language names {tag} twice, the second time as {text!r}.")
        languages[tag] = _rule(entry, source, f"{where}.language.{' '.join(text.split())}")
    rules = MetricRules(
        rule=_rule({key: table[key] for key in ("limit", "inconclusive") if key in table}, source, where),
        tiers={tier: _rule(entry, source, f"{where}.tier.{tier}") for tier, entry in tiers.items()},
        languages=languages,
    )
    if all(rule.limit is None for rule in (rules.rule, *rules.tiers.values(), *languages.values())):
        raise PolicyError(f"{source}: {where} sets no limit; give it `limit`, in {UNITS[name]}.")
    return rules


def _rule(value: object, source: str, where: str) -> Rule:
    table = _table(value, source, where, ("limit", "inconclusive"))
    return Rule(
        limit=_number(table["limit"], source, f"{where}.limit", above=True) if "limit" in table else None,
        inconclusive=_choice(table, source, f"{where}.inconclusive"),
    )


def _baseline(value: object, source: str) -> BaselineRule:
    table = _table(value, source, "baseline", ("limit", "inconclusive"))
    return BaselineRule(
        limit=_number(table.get("limit", 0.0), source, "baseline.limit", above=False),
        inconclusive=_choice(table, source, "baseline.inconclusive") or "pass",
    )


def _waiver(value: object, place: int, source: str) -> Waiver:
    where = f"waiver {place}"
    table = _table(value, source, where, WAIVER)
    needed = ["metric", "owner", "reason", "expires"]
    needed += ["language"] if table.get("metric") in LANGUAGE_METRICS else []
    for key in needed:
        if key not in table:
            raise PolicyError(f"{source}: {where} lacks `{key}`; a waiver needs {', '.join(needed)}.")
    for key in WAIVER_TEXTS:
        if key in table and not (isinstance(table[key], str) and table[key].strip()):
            raise PolicyError(f"{source}: {key} of {where} must be text, not {table[key]!r:.80}.")
    if table["metric"] not in METRICS:
        raise PolicyError(f"{source}: metric of {where} is {table['metric']!r}; allowed are {', '.join(METRICS)}.")
    if table["metric"] not in LANGUAGE_METRICS and "language" in table:
        raise PolicyError(f"{source}: {where} names a language, but {table['metric']} is taken over all of them.")
    return Waiver(
        metric=table["metric"],
        language=_tag(table["language"], source, f"language of {where}") if "language" in table else None,
        model=table.get("model"),
        spec=_spec(table["spec"], source, f"spec of {where}") if "spec" in table else None,
        owner=table["owner"],
        reason=table["reason"],
        expires=_date(table["expires"], source, f"expires of {where}"),
    )


def _spec(text: str, source: str, where: str) -> str:
    """Return a spec in the form that reports have: one that is none would never cover anything."""
    from evenbits.variants.registry import parse

    try:
        return str(parse(text))
    except EvenbitsError as error:
        raise PolicyError(f"{source}: {where} is no spec: {error}") from None


def _distinct(waivers: list[Waiver], source: str) -> tuple[Waiver, ...]:
    seen: dict[object, int] = {}
    for place, one in enumerate(waivers, start=1):
        first = seen.setdefault(one.case, place)
        if first != place:
            raise PolicyError(f"{source}: waiver {place} covers the same case as waiver {first}; keep one of them.")
    return tuple(waivers)


def _date(value: object, source: str, where: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and len(value) == len("2027-01-31"):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PolicyError(f"{source}: {where} must be a date such as 2027-01-31, not {str(value)!r:.80}.")


def _number(value: object, source: str, where: str, *, above: bool) -> float:
    least = "above 0" if above else "0 or more"
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # TOML's whole numbers have no end
            number = float(value)
            if math.isfinite(number) and (number > 0 or (number == 0 and not above)):
                return number
    raise PolicyError(f"{source}: {where} must be a number {least}, not {value!r:.80}.")


def _choice(table: Mapping[str, Any], source: str, where: str) -> Inconclusive | None:
    if "inconclusive" not in table:
        return None
    if table["inconclusive"] not in CHOICES:
        raise PolicyError(f'{source}: {where} must be "fail" or "pass", not {table["inconclusive"]!r:.80}.')
    return cast("Inconclusive", table["inconclusive"])


def _tag(text: str, source: str, where: str) -> str:
    try:
        return normalise(text)
    except CorpusError:
        raise PolicyError(f"{source}: {where} names {text!r}, which is no language tag, such as sw.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
