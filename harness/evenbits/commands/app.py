"""The `evenbits` command.

Heavy modules are imported inside the commands that need them, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenbits.commands.compare import compare
from evenbits.commands.console import console, say, say_json
from evenbits.commands.corpora import corpora
from evenbits.commands.diagnose import diagnose
from evenbits.commands.merge import merge
from evenbits.commands.models import models
from evenbits.commands.options import (
    AsJson,
    CorpusName,
    Dtype,
    Languages,
    Model,
    Offline,
    ReportFile,
    Seed,
    Segments,
    Specs,
    StoreFolder,
    explained,
    interval,
    note,
    specs_of,
    subject_of,
    text_of,
)
from evenbits.commands.quantize import quantize
from evenbits.commands.rank import rank
from evenbits.errors import UsageError

if TYPE_CHECKING:
    from evenbits.cells.damage import Damage
    from evenbits.records import Corpus
    from evenbits.studies.h036 import ProtectionStudy

__all__ = ["app", "main"]

app = typer.Typer(
    help="Which languages pay when a multilingual language model is quantized, why, and what to protect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

PYTEST_USAGE, NOTHING_COLLECTED = 4, 5
"""Exit codes of pytest that are a usage error to the gate: what was not decided must not look like a verdict."""


def _version(show: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if show:
        typer.echo(f"evenbits {version('evenbits')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
@explained
def damage(
    model: Model,
    spec: Specs,
    corpus: CorpusName = "gettext",
    languages: Languages = None,
    segments: Segments = None,
    dtype: Dtype = "bfloat16",
    seed: Seed = 0,
    store: StoreFolder = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Measure what each language loses under each spec: the damage table alone, over all segments.

    Of a folder of one's own text all languages are measured, also those that the model was not trained on.
    """
    from evenbits.cells import measure_damage
    from evenbits.text import parse_corpus
    from evenbits.variants.quantization.spec import QuantSpec

    specs = specs_of(spec)
    subject = subject_of(model, dtype, seed, store, offline=offline)
    if languages is None and parse_corpus(corpus).kind == "dir":
        languages = "all"  # a folder of one's own text is a choice of languages
    text = text_of([subject], corpus, languages, segments, seed, store, offline=offline)
    if any(isinstance(one, QuantSpec) and one.needs for one in specs):
        from evenbits.text import split

        subject.probe, text = split(text, seed=seed)
        note(
            f"statistics for retention come from {len(subject.probe)} probe segments, scores from the other {len(text)}"
        )
    table = measure_damage(subject, specs, text)
    rows = table.rows(seed=seed)
    if as_json:
        say_json({"damage": rows})
        return
    _show(table, rows, text)


