"""Reports of shards joined into the report of an unsharded run, equal to it apart from `timing` and `environment`.

Shards by `--shard` divide the gate's languages, shards by model or spec divide a run's models or specs. Rows are never
averaged: equal ones become one, contradicting ones refuse the merge. What needs all languages at once, disparity and
the comparison with a baseline, is decided here from the joined damage rows; what needs all models at once from the
joined records of each; both by the functions that a run uses. Rows of other people's tests over all models, of which
there are no records, are marked as not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from evenbits.errors import ReportError
from evenbits.estimates import Estimate, Measurement, Verdict
from evenbits.report.contributions import Contributions
from evenbits.report.document import asked, build
from evenbits.report.redecided import Redecided, ended_early, redecide
from evenbits.report.regated import checked_baseline, over_all_languages
from evenbits.report.sections import sections_of
from evenbits.studies.gate.decision import LANGUAGE_TEST
from evenbits.studies.gate.policy import Policy

__all__ = ["merge"]

Document = Mapping[str, Any]
Key = tuple[str, str, str, str | None, str | None]


def merge(documents: Mapping[str, Document], *, today: date, baseline: Document | None = None) -> dict[str, Any]:
    """Join report documents, given by a name for messages, in the order in which models and specs were asked for.

    `baseline`: the report that the shards' runs named with --baseline, needed where they did. `today`: the day on
    which waivers must hold. `ReportError` where the documents are not parts of one run, contradict each other, or a
    part is missing.
    """
    if not documents:
        raise ReportError("there is nothing to merge: name the reports of the shards.")
    _refuse_other_runs(documents)
    sharded = _refuse_missing_shards(documents)
    first = next(iter(documents.values()))
    over_models = redecide(documents, models=_asked(documents, "models"), seed=first["environment"]["seed"])
    contributions = _contributions(documents, over_models)
    rows = [*_measurements(documents, over_models), *over_models.rows]
    policy_input, baseline_input = first["inputs"].get("policy"), first["inputs"].get("baseline")
    policy = None if policy_input is None else Policy.parse(policy_input["content"], source="the policy in the report")
    if sharded:
        damage = contributions.entries("damage")
        checked = checked_baseline(baseline, baseline_input, first)
        rows += over_all_languages(documents, damage, rows, policy=policy, baseline=checked, today=today)
    merged = build(
        measurements=rows,
        contributions=contributions,
        inputs={
            "models": _asked(documents, "models"),
            "corpus": first["inputs"]["corpus"]["text"],
            "specs": _asked(documents, "specs"),
        },
        environment=_environment(documents),
        timing=_timing(documents),
    )
    _refuse_missing_rows(merged, policy)
    return merged


def _refuse_other_runs(documents: Mapping[str, Document]) -> None:
    """Raise `ReportError` unless all documents measured the same text, with the same seed, policy and baseline."""
    name, first = next(iter(documents.items()))
    for other, document in documents.items():
        mine, its = first["inputs"]["corpus"], document["inputs"]["corpus"]
        if mine["digest"] != its["digest"]:
            raise ReportError(
                f"{name} and {other} measured different text. Which segments are used depends on the languages: give "
                "every shard the same --corpus, --languages and --segments, and divide the languages by --shard I/N."
            )
        for key in ("policy", "baseline"):
            if first["inputs"].get(key) != document["inputs"].get(key):
                raise ReportError(
                    f"{name} and {other} were decided by a different {key}; run the shards with the same."
                )
        for key in ("seed", "dtype"):
            if first["environment"][key] != document["environment"][key]:
                raise ReportError(
                    f"{name} ran with {key} {first['environment'][key]} and {other} with "
                    f"{document['environment'][key]}; run the shards alike."
                )
        differing = sorted(key for key in {*mine, *its} if mine.get(key) != its.get(key))
        if differing:
            raise ReportError(f"{name} and {other} say different things of the corpus: {', '.join(differing)}.")


def _refuse_missing_shards(documents: Mapping[str, Document]) -> bool:
    """Return whether the documents are parts by language; `ReportError` where such a part is missing."""
    parts: dict[tuple[str, ...], dict[str, Mapping[str, int] | None]] = {}
    for name, document in documents.items():
        group = (*asked(document, "models"), *asked(document, "specs"))
        parts.setdefault(group, {})[name] = document["inputs"].get("shard")
    for group, shards in parts.items():
        known = [shard for shard in shards.values() if shard is not None]
        if not known:
            continue
        counts = sorted({shard["count"] for shard in known})
        if len(known) < len(shards) or len(counts) > 1:
            raise ReportError(
                f"{', '.join(shards)} divide the languages differently; merge the shards of one division."
            )
        missing = sorted(set(range(1, counts[0] + 1)) - {shard["index"] for shard in known})
        if missing:
            lost = ", ".join(f"{index}/{counts[0]}" for index in missing)
            raise ReportError(
                f"the shards {lost} of {', '.join(group)} are missing; run them with --shard and merge all."
            )
    with_shard = [document for document in documents.values() if document["inputs"].get("shard") is not None]
    if with_shard and len(with_shard) < len(documents):
        raise ReportError("some of the reports are parts by --shard and some are not; merge reports of one division.")
    return bool(with_shard)


def _contributions(documents: Mapping[str, Document], over_models: Redecided) -> Contributions:
    joined = Contributions()
    for name, document in documents.items():
        inputs = document["inputs"]
        try:
            joined.add("damage", document["damage"])
            joined.add(
                "recipes", [one for one in document["recipes"] if one.get("kind") not in over_models.recipe_kinds]
            )
            for section in ("models", "specs"):
                joined.add(section, [_learned(entry) for entry in inputs[section] if entry["digest"] is not None])
            for section in ("corpus", "policy", "baseline"):
                if section in inputs:
                    joined.add(section, inputs[section])
        except ReportError as error:
            sentence = str(error).replace("two processes report", "it reports", 1).partition("; ")[0].rstrip(".")
            raise ReportError(
                f"{name} contradicts the reports before it: {sentence}. Measure that part again."
            ) from None
    joined.add("sections", _sections(documents))
    for section in ("recipes", "decisions", "records"):
        joined.add(section, getattr(over_models, section))
    return joined


def _learned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run learned of a model or spec, without whether it was asked for: shards may differ in that."""
    return {key: value for key, value in entry.items() if key != "asked"}


