"""`evenbits merge`: the measurements of a run's parts pooled, and the whole run judged from them, once."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenbits.commands.console import say, say_json
from evenbits.commands.options import AsJson, configured, note, output_to
from evenbits.commands.run import DECIDED, pytest_command
from evenbits.errors import ReportError
from evenbits.models.references import MEASURED
from evenbits.paths import expanded
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.cells.pool import Pool

__all__ = ["merge"]


@configured("policy", "baseline", "saved")
def merge(
    settings: Settings,
    *,
    parts: Annotated[
        list[Path],
        typer.Argument(help="folder that each part was reported to, or a store", metavar="PART...", parser=expanded),
    ],
    output: Annotated[Path, output_to("folder of the whole run's report")],
    as_json: AsJson = False,
) -> None:
    """Judge a whole run from the measurements of its parts; no model is loaded. Exit code 1 if its gate is not passed.

    Parts are runs over some of the models or specs, or shards of the gate's languages. The report is that of a run
    over everything, apart from timing and environment; --json prints it. --policy is by default the one that the parts
    ran with; --baseline has to be named again.
    """
    from evenbits.cells.pool import pool
    from evenbits.report.document import dump, load, write
    from evenbits.report.files import write_files
    from evenbits.report.summary import summary
    from evenbits.report.whole import as_measured
    from evenbits.studies.gate.decision import lets_through

    documents = [load(file) for part in parts if (file := _report(part)).is_file()]
    with tempfile.TemporaryDirectory(prefix="evenbits-") as scratch:
        pooled = pool(parts, Path(scratch) / "store")
        options = ["--store", str(pooled.store), "--report", str(output.absolute())]
        options += _policy(settings.policy, pooled.asked.policy, Path(scratch))
        if settings.baseline is not None:
            options += ["--baseline", str(settings.baseline)]
        _judge(pooled, options)
    for sentence in _remarks(pooled):
        note(sentence)
    whole = as_measured(load(output / "report.json"), documents)
    write(output / "report.json", dump(whole))
    for sentence in write_files(whole, output)[1]:
        note(sentence)
    if as_json:
        say_json(whole)
    else:
        for line in summary(whole, report=output / "report.json"):
            say("".join(span.text for span in line).rstrip())
    if not lets_through(whole):
        raise typer.Exit(1)


def _report(part: Path) -> Path:
    return part if part.suffix == ".json" else part / "report.json"


def _policy(named: Path | None, text: str | None, scratch: Path) -> list[str]:
    """Return the option for the policy: the file that was named, else the `text` that the parts had."""
    if named is not None:
        return ["--policy", str(named)]
    if text is None:
        return []
    file = scratch / "policy.toml"
    file.write_text(text, encoding="utf-8")
    return ["--policy", str(file)]


def _judge(pooled: Pool, options: Sequence[str]) -> None:
    """Run the evals on the pooled store, in a process of their own."""
    typed: list[str] = []
    for name, value in pooled.asked.options.items():
        texts = value if isinstance(value, list) else [value]
        before = f"{MEASURED}:" if name == "model" else ""
        typed += [f"--{name}"] if value is True else [f"--{name}={before}{text}" for text in texts]
    command = [*pytest_command(pooled.asked.arguments), "-q", "--tb=line", *typed, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own interpreter
    if done.returncode not in DECIDED:
        said = [line.strip("! ") for line in (done.stderr.strip() or done.stdout.strip()).splitlines()]
        told = next((line for line in reversed(said) if line.startswith("evenbits: ")), said[-1])
        raise ReportError(told.removeprefix("evenbits: "))


def _remarks(pooled: Pool) -> list[str]:
    """Return what a reader of the whole should know of its parts."""
    found = []
    if pooled.repeated:
        found.append(f"{pooled.repeated} measurements are in more than one part, and equal in all of them")
    return found