@app.command()
@explained
def protect(
    model: Model,
    spec: Annotated[str, typer.Option("--spec", help="the quantization to improve, such as int4-g64")],
    budget: Annotated[str, typer.Option("--budget", help="extra bits per weight that may be spent, such as 0.25bpw")],
    unit: Annotated[
        str, typer.Option("--unit", help="what is protected: layer, part (attention or MLP), module, or auto")
    ] = "auto",
    corpus: CorpusName = "gettext",
    languages: Languages = None,
    segments: Segments = None,
    dtype: Dtype = "bfloat16",
    seed: Seed = 0,
    store: StoreFolder = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Choose what to keep in high precision under a budget of bits, and measure it beside the usual rules of thumb."""
    import numpy as np

    from evenbits.studies import h036 as layers
    from evenbits.studies.h039 import tiers
    from evenbits.text import split
    from evenbits.variants.quantization.spec import parse_spec

    chosen, extra = parse_spec(spec), _budget(budget)
    whole = layers.whole_model(chosen)
    asked = next((kind for kind in layers.KINDS if kind == unit), None)
    if asked is None and unit != "auto":
        raise UsageError(f"--unit {unit}: one of auto, {', '.join(layers.KINDS)}")
    subject = subject_of(model, dtype, seed, store, offline=offline)
    text = text_of([subject], corpus, languages, segments, seed, store, offline=offline)
    kind = asked or layers.kind_for(layers.sizes_of(subject), whole, extra)
    subject.probe, rest = split(text, seed=seed)
    note(f"units of protection: {kind}s; chosen on {len(subject.probe)} segments, measured on the other {len(rest)}")
    study = layers.study_layers(
        subject, whole, subject.probe, tier=tiers(text.languages, exposure=subject.local.exposure), kind=kind
    )
    kurtosis = layers.unit_kurtosis(study.units, subject.weight_statistics())
    rng = np.random.default_rng(seed)
    measured = layers.study_protection(subject, study, rest, budget=extra, kurtosis=kurtosis, rng=rng)
    rows = layers.protection_table(measured, rng=rng)
    recipe, depth = layers.protection_recipe(measured), layers.where_damage_lies(study)
    if as_json:
        found = {"plans": rows, "recipe": recipe, "depth": depth.to_json(),
                 "layer_language": layers.layer_language(study)}  # fmt: skip
        say_json(found)
        return
    _show_plans(measured, rows)
    say(depth.sentence)
    say(f"recipe  {recipe['spec']}  (+{recipe['extra_bits_per_weight']:.3g} bits per weight)")


app.command()(diagnose)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def run(context: typer.Context) -> None:
    """Start pytest on the installed evals, with the options of `pytest evals`; FILE::TEST chooses some of them."""
    raise typer.Exit(_pytest(context.args))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def gate(context: typer.Context) -> None:
    """Decide whether a model may ship: `run -m gate` with --policy, --baseline or both; exit code 1 if it may not."""
    code = _pytest(["-m", "gate", *context.args])
    if code == NOTHING_COLLECTED:
        typer.secho("evenbits: no test of the gate was selected, so nothing was decided.", err=True, fg="red")
    raise typer.Exit(2 if code in {PYTEST_USAGE, NOTHING_COLLECTED} else code)


policy_commands = typer.Typer(help="The limits of the deployment gate.", no_args_is_help=True)
app.add_typer(policy_commands, name="policy")


@policy_commands.callback()
def policy_options() -> None:
    """The limits of the deployment gate."""


@policy_commands.command("init")
@explained
def policy_init(
    report: ReportFile,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: print it")] = None,
    margin: Annotated[float, typer.Option(min=0, help="share added to the upper end of each interval")] = 0.1,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
) -> None:
    """Write a commented policy from a measured report: upper ends of the intervals plus a margin."""
    from evenbits.report.document import load, write
    from evenbits.report.policy_draft import policy_draft

    text = policy_draft(load(report), margin=margin)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists() and not force:
        raise UsageError(f"{output} exists; give --force to replace it")
    write(output, text)
    note(f"wrote {output}")


app.command()(compare)
app.command()(corpora)
app.command()(merge)
app.command()(models)
app.command()(quantize)
app.command()(rank)


@app.command("report")
@explained
def write_report(
    report: ReportFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder to write to; default: that of REPORT")] = None,
    as_json: AsJson = False,
) -> None:
    """Write page, summary, tables and model card of a run again, from its report.json alone."""
    from evenbits.report.document import load
    from evenbits.report.files import write_files

    written, notes = write_files(load(report), report.parent if out is None else out)
    if as_json:
        say_json({"written": [str(file) for file in written], "notes": notes})
        return
    for file in written:
        say(str(file))
    for remark in notes:
        note(remark)


def _pytest(arguments: list[str]) -> int:
    """Run pytest on the evals installed with this package and return its exit code.

    Settings come from a file of ours: pytest would otherwise look for one above the evals and above every path among
    the arguments, and take over the settings of whatever project this environment happens to live in.
    """
    evals, plugins = _package("evenbits.evals"), _package("evenbits.plugins")
    here = [_inside(evals, argument) for argument in arguments]
    chosen = here if here != arguments else [str(evals), *arguments]
    command = [sys.executable, "-m", "pytest", "-p", "evenbits.plugins", "-p", "no:cacheprovider"]
    command += ["-c", str(plugins / "evals.ini"), f"--rootdir={evals}"]
    return subprocess.run([*command, *chosen], check=False).returncode  # noqa: S603 - our own interpreter


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"the package `{name}` is not installed beside `harness`: install evenbits again")
    return Path(next(iter(spec.submodule_search_locations)))


def _inside(evals: Path, argument: str) -> str:
    """Return `test_x.py[::case]`, with or without `evals/` before it, as a path of the installed evals."""
    file, _, case = argument.partition("::")
    path = evals / Path(file).name
    if not file.endswith(".py") or not path.is_file():
        return argument
    return f"{path}::{case}" if case else str(path)


def _show(table: Damage, rows: list[dict[str, Any]], corpus: Corpus) -> None:
    """Print a table per spec, the most harmed language first, and what was left out."""
    from evenbits.report.summary import left_out

    shown_on = console()
    for spec in table.specs:
        mine = [row for row in rows if row["spec"] == spec]
        mine.sort(key=lambda row: -(row["excess_bits"]["value"] or 0.0))
        shown_on.print(_table(table, spec, mine))
    for phrase in left_out(one.to_json() for one in corpus.left_out):
        note(f"left out: {phrase}")


def _table(table: Damage, spec: str, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    column = table.columns[spec]
    floor = column.floor_bits.value
    shown = Table(
        box=SIMPLE_HEAD,
        title=f"{table.model}  {spec}  {column.bits_per_weight:.2f} bits per weight",
        caption=f"excess bits per segment, 95 % interval over {len(table.segment_ids)} segments; {column.dtype}; "
        f"noise floor {floor:.2g} bits"
        + ("; * below three floors" if any(_below(row) for row in rows) else "")
        + f"; {_signs(rows)}",
    )
    shown.add_column("language", no_wrap=True)
    for name in ("excess bits", "relative increase %", "KL/token", "top-1 %"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row["language"],
            interval(row["excess_bits"]) + ("*" if _below(row) else ""),
            interval(row["relative_increase"], scale=100),
            "-" if row["kl_nats_per_token"]["mean"] is None else f"{row['kl_nats_per_token']['mean']:.3f}",
            "-" if row["top1_changed"] is None else f"{100 * row['top1_changed']:.1f}",
        )
    return shown


def _budget(text: str) -> float:
    """Return the extra bits per weight in `0.25bpw` or `0.25`."""
    try:
        value = float(text.strip().lower().removesuffix("bpw"))
    except ValueError:
        raise UsageError(f"--budget {text!r}: write extra bits per weight, such as 0.25bpw") from None
    if not 0 < value < 16:
        raise UsageError(f"--budget {text}: extra bits per weight lie between 0 and 16")
    return value


def _show_plans(measured: ProtectionStudy, rows: list[dict[str, Any]]) -> None:
    """Print the measured plans and rivals, those beyond the budget marked."""
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
    for row in rows:
        what = " ".join(row["protects"]) or (row["spec"] if row["name"] == "uniform" else "")
        if what:
            shown_on.print(f"{row['name']:<{max(len(one['name']) for one in rows)}}  {what}")


def _signs(rows: list[dict[str, Any]]) -> str:
    """Say in how many languages the damage differs from 0: an order of languages that do not differ is noise."""
    bounds = [(row["excess_bits"]["low"], row["excess_bits"]["high"]) for row in rows]
    above = sum(low is not None and low > 0 for low, _ in bounds)
    less = sum(high is not None and high < 0 for _, high in bounds)
    return f"interval above 0 in {above} of {len(rows)} languages" + (f", below 0 in {less}" if less else "")


def _below(row: dict[str, Any]) -> bool:
    return str(row["excess_bits"]["reason"] or "").startswith("below_floor")


def main() -> None:
    """Run the command; the entry point of the package."""
    app()


if __name__ == "__main__":
    sys.exit(app())
