"""evenbits as a library: what the commands do, as functions that return tables.

`evenbits.damage`, `diagnose`, `protect`, `rank`, `plan`, `load_corpus`, `parse_spec` and `open_report` are these.
Importing is light: torch and transformers are imported when something is measured. Options are those of the commands,
with their defaults; `[tool.evenbits]` does not count here, so that a notebook gives the same wherever it is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from evenbits.errors import UsageError
from evenbits.records import Corpus

if TYPE_CHECKING:
    from evenbits.report.table import Table
    from evenbits.settings import Settings
    from evenbits.variants.registry import Spec

__all__ = [
    "Options",
    "Report",
    "damage",
    "diagnose",
    "load_corpus",
    "open_report",
    "parse_spec",
    "plan",
    "protect",
    "rank",
]


class Options(TypedDict, total=False):
    """Options of whatever runs text through a model, as after `--NAME` (`evenbits damage --help` explains them).

    `corpus`: a name such as `gettext` or `dir:PATH`, or a `Corpus`, which is taken as it is.
    `languages`: tags, how many, or `all`. `store`: folder of measurements, by default the user's cache.
    """

    corpus: str | Corpus
    languages: str | int | Sequence[str]
    segments: int
    seed: int
    device: str
    dtype: str
    runner: str
    ray_address: str
    stream_layers: bool
    store: str | Path
    offline: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report that was read and checked. `document`: the whole of it, as its published schema describes it."""

    document: Mapping[str, Any]

    def __repr__(self) -> str:
        inputs = self.document["inputs"]
        models, specs = (" ".join(entry["text"] for entry in inputs[name]) for name in ("models", "specs"))
        rows = ", ".join(f"{len(self.document[name])} {name}" for name in ("damage", "measurements", "verdicts"))
        return f"Report({models} under {specs} on {inputs['corpus']['text']}: {rows})"

    @property
    def damage(self) -> Table:
        """What each language loses, a row per model, spec and language."""
        from evenbits.report.tables import damage_table

        return damage_table(self.document)

    @property
    def measurements(self) -> Table:
        """What the evals recorded, a row each."""
        from evenbits.report.tables import measurement_table

        return measurement_table(self.document)

    @property
    def verdicts(self) -> Mapping[str, str]:
        """The verdict of each hypothesis."""
        return {name: entry["verdict"] for name, entry in self.document["verdicts"].items()}


def damage(model: str, spec: str | Sequence[str] = "int4-g64", **options: Unpack[Options]) -> Table:
    """Return what each language of the text loses under each spec, a row per spec and language.

    `excess_bits_*` are bits per segment with their 95 % interval; docs/method-reference.md explains the others.
    A spec whose engine failed has no rows; `about["errors"]` has it with the reason. Raises `EvenbitsError` with a
    sentence for people.
    """
    from evenbits.commands.damage import measured
    from evenbits.report.table import table_of

    settings, corpus = _asked([model], spec, options)
    found, text = measured(settings, corpus)
    left_out = [one.to_json() for one in text.left_out]
    return table_of(found.rows(seed=settings.seed), left_out=left_out, errors=dict(found.failed))


def diagnose(
    model: str, spec: str | None = None, *, calibration: str | Path | None = None, **options: Unpack[Options]
) -> Table:
    """Return what each language would lose, the most endangered first, with a 90 % interval; nothing is quantized.

    `spec`: one that is calibrated, by default int4-g64 where it is. `calibration`: a file of `evenbits diagnose
    --calibrate`, by default the reference family's. `about` says what the forecast is worth on models left out of it.
    """
    from evenbits.commands.diagnose import forecast
    from evenbits.report.table import table_of

    settings, corpus = _asked([model], spec, options)
    found = forecast(settings, None if calibration is None else Path(calibration), corpus).to_json()
    return table_of(found.pop("languages"), **found)


def protect(
    model: str, spec: str = "int4-g64", *, budget: float, unit: str = "auto", **options: Unpack[Options]
) -> Table:
    """Return plans of protection and the usual rules of thumb, measured at no more than `budget` extra bits per weight.

    `unit`: what is protected: layer, part, module, or auto. `about["recipe"]["spec"]` is the plan to use.
    """
    from evenbits.commands.protect import protected
    from evenbits.report.table import table_of

    if not isinstance(budget, int | float):
        raise UsageError(f"budget is a number of bits per weight, such as .25, not {budget!r}")
    settings, corpus = _asked([model], spec, options)
    _, found = protected(settings, budget, unit, corpus)
    return table_of(found.pop("plans"), **found)


