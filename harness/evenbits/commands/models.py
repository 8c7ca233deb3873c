"""`evenbits models`: which models come with evenbits, and whether one can be read, before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evenbits.commands.console import console, say, say_json
from evenbits.commands.options import AsJson, configured, store_of
from evenbits.settings import Settings

if TYPE_CHECKING:
    from evenbits.models.records import LocalModel

__all__ = ["models"]

PRECISION = "precision: full, or the formats in which the file had the weights; "
COLUMNS = (
    "trained on: languages and bytes, where exposure.json beside the weights says so; digest: begin of the fingerprint "
    "over weights and tokenizer, which --json has whole"
)


@configured("store", "offline", argument="models")
def models(settings: Settings, *, as_json: AsJson = False) -> None:
    """Find models, check their files and show what they are: architecture, size, training text, fingerprint.

    Without MODEL: the reference family.
    """
    from evenbits.models.families import SUPPORTED
    from evenbits.models.references import parse_model
    from evenbits.models.shipped import expand
    from evenbits.models.sources import resolve
    from evenbits.progress import progress_for

    kept, progress, offline = store_of(settings.store), progress_for(), settings.offline
    wanted = settings.models if "model" in settings.typed else expand([parse_model("reference")])
    rows = [_row(resolve(ref, store=kept, offline=offline, progress=progress)) for ref in wanted]
    if as_json:
        document = {"models": rows, "supported_architectures": list(SUPPORTED)}
        say_json(document)
        return
    _show(rows)
    if "model" not in settings.typed:
        say(f"supported architectures: {', '.join(SUPPORTED)}")


def _row(local: LocalModel) -> dict[str, Any]:
    exposure = local.exposure
    return {
        "model": local.text,
        "architecture": local.model_type,
        "parameters": local.parameters,
        "precision": local.precision,
        "trained_languages": None if exposure is None else sum(1 for seen in exposure.values() if seen > 0),
        "trained_bytes": None if exposure is None else sum(exposure.values()),
        "fingerprint": local.fingerprint,
        "folder": str(local.folder),
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.filesize import decimal
    from rich.table import Table

    quantized = any(row["precision"] for row in rows)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns hold all of them
    shown.add_column("model", overflow="fold", min_width=16)
    shown.add_column("architecture", overflow="fold", min_width=12)
    shown.add_column("parameters", justify="right", no_wrap=True)
    if quantized:
        shown.add_column("precision", overflow="fold")
    shown.add_column("trained on", justify="right", overflow="fold")
    shown.add_column("digest", no_wrap=True)
    for row in rows:
        seen = row["trained_bytes"]
        shown.add_row(
            row["model"],
            row["architecture"],
            f"{row['parameters']:,}",
            *([row["precision"] or "full"] if quantized else []),
            "unknown" if seen is None else f"{row['trained_languages']}, {decimal(seen)}",
            row["fingerprint"][:8],
        )
    console().print(shown)
    say(f"{PRECISION if quantized else ''}{COLUMNS}")
