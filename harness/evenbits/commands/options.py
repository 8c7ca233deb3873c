"""What the commands of `evenbits` share: their options, and the way from settings to texts and a model.

Heavy modules are imported inside the functions, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import typer

from evenbits.errors import EvenbitsError, UsageError
from evenbits.paths import expanded
from evenbits.printable import printable
from evenbits.settings import OPTIONS, Settings, option, read_settings

if TYPE_CHECKING:
    from evenbits.cells import Subject
    from evenbits.records import Corpus
    from evenbits.store import Store
    from evenbits.variants.quantization.spec import QuantSpec

__all__ = [
    "HERE",
    "MEASURING",
    "AsJson",
    "JustCost",
    "ReportFile",
    "configured",
    "explained",
    "forwarding",
    "interval",
    "model_of",
    "models_of",
    "note",
    "one_spec",
    "output_to",
    "store_of",
    "subject_of",
    "tenths",
    "text_of",
]

P = ParamSpec("P")
T = TypeVar("T")

HERE = ("corpus", "languages", "segments", "seed", "device", "dtype", "store", "offline")
"""Options of whatever runs text through a model that this process loads."""

MEASURING = (*HERE, "runner", "ray-address", "stream-layers")
"""Options of whatever measures cells, which may be done elsewhere, or without loading the whole model."""

JustCost = Annotated[bool, typer.Option("--cost", help="say what it would take, and measure nothing")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
ReportFile = Annotated[Path, typer.Argument(help="report.json of a run", metavar="REPORT", parser=expanded)]


def output_to(what: str) -> Any:
    """Return the option `-o, --output`, which every command that writes has; `what` says where to."""
    return typer.Option("-o", "--output", help=what, metavar="PATH", parser=expanded)


def explained(command: Callable[P, None]) -> Callable[P, None]:
    """Show the harness's own errors as a sentence with their exit code; everything else keeps its traceback."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except EvenbitsError as error:
            typer.secho(f"evenbits: {printable(str(error), lines=True)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(error.exit_code) from None

    return wrapped


def configured(
    *names: str, argument: str | None = None
) -> Callable[[Callable[Concatenate[Settings, P], None]], Callable[..., None]]:
    """Give a command the options `names` of the table in `evenbits.settings`, and call it with the settings they make.

    `argument`: an option more, which the command has as an argument; `models` is --model with several values. The
    command's own parameters follow its first one, which takes the settings.
    """
    return _optioned(names, argument, lambda typed: read_settings(typed, here=Path.cwd(), names=typed))


def forwarding(command: Callable[Concatenate[list[str], P], None]) -> Callable[..., None]:
    """Give a command all options, as pytest has them, and call it with those that were typed, as words for pytest."""
    return _optioned([one.name for one in OPTIONS], None, _words)(command)


def _words(typed: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in typed.items():
        if option(name).metavar is None:
            words += [f"--{name}"] if value else []
        elif value is not None:
            words += [f"--{name}={one}" for one in ([value] if isinstance(value, str) else value)]
    return words


def _optioned(
    names: Sequence[str], argument: str | None, first: Callable[[dict[str, Any]], T]
) -> Callable[[Callable[Concatenate[T, P], None]], Callable[..., None]]:
    """Return a decorator that adds options to a command, which is called with what `first` makes of them."""
    arguments = [] if argument is None else [_argument(argument)]
    options = [_typed_option(name) for name in names]

    def decorate(command: Callable[Concatenate[T, P], None]) -> Callable[..., None]:
        @wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            typed = {one.name.replace("_", "-"): kwargs.pop(one.name) for one in (*arguments, *options)}
            if argument == "model":
                typed["model"] = None if typed["model"] is None else [typed["model"]]
            elif argument == "models":
                typed["model"] = typed.pop("models")
            command(first(typed), *args, **kwargs)

        hints = get_type_hints(command, include_extras=True)
        own = [one.replace(annotation=hints[one.name]) for one in inspect.signature(command).parameters.values()][1:]
        last = [one for one in own if one.name == "as_json"]
        everything = [*arguments, *(one for one in own if one not in last), *options, *last]
        everything = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in everything]
        wrapped.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {one.name: one.annotation for one in everything}
        return explained(wrapped)

    return decorate


def _argument(name: str) -> inspect.Parameter:
    """Return an option of the table as an argument of the command line."""
    several = name == "models"
    one = option("model" if several else name)
    kind: Any = list[str] | None if several else str | None
    help_text = one.about.removesuffix("; repeatable") if one.repeatable else one.help
    shown = typer.Argument(help=help_text, metavar=f"{one.metavar}..." if several else one.metavar, show_default=False)
    return _keyword(name, Annotated[kind, shown], None)


def _typed_option(name: str) -> inspect.Parameter:
    one = option(name)
    if one.metavar is None:
        return _keyword(name, Annotated[bool, typer.Option(f"--{name}", help=one.help)], False)
    kind: Any = list[str] | None if one.repeatable else str | None
    return _keyword(name, Annotated[kind, typer.Option(f"--{name}", help=one.help, metavar=one.metavar)], None)


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def models_of(settings: Settings) -> tuple[str, ...]:
    """Return the models that a command is about, as typed; `UsageError` where none is named."""
    if not settings.models:
        raise UsageError(
            "no model was named: give one (a hub id, a folder, path.gguf, wheel:NAME==VERSION or reference:NAME), or "
            "set `model` in [tool.evenbits] of pyproject.toml"
        )
    return tuple(one.text for one in settings.models)


def model_of(settings: Settings) -> str:
    """Return the one model that a command is about; `UsageError` where none or several are named."""
    first, *others = models_of(settings)
    if others:
        raise UsageError(f"this command takes one model at a time; name one of {', '.join((first, *others))}")
    return first


def one_spec(settings: Settings, purpose: str) -> QuantSpec:
    """Return the one simulated quantization that a command is about; `UsageError` where there are several.

    `purpose`: what needs it to be simulated, in a few words.
    """
    from evenbits.variants.registry import simulated

    if len(settings.specs) != 1:
        named = ", ".join(str(one) for one in settings.specs)
        raise UsageError(f"--spec: one quantization at a time, got {named}")
    return simulated(settings.specs[0], purpose)


def store_of(folder: Path | None) -> Store:
    """Return the store in `folder`, or the user's own."""
    from evenbits.store import Store

    return Store.default() if folder is None else Store(folder)


def text_of(settings: Settings, subjects: Sequence[Subject], given: Corpus | None = None) -> Corpus:
    """Return the aligned text that the settings name, by default in the languages the models were trained on.

    `given`: text to take instead.
    """
    if given is not None:
        return given
    from evenbits.models.exposure import trained_languages
    from evenbits.text import load_corpus

    return load_corpus(
        settings.corpus,
        languages=settings.languages,
        trained=trained_languages(subject.local.exposure for subject in subjects),
        segments=settings.segments,
        seed=settings.seed,
        store=store_of(settings.store),
        offline=settings.offline,
    )


def subject_of(settings: Settings, model: str) -> Subject:
    """Return the model called `model`, checked and ready to measure."""
    from evenbits.cells import Subject
    from evenbits.models.device import device_for
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.progress import progress_for

    shown, kept = progress_for(), store_of(settings.store)
    local = resolve(parse_model(model), store=kept, offline=settings.offline, progress=shown)
    if local.precision is not None:
        note(f"{model} was in {local.precision} already: what is measured comes on top of that")
    return Subject(
        local=local,
        store=kept,
        dtype=settings.dtype,
        device=device_for(settings.device, weights=local.nbytes(settings.dtype)),
        seed=settings.seed,
        progress=shown,
        runner=settings.make_runner(),
    )


def note(text: str) -> None:
    """Print a remark to standard error, where it stays out of pipes."""
    typer.secho(printable(text), err=True, dim=True)


def interval(estimate: dict[str, Any], *, scale: float = 1.0) -> str:
    """Return `+34.8 [29.0, 48.9]`; the width of a column is what a narrow terminal lacks most."""
    if estimate["value"] is None:
        return "undefined"
    value = tenths(estimate["value"] * scale, sign=True)
    if estimate["low"] is None or estimate["high"] is None:
        return value
    return f"{value} [{tenths(estimate['low'] * scale)}, {tenths(estimate['high'] * scale)}]"


def tenths(value: float, *, sign: bool = False) -> str:
    """Return `value` to a tenth, from 100 on to one; never -0.0."""
    return f"{round(value, 1) + 0.0:{'+' if sign else ''}.{0 if abs(value) >= 99.95 else 1}f}"