def rank(
    models: str | Sequence[str], spec: str = "int4-g64", *, measure: bool = True, **options: Unpack[Options]
) -> Table:
    """Return models as candidates for quantization, the best first; those that cannot be told apart share a rank.

    `measure`: by measured damage, else by the weights alone, of which `about["worth_of_weights"]` says the worth.
    """
    from evenbits.commands.rank import about, ranked
    from evenbits.report.table import table_of

    settings, corpus = _asked([models] if isinstance(models, str) else models, spec, options)
    ranking, worth, text = ranked(settings, measure=measure, given=corpus)
    rows = [one.to_json() for one in ranking.models]
    return table_of(rows, by=ranking.by, worth_of_weights=worth.to_json(), corpus=about(text))


def plan(
    model: str,
    spec: str = "int4-g64",
    *,
    at: Sequence[int] = (10, 20, 40, 80),
    pilot: str | Path | None = None,
    **options: Unpack[Options],
) -> Table:
    """Return the power of each decision at so many segments per language, a row per decision and number of segments.

    A pilot of a few segments is measured, or read from the report `pilot`; power is simulated from its variance
    components. A decision that cannot be made has one row, without a number and with the reason in `power_reason`.
    `about` has the pilot, and the cost of measuring on the largest number of segments, as far as it is not stored.
    """
    from evenbits.commands.plan import checked_sizes, powers
    from evenbits.estimates import Estimate
    from evenbits.paths import expanded
    from evenbits.report.table import table_of

    settings, corpus = _asked([model], spec, options)
    found, decisions, cost = powers(settings, None if pilot is None else expanded(pilot), checked_sizes(at), corpus)
    rows = []
    for one in decisions:
        undefined = Estimate.undefined(one.lacking or "not tried")
        chances: Sequence[tuple[int | None, Estimate]] = list(one.power.items()) or [(None, undefined)]
        rows += [
            {"decision": one.decision, "if": one.truth, "segments": size, "power": power.to_json()}
            for size, power in chances
        ]
    return table_of(rows, pilot=found.to_json(), cost=cost)


def load_corpus(name: str = "gettext", **options: Unpack[Options]) -> Corpus:
    """Return aligned text: a built-in corpus, a folder (`dir:PATH`) or a data set of the hub (`hf:DATASET`)."""
    from evenbits.commands.options import text_of

    settings, _ = _asked((), None, {**options, "corpus": name})
    return text_of(settings, ())


def parse_spec(text: str) -> Spec:
    """Return the spec named by `text`, such as `int4-g64+keep0.1%:magnitude`; `str()` of it is its canonical text."""
    from evenbits.variants.registry import parse

    return parse(text)


def open_report(path: str | Path) -> Report:
    """Return the report in a folder, or in a file `report.json`; `ReportError` where it does not follow its schema."""
    from evenbits.paths import expanded
    from evenbits.report.document import load

    return Report(document=load(expanded(path)))


def _asked(models: Sequence[str], spec: str | Sequence[str] | None, options: Options) -> tuple[Settings, Corpus | None]:
    """Return the settings, checked as a command line is, and the text where it was handed over."""
    from evenbits.settings import read_settings

    unknown = [name for name in options if name not in Options.__annotations__]
    if unknown:
        close = get_close_matches(unknown[0], Options.__annotations__, n=1)
        meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(Options.__annotations__)}."
        raise UsageError(f"there is no option {unknown[0]!r}; {meant}")
    typed: dict[str, Any] = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    corpus = typed.get("corpus")
    if isinstance(corpus, Corpus):
        named = [name for name in ("languages", "segments") if name in typed]
        if named:
            raise UsageError(f"a Corpus is taken as it is: choose its {' and '.join(named)} with Corpus.select")
        del typed["corpus"]
    typed |= {name: str(typed[name]) for name in ("segments", "seed", "store") if name in typed}
    if "languages" in typed and not isinstance(typed["languages"], str | int):
        typed["languages"] = list(typed["languages"])
    typed |= {
        "model": list(models) or None,
        "spec": None if spec is None else [spec] if isinstance(spec, str) else spec,
    }
    settings = read_settings(typed, here=Path.cwd(), folders=())
    return settings, corpus if isinstance(corpus, Corpus) else None
