"""`evenbits protect`: what to keep in high precision under a budget of bits, measured beside rules of thumb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.console import console, say, say_json, say_left_out
from evenbits.commands.options import (
    MEASURING,
    AsJson,
    JustCost,
    configured,
    interval,
    model_of,
    note,
    one_spec,
    subject_of,
    text_of,
)
from evenbits.errors import UsageError
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.models.records import LocalModel
    from evenbits.records import Corpus
    from evenbits.studies.h036 import ProtectionStudy
    from evenbits.studies.h036.study import Kind
    from evenbits.studies.study import Inputs
    from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["protect", "protected"]


@configured("spec", *MEASURING, argument="model")
def protect(
    settings: Settings,
    *,
    budget: Annotated[str, typer.Option("--budget", help="extra bits per weight that may be spent, such as 0.25bpw")],
    unit: Annotated[
        str, typer.Option("--unit", help="what is protected: layer, part (attention or MLP), module, or auto")
    ] = "auto",
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Choose what to keep in high precision under a budget of bits, and measure it beside the usual rules of thumb."""
    from evenbits.variants.recipes import shell

    extra = _budget(budget)
    if just_cost:
        _say_cost(settings, extra, unit, as_json=as_json)
        return
    measured, found = protected(settings, extra, unit)
    if as_json:
        say_json(found)
        return
    _show_plans(measured, found["plans"])
    recipe = found["recipe"]
    say(found["depth"]["sentence"])
    for row in found["plans"]:
        if row["gap_family"] and row["spec"] in {measured.spec, recipe["spec"]}:
            say(f"gap with {row['name']}: {row['gap_family']}")
    say(f"recipe  {recipe['spec']}  (+{recipe['extra_bits_per_weight']:.3g} bits per weight)")
    if found["plan"] is not None and found["plan"] != recipe["spec"]:
        say(f"where the format is to stay  {found['plan']}")
    for line in shell(found["exports"]) if found["exports"] else ():
        say(line)


def protected(
    settings: Settings, extra: float, unit: str = "auto", given: Corpus | None = None
) -> tuple[ProtectionStudy, dict[str, Any]]:
    """Return plans under a budget of `extra` bits per weight, measured, and what `--json` says of them."""
    import numpy as np

    from evenbits.studies import h036

    asked, whole, kind = _asked(settings, extra, unit, given)
    subject = asked.subject
    study = h036.study_layers(subject, whole, asked.probe, tier=asked.tier, kind=kind)
    kurtosis = h036.unit_kurtosis(study.units, subject.weight_statistics())
    rng = np.random.default_rng(settings.seed)
    measured = h036.study_protection(subject, study, asked.corpus, budget=extra, kurtosis=kurtosis, rng=rng)
    recipe = h036.protection_recipe(measured, dear=extra)  # what was asked for is not too dear
    plan = h036.best_plan(measured)
    return measured, {
        "plans": h036.protection_table(measured, rng=rng),
        "recipe": recipe,
        "plan": None if plan is None else plan.spec,
        "exports": None if plan is None else _exported(subject.local, plan.spec),
        "depth": h036.where_damage_lies(study).to_json(),
        "layer_language": h036.layer_language(study),
    }


def _asked(settings: Settings, extra: float, unit: str, given: Corpus | None = None) -> tuple[Inputs, QuantSpec, Kind]:
    """Return model and text, the spec on the whole model and the kind of unit that is protected, all checked."""
    from evenbits.studies import h036
    from evenbits.studies.study import Inputs
    from evenbits.text import split
    from evenbits.text.languages import tiers

    whole = h036.whole_model(one_spec(settings, "a choice of layers"))
    named = next((kind for kind in h036.KINDS if kind == unit), None)
    if named is None and unit != "auto":
        raise UsageError(f"--unit {unit}: one of auto, {', '.join(h036.KINDS)}")
    subject = subject_of(settings, model_of(settings))
    text = text_of(settings, [subject], given)
    say_left_out(text)
    kind = named or h036.kind_for(h036.sizes_of(subject), whole, extra)
    probe, rest = split(text, seed=settings.seed)
    subject.probe = probe
    note(f"units of protection: {kind}s; chosen on {len(probe)} segments, measured on the other {len(rest)}")
    tier = tiers(text.languages, exposure=subject.local.exposure)
    return Inputs(subject=subject, spec=whole, corpus=rest, probe=probe, tier=tier, seed=settings.seed), whole, kind


def _say_cost(settings: Settings, extra: float, unit: str, *, as_json: bool) -> None:
    from evenbits.commands.cost import say_cost
    from evenbits.studies.h036.wants import layer_study, protection

    asked, _, kind = _asked(settings, extra, unit)
    wants = [layer_study(asked, kind=kind), protection(asked, kind=kind, budget=extra)]
    say_cost([(asked.subject, wants, asked.corpus)], as_json=as_json)


def _exported(local: LocalModel, spec: str) -> dict[str, Any] | None:
    """Return what the best plan is in the words of other tools; None where it protects nothing."""
    from evenbits.models.outline import outline_anatomy
    from evenbits.variants.quantization.spec import parse_spec
    from evenbits.variants.recipes import recipes

    protect = parse_spec(spec).protect
    return recipes(outline_anatomy(local.folder, allow_code=local.allow_code), protect) if protect else None


def _budget(text: str) -> float:
    """Return the extra bits per weight in `0.25bpw` or `0.25`."""
    try:
        value = float(text.strip().lower().removesuffix("bpw"))
    except ValueError:
        raise UsageError(f"--budget {text!r}: write extra bits per weight, such as 0.25bpw") from None
    if not 0 < value < 16:
        raise UsageError(f"--budget {text}: extra bits per weight are above 0 and below 16")
    return value


def _show_plans(measured: ProtectionStudy, rows: list[dict[str, Any]]) -> None:
    """Print the measured plans and comparators, those beyond the budget marked."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{measured.model}  {measured.spec}  up to {measured.budget:.3g} extra bits per weight",
        caption="excess bits per segment with 95 % intervals; gap: low-resource minus high-resource languages"
        + ("; * dearer than the budget" if not all(row["within_budget"] for row in rows) else ""),
    )
    shown.add_column("spent on", no_wrap=True)
    for name in ("extra bits", "worst language", "mean", "gap"):
        shown.add_column(name, justify="right")  # on a narrow terminal the interval goes to a second line
    rows = _distinct(rows)
    for row in rows:
        shown.add_row(
            row["name"],
            f"{row['extra_bits_per_weight']:+.2f}" + ("" if row["within_budget"] else "*"),
            f"{row['worst_language']} {interval(row['worst'])}",
            interval(row["mean"]),
            interval(row["gap"]),
        )
    shown_on = console()
    shown_on.print(shown)
    for name in ("worst", "mean", "gap"):
        for reason in dict.fromkeys(row[name]["reason"] for row in rows if row[name]["value"] is None):
            shown_on.print(f"{name} is undefined: {reason}")
    for row in rows:
        what = " ".join(row["protects"]) or (row["spec"] if row["name"] == "uniform" else "")
        if what:
            shown_on.print(f"{row['name']:<{max(len(one['name']) for one in rows)}}  {what}")


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with those that are the same change of the model as one, under all of its names."""
    by_spec: dict[str, dict[str, Any]] = {}
    for row in rows:
        same = by_spec.get(row["spec"])
        by_spec[row["spec"]] = row if same is None else {**same, "name": f"{same['name']} = {row['name']}"}
    return list(by_spec.values())