def _sections(documents: Mapping[str, Document]) -> list[dict[str, Any]]:
    """Return the sections that other plugins added: equal ones once, the rows of different ones one after the other."""
    found: dict[str, dict[str, Any]] = {}
    for name, document in documents.items():
        for section in sections_of(document):
            first = found.setdefault(section["title"], {**section, "rows": []})
            if any(first[key] != section[key] for key in ("text", "columns")):
                raise ReportError(
                    f"{name} has another text or other columns in the section {section['title']!r} than the reports "
                    "before it, so they cannot be joined."
                )
            first["rows"] += [row for row in section["rows"] if row not in first["rows"]]
    return list(found.values())


def _measurements(documents: Mapping[str, Document], over_models: Redecided) -> list[Measurement]:
    """Return the joined rows without those decided again; those of one test, model and spec come from one document."""
    found: dict[Key, dict[str, list[Measurement]]] = {}
    for name, document in documents.items():
        for entry in document["measurements"]:
            row = Measurement.from_json(entry)
            if row.model is None and (row.hypothesis, row.test, row.spec) in over_models.settled:
                continue
            key = (row.hypothesis, row.test, row.role, row.model, row.spec)
            found.setdefault(key, {}).setdefault(name, []).append(row)
    divided = len({frozenset(asked(document, "models")) for document in documents.values()}) > 1
    rows: list[Measurement] = []
    for by_document in found.values():
        versions = list(by_document.values())
        alike = all(version == versions[0] for version in versions)
        row = versions[0][0]
        early = next((version for version in versions if ended_early(version)), None)
        if row.model is None and row.role != "gate" and early is not None:
            rows += early  # it would have ended an unsharded run's test, too
        elif divided and row.model is None:
            rows.append(_unmerged(row, "models"))
        elif alike:
            rows += versions[0]
        elif row.spec is None and row.role != "gate":
            rows.append(_unmerged(row, "specs"))
        else:
            where = ", ".join(part for part in (row.test, row.model, row.spec) if part)
            raise ReportError(
                f"{' and '.join(by_document)} both have {where}, with different results; leave one of them out."
            )
    return rows


