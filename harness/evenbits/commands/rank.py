"""`evenbits rank`: which of several models is the best candidate for quantization, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.console import console, say, say_json, say_left_out
from evenbits.commands.options import (
    MEASURING,
    AsJson,
    JustCost,
    configured,
    interval,
    models_of,
    one_spec,
    subject_of,
    text_of,
)
from evenbits.errors import UsageError
from evenbits.numbers import counted
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.statistics import Outcome
    from evenbits.studies.h035 import CalibratedModel
    from evenbits.studies.h037 import Candidate, Ranking
    from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["rank", "ranked"]


@configured("spec", *MEASURING, argument="models")
def rank(
    settings: Settings,
    *,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="measure damage, or rank by the weights alone"),
    ] = True,
    just_cost: JustCost = False,
    as_json: AsJson = False,
) -> None:
    """Order models as candidates for quantization, with the reasons; those that cannot be told apart share a rank.

    All are measured on the same languages, also of a folder of one's own text: those that any was trained on, where
    all say so. --languages all takes the others, too. What is left out is said.
    """
    if just_cost:
        _say_cost(settings, measure=measure, as_json=as_json)
        return
    ranking, worth, text = ranked(settings, measure=measure)
    spec = str(one_spec(settings, "a ranking of candidates").base)
    if as_json:
        found = {
            "by": ranking.by,
            "spec": spec,
            "corpus": about(text),
            "ranking": [one.to_json() for one in ranking.models],
            "worth_of_weights": worth.to_json(),
        }
        say_json(found)
        return
    _show(ranking, spec, text)
    say(_worth(worth, of="these models" if measure else "the reference family, as shipped", measured=measure))


def _say_cost(settings: Settings, *, measure: bool, as_json: bool) -> None:
    from evenbits.commands.cost import say_cost
    from evenbits.studies.h037.wants import model_points
    from evenbits.studies.study import Inputs, Wants

    spec = _bare(settings)
    subjects = [subject_of(settings, name) for name in models_of(settings)]
    if not measure:  # what that is worth is known of the reference family, whose weights are read, too
        subjects += [subject_of(settings, one.text) for one in _family() if str(spec.base) in one.excess_bits]
        say_cost([(subject, [Wants(weighed=subject)], None) for subject in subjects], as_json=as_json)
        return
    text = text_of(settings, subjects)
    wanted = [(one, [model_points(Inputs(subject=one, spec=spec, corpus=text, probe=text))], text) for one in subjects]
    say_cost(wanted, as_json=as_json)


def _bare(settings: Settings) -> QuantSpec:
    """Return the one quantization that models are ranked by."""
    wanted = one_spec(settings, "a ranking of candidates")
    if wanted.grid is None:
        raise UsageError(f"--spec {wanted}: name one quantization, such as int4-g64")
    return wanted


def ranked(settings: Settings, *, measure: bool, given: Corpus | None = None) -> tuple[Ranking, Outcome, Corpus | None]:
    """Return the ranking, what one by weights alone is worth, and the text that models were measured on, if any."""
    import numpy as np

    from evenbits.studies.h037 import rank_models, weigh_candidate, worth_of_weights

    wanted, seed = _bare(settings), settings.seed
    subjects = [subject_of(settings, name) for name in models_of(settings)]
    if not measure:
        ranking = rank_models([weigh_candidate(one) for one in subjects], rng=np.random.default_rng(seed))
        return ranking, _worth_for_family(settings, wanted), None
    text = text_of(settings, subjects, given)
    say_left_out(text)
    candidates = _measured(subjects, wanted, text)
    ranking = rank_models(candidates, rng=np.random.default_rng(seed))
    return ranking, worth_of_weights(candidates, rng=np.random.default_rng(seed)), text


def _worth_for_family(settings: Settings, spec: QuantSpec) -> Outcome:
    """Return what an order by weights is worth on the reference models, whose damage comes with evenbits."""
    import numpy as np

    from evenbits.statistics import Outcome
    from evenbits.studies.h037 import weigh_candidate, worth_of_weights

    text = str(spec.base)
    family = _family()
    known = {one.text: float(np.mean(one.excess_bits[text])) for one in family if text in one.excess_bits}
    if not known:
        under = f"was measured under {', '.join(family[0].excess_bits)} alone" if family else "is not installed"
        return Outcome.undefined(f"the reference family {under}")
    weighed = [weigh_candidate(subject_of(settings, one.text), run=one.run) for one in family]
    return worth_of_weights(weighed, known=known, rng=np.random.default_rng(settings.seed))


def _family() -> list[CalibratedModel]:
    """Return the reference models that are installed, with the damage that `diagnose` is calibrated on."""
    from evenbits.models.shipped import reference_names, reference_root
    from evenbits.studies.h035 import load_calibration

    installed = {f"reference:{name}" for name in reference_names(reference_root())}
    return [one for one in load_calibration(None).models if one.text in installed]


def about(text: Corpus | None) -> dict[str, Any] | None:
    """Return what models were measured on and what of it was left out, as plain JSON types."""
    if text is None:
        return None
    return {
        "text": text.name,
        "digest": text.digest,
        "languages": list(text.languages),
        "segments": len(text),
        "left_out": [one.to_json() for one in text.left_out],
    }


def _measured(subjects: Sequence[Subject], spec: QuantSpec, text: Corpus) -> list[Candidate]:
    """Measure one model after the other; each gives its memory back before the next one is loaded."""
    from evenbits.observe.runs import origin_of, training_runs
    from evenbits.studies.h037 import measure_candidate

    runs = training_runs({subject.local.text: origin_of(subject.weight_statistics()) for subject in subjects})
    found = []
    for subject in subjects:
        found.append(measure_candidate(subject, spec, text, run=runs[subject.local.text]))
        subject.release()
    return found


def _show(ranking: Ranking, spec: str, text: Corpus | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    measured = text is not None
    intervals = any(one.damage.low is not None for one in ranking.models)
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"candidates for {spec}, by {'measured damage' if measured else 'their weights alone'}",
        caption="models of one kurtosis class share a rank; nothing was quantized"
        if text is None
        else f"{text.name}: {len(text.languages)} languages, {counted(len(text), 'segment')}; "
        f"{'95 % intervals over both; ' if intervals else ''}models that cannot be told apart share a rank",
    )
    shown.add_column("", justify="right")
    shown.add_column("model")
    for name in ("excess bits", "recovered %") if measured else ():
        shown.add_column(name, justify="right", no_wrap=True)
    for one in ranking.models:
        numbers = [interval(one.damage.to_json()), interval(one.recovered.to_json(), scale=100)] if measured else []
        shown.add_row(str(one.rank), one.candidate.model, *numbers)
    console().print(shown)
    for name, estimates in (("excess bits", "damage"), ("recovered %", "recovered")) if measured else ():
        for one in ranking.models:
            found = getattr(one, estimates)
            if found.low is None:
                say(f"{one.candidate.model}  {name}{' undefined' * (found.value is None)}: {found.reason}")
    for one in ranking.models:  # below the table, whose last column would be a tower of words
        say(f"{one.candidate.model}  {'; '.join(one.reasons[1:] if measured else one.reasons)}")


def _worth(worth: Outcome, *, of: str, measured: bool) -> str:
    """Return what a ranking by weights is worth, in a sentence."""
    estimate = worth.estimate
    if estimate.value is None:
        instead = "" if measured else " Use --measure."
        return f"What a ranking by weights would be worth is not known: {estimate.reason}.{instead}"
    bounds = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    p = "" if worth.p_value is None else f", one-sided p {worth.p_value:.2g}"
    told = worth.p_value is not None and worth.p_value < 0.05
    return (
        f"Largest kurtosis against damage over {estimate.n} training runs of {of}: rho {estimate.value:.2f}{bounds}{p}."
        f" Weights alone {'tell something about the order' if told else 'do not tell the order: --measure'}."
    )
