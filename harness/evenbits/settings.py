"""Settings: the options of pytest and of every command, one table, read in one place.

`OPTIONS` is what both command lines and the keys of `[tool.evenbits]` are made of: a name, one help text, a default and
the function that checks a value. What was typed wins over a model family, which wins over `[tool.evenbits]`, which wins
over the built-in default. What cannot be understood is one sentence, before anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenbits import values
from evenbits.defaults import Defaults, read_defaults
from evenbits.errors import UsageError
from evenbits.families import Family, family
from evenbits.report.saved import FOLDER
from evenbits.values import Value

if TYPE_CHECKING:  # read lazily: a session without evals imports nothing of this
    from evenbits.cells.runner import Runner
    from evenbits.models.references import ModelRef
    from evenbits.variants.registry import Spec

__all__ = ["DTYPES", "OPTIONS", "RUNNERS", "Option", "Settings", "option", "read_settings"]

DTYPES = ("bfloat16", "float32")
RUNNERS = ("local", "ray")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What was asked for, checked; one field for each of `OPTIONS`, which say what they mean.

    `languages`: tags separated by commas, a number, `all`, or None. `segments`: None for all. `store`: None for the
    user's cache. `shard`: (i, n), the i-th of n parts of the gate's languages. Paths are expanded. `typed`: the options
    that stood on the command line. `stated`: those, and the keys of `[tool.evenbits]`.
    """

    models: tuple[ModelRef, ...]
    specs: tuple[Spec, ...]
    corpus: str
    languages: str | None
    segments: int | None
    seed: int
    device: str
    dtype: str
    runner: str
    ray_address: str | None
    stream_layers: bool
    store: Path | None
    offline: bool
    report: Path
    advisory: bool
    robustness: bool
    full: bool
    family: Family | None
    policy: Path | None
    baseline: Path | None
    shard: tuple[int, int] | None
    until_decided: bool
    most: int | None
    tasks: tuple[str, ...]
    task_folder: Path | None
    task_limit: int | None
    autosave: bool
    saved: Path
    typed: frozenset[str] = frozenset()
    stated: frozenset[str] = frozenset()

    def make_runner(self) -> Runner:
        """Return what computes what the store lacks, of one model."""
        from evenbits.cells.cluster import runner_for

        return runner_for(self.runner, address=self.ray_address, layers=self.stream_layers, device=self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """An option. `metavar`: None makes it a switch. `field`: its name in `Settings`, where that is another.

    `kinds`: types that its key in `[tool.evenbits]` may have; none where it has no key.
    """

    name: str
    about: str
    metavar: str | None
    check: Callable[[Value], Any]
    kinds: tuple[type, ...] = (str,)
    default: Any = None
    field: str = ""
    repeatable: bool = False

    @property
    def help(self) -> str:
        """The one help text, with the default where there is one to name."""
        told = ", ".join(self.default) if isinstance(self.default, tuple) else self.default
        return self.about if self.metavar is None or told in {None, ""} else f"{self.about} (default: {told})"


def option(name: str) -> Option:
    """Return the option called `name`."""
    return next(one for one in OPTIONS if one.name == name)


def read_settings(
    typed: Mapping[str, Any],
    *,
    here: Path,
    folders: Iterable[Path] | None = None,
    names: Iterable[str] | None = None,
) -> Settings:
    """Return the settings that follow from what was typed, from `[tool.evenbits]` and from the built-in defaults.

    `typed`: values by option, None or absent where not given. `here`: the folder in which the command was started.
    `folders`: where `[tool.evenbits]` is searched from, upwards; `here` by default, nowhere where empty. `names`: the
    options that count, all by default; the others keep their built-in defaults. Raises `EvenbitsError`.
    """
    defaults = read_defaults((here,) if folders is None else folders, KEYS)
    wanted = frozenset(one.name for one in OPTIONS) if names is None else frozenset(names)
    given = {name: value for name, value in typed.items() if value is not None and name in wanted}
    stated = {name: value for name, value in defaults.values.items() if name in wanted} | given
    known = None if stated.get("family") is None else family(stated["family"])
    full = bool(stated.get("full"))
    if full and "segments" in given:
        raise UsageError("--full takes all segments and --segments only some; give one of them.")

    def value(one: Option) -> Value:
        of_family = None if known is None or one.name in given else known.option(one.name, full=full)
        found = stated.get(one.name, one.default) if of_family is None else of_family
        return Value(name=one.name, value=found, folder=_beside(one.name, given, defaults, here))

    checked = {one.field or one.name: one.check(value(one)) for one in OPTIONS}
    if full:
        checked["segments"] = None
    if not checked["tasks"] and (checked["task_folder"] or checked["task_limit"]):
        raise UsageError("--task-folder and --task-limit say how --tasks are run, and no task was named.")
    if "most" in given and not checked["until_decided"]:
        raise UsageError(f"--most {given['most']} ends --until-decided, which was not given; --segments takes so many.")
    if "ray-address" in given and checked["runner"] != "ray":
        raise UsageError(f"--ray-address {given['ray-address']!r} names a cluster: add --runner ray, or leave it out.")
    made = Settings(**checked, typed=frozenset(given), stated=frozenset(stated))
    return replace(made, baseline=values.as_baseline(value(option("baseline")), made.saved))


def _beside(name: str, given: Mapping[str, Any], defaults: Defaults, here: Path) -> Path:
    written_down = defaults.file is not None and name not in given and name in defaults.values
    return defaults.file.parent if defaults.file is not None and written_down else here


TEXTS = (str, list)

OPTIONS: tuple[Option, ...] = (
    Option(
        name="model",
        about="hub id[@revision], folder, path.gguf, wheel:NAME==VERSION or reference[:NAME]; repeatable",
        metavar="MODEL",
        check=values.as_models,
        kinds=TEXTS,
        default=(),
        field="models",
        repeatable=True,
    ),
    Option(
        name="spec",
        about="quantization such as int4-g64+keep0.1%:magnitude; repeatable, or separated by commas",
        metavar="SPEC",
        check=values.as_specs,
        kinds=TEXTS,
        default=("int4-g64",),
        field="specs",
        repeatable=True,
    ),
    Option(
        name="corpus",
        about="gettext, debian:NAME, dir:PATH, flores, belebele or hf:DATASET",
        metavar="CORPUS",
        check=values.as_corpus,
        default="gettext",
    ),
    Option(
        name="languages",
        about="tags separated by commas, a number (best covered), or all; default: what the corpus offers, of it the "
        "languages that models were trained on where they say so (exposure.json beside the weights)",
        metavar="TAGS",
        check=values.as_languages,
        kinds=(str, list, int),
    ),
    Option(
        name="segments",
        about="at most N segments per language; default: all, unless the command or --family says otherwise",
        metavar="N",
        check=values.as_count,
        kinds=(int,),
    ),
    Option(
        name="seed", about="seed of every random choice", metavar="N", check=values.as_seed, kinds=(int,), default=0
    ),
    Option(
        name="device",
        about="where models run: auto (a CUDA device where there is one), cpu, cuda, cuda:N or mps; auto and cuda "
        "spread the layers of a model over several devices where one has no room for it",
        metavar="DEVICE",
        check=values.as_device,
        default="auto",
    ),
    Option(
        name="dtype",
        about="arithmetic of the run: bfloat16 or float32",
        metavar="DTYPE",
        check=values.as_one_of(*DTYPES),
        default="bfloat16",
    ),
    Option(
        name="runner",
        about="where measurements are computed: local (this process) or ray (tasks of a cluster)",
        metavar="RUNNER",
        check=values.as_one_of(*RUNNERS),
        default="local",
    ),
    Option(
        name="ray-address",
        about="with --runner ray: the cluster that this machine is in, auto or HOST:PORT of its head; default: one of "
        "this machine's own",
        metavar="ADDRESS",
        check=values.as_address,
        field="ray_address",
    ),
    Option(
        name="stream-layers",
        about="read the model layer by layer from disk, where memory has no room for the whole",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
        field="stream_layers",
    ),
    Option(
        name="store", about="folder where measurements are kept between runs", metavar="DIR", check=values.as_folder
    ),
    Option(name="offline", about="use no network at all", metavar=None, check=values.as_switch, kinds=(bool,)),
    Option(
        name="report",
        about="folder for report.json, summary.md, index.html and junit.xml",
        metavar="DIR",
        check=values.as_folder,
        default="reports/latest",
    ),
    Option(
        name="advisory",
        about="report verdicts without failing the run; errors still fail it",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
    ),
    Option(
        name="robustness",
        about="also run the tests of our own that a verdict survives other choices",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
    ),
    Option(
        name="full",
        about="run everything: all segments, all models and all tests, also where a family or the default takes fewer",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
    ),
    Option(
        name="family",
        about="a model family: stands for its models, specs and number of segments",
        metavar="NAME",
        check=values.as_family,
    ),
    Option(
        name="policy",
        about="limits of the deployment gate, TOML; `evenbits policy init` writes one",
        metavar="FILE",
        check=values.as_file,
    ),
    Option(
        name="baseline",
        about="an earlier report.json, the number of a saved report or latest: the gate fails a language that is worse",
        metavar="REPORT",
        check=values.as_it_is,  # found below the folder of saved reports, once that is known
    ),
    Option(
        name="shard",
        about="gate only the I-th of N parts of the languages; `evenbits merge` joins the parts",
        metavar="I/N",
        check=values.as_shard,
        kinds=(),
    ),
    Option(
        name="until-decided",
        about="add segments until limits of the gate, H-036 and H-039 are decided, at the error rates of one look",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
        field="until_decided",
    ),
    Option(
        name="most",
        about="with --until-decided: at most N segments per language",
        metavar="N",
        check=values.as_count,
        kinds=(int,),
    ),
    Option(
        name="tasks",
        about="lm-eval tasks, separated by commas: also what their answers lose, paired by document",
        metavar="NAMES",
        check=values.as_names,
        kinds=TEXTS,
        default=(),
    ),
    Option(
        name="task-folder",
        about="folder of task files of one's own (lm_eval's --include_path)",
        metavar="DIR",
        check=values.as_folder,
        field="task_folder",
    ),
    Option(
        name="task-limit",
        about="at most N documents of a task",
        metavar="N",
        check=values.as_count,
        kinds=(int,),
        field="task_limit",
    ),
    Option(
        name="autosave",
        about="keep the report under the next number, for --baseline and compare",
        metavar=None,
        check=values.as_switch,
        kinds=(bool,),
    ),
    Option(name="saved", about="folder of saved reports", metavar="DIR", check=values.as_folder, default=FOLDER),
)

KEYS: Mapping[str, tuple[type, ...]] = {one.name: one.kinds for one in OPTIONS if one.kinds}
"""Keys of `[tool.evenbits]` and the types that their values may have."""