def _unmerged(row: Measurement, what: str) -> Measurement:
    reason = f"it needs all {what} in one run, and the shards have only some"
    return replace(
        row,
        verdict=Verdict.NOT_APPLICABLE,
        estimate=Estimate.undefined(reason),
        p_value=None,
        metric_sensitive=False,
        explanation=f"not_applicable: {row.test} is not in a merged report: {reason}.",
        summary=reason,
        action=f"run {row.test} with all {what} at once",
        also={},
        data={},
    )


def _refuse_missing_rows(merged: Document, policy: Policy | None) -> None:
    """Raise `ReportError` where a model and spec lacks a language: an unsharded run would have it."""
    languages = {entry["tag"] for entry in merged["inputs"]["corpus"].get("languages", [])}
    have: set[tuple[Any, ...]] = {(row["model"], row["spec"], row["language"]) for row in merged["damage"]}
    wanted = {(model, spec, tag) for model, spec, _ in have for tag in languages}
    lost = [" ".join(case) for case in sorted(wanted - have)]
    if policy is not None:
        gated = [row for row in merged["measurements"] if row["test"].startswith(f"{LANGUAGE_TEST}[")]
        decided = {(row["model"], row["spec"], row["test"]) for row in gated}
        models, specs = ({row[key] for row in gated} for key in ("model", "spec"))
        tests = {f"{LANGUAGE_TEST}[{tag}]" for tag in languages | policy.languages}
        failed = {(row["model"], row["spec"], row["test"]) for row in gated if row["verdict"] == "error"}
        lost = [case for case in lost if not _explained(case, failed)]
        grid = {(model, spec, test) for model in models for spec in specs for test in tests}
        lost += [" ".join(map(str, case)) for case in sorted(grid - decided)]
    if lost:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise ReportError(f"a part of the run is missing: {shown}. Merge the reports of all shards.")


def _explained(case: str, failed: Iterable[tuple[str, str, str]]) -> bool:
    """Whether a missing damage row belongs to a test that reports why it has none."""
    return any(case == f"{model} {spec} {test[len(LANGUAGE_TEST) + 1 : -1]}" for model, spec, test in failed)


def _asked(documents: Mapping[str, Document], section: str) -> list[str]:
    return list(dict.fromkeys(text for one in documents.values() for text in asked(one, section)))


def _environment(documents: Mapping[str, Document]) -> dict[str, Any]:
    """Return the first environment, with all of them under `merged` where they differ."""
    all_of_them = [dict(document["environment"]) for document in documents.values()]
    alike = all(one == all_of_them[0] for one in all_of_them)
    return all_of_them[0] if alike else {**all_of_them[0], "merged": all_of_them}


def _timing(documents: Mapping[str, Document]) -> dict[str, Any]:
    timings = [document["timing"] for document in documents.values()]
    tests: dict[str, float] = {}
    for timing in timings:
        for name, seconds in timing["tests"].items():
            tests[name] = tests.get(name, 0.0) + seconds
    started = [timing["started"] for timing in timings if "started" in timing]
    return {
        **({"started": min(started)} if started else {}),
        "seconds": sum(timing.get("seconds", 0.0) for timing in timings),
        "tests": dict(sorted(tests.items())),
    }
