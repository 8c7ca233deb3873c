"""Damage and measurements as flat tables: CSV for everybody, Parquet where pyarrow is installed.

One line per row of the document, in its order. An estimate gives a column per field (`excess_bits_low`). Numbers are
unrounded; an undefined number is an empty cell, and its reason stands in `<name>_reason`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evenbits.errors import ReportError
from evenbits.report.described import described
from evenbits.report.document import write
from evenbits.report.table import Kind, Table

__all__ = ["damage_table", "measurement_table", "parquet_is_missing", "write_tables"]

ESTIMATE = ("value", "low", "high", "n", "method", "reason")
KL = ("mean", "p50", "p99")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "damage": (
        "model",
        "spec",
        "language",
        "language_name",
        "script",
        "tier",
        "segments",
        "tokens",
        "utf8_bytes",
        "nll_full",
        "nll_quantized",
        *(f"excess_bits_{key}" for key in ESTIMATE),
        *(f"relative_increase_{key}" for key in ESTIMATE),
        *(f"kl_nats_per_token_{key}" for key in KL),
        "mean_delta_p",
        "rms_delta_p",
        "top1_changed",
        "bits_per_weight",
        *(f"task_loss_{key}" for key in ESTIMATE),
        "task_recovery_percent",
        "task_documents",
    ),
    "measurements": (
        "hypothesis",
        "role",
        "test",
        "model",
        "spec",
        "verdict",
        "metric",
        *(f"estimate_{key}" for key in ESTIMATE),
        "threshold_op",
        "threshold_bound",
        "threshold_why",
        "p_value",
        "metric_sensitive",
        "summary",
        "action",
        "explain",
    ),
}
"""Columns of each table. They do not depend on the rows, so that tables of several runs can be put together."""

TEXTS = frozenset(
    {
        "model",
        "spec",
        "language",
        "language_name",
        "script",
        "tier",
        "hypothesis",
        "role",
        "test",
        "verdict",
        "metric",
        "threshold_op",
        "threshold_why",
        "summary",
        "action",
        "explain",
        "excess_bits_method",
        "excess_bits_reason",
        "relative_increase_method",
        "relative_increase_reason",
        "estimate_method",
        "estimate_reason",
        "task_loss_method",
        "task_loss_reason",
    }
)
COUNTS = frozenset(
    {
        "segments",
        "tokens",
        "utf8_bytes",
        "excess_bits_n",
        "relative_increase_n",
        "estimate_n",
        "task_loss_n",
        "task_documents",
    }
)


def damage_table(document: Mapping[str, Any]) -> Table:
    """Return the damage rows, flat, with name, script and tier of each language where the document knows them."""
    models = {row["model"] for row in document["damage"]}
    known = {model: described(document, model) for model in models}
    rows = []
    for row in document["damage"]:
        about = known[row["model"]].get(row["language"], {})
        flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
        flat |= {"language_name": about.get("name"), "script": about.get("script"), "tier": about.get("tier")}
        flat |= _flat("excess_bits", row["excess_bits"]) | _flat("relative_increase", row["relative_increase"])
        flat |= _flat("kl_nats_per_token", row["kl_nats_per_token"])
        if tasks := row.get("tasks"):
            flat |= _flat("task_loss", tasks["loss"]) | {"task_documents": tasks["documents"]}
            flat["task_recovery_percent"] = tasks.get("recovery_percent")
        rows.append(flat)
    return _table("damage", rows)


def measurement_table(document: Mapping[str, Any]) -> Table:
    """Return the measurement rows, flat; `also` and `data` stay in the document."""
    rows = []
    for row in document["measurements"]:
        threshold = row["threshold"] or {}
        flat = {key: value for key, value in row.items() if not isinstance(value, dict)}
        flat |= _flat("estimate", row["estimate"])
        flat |= {f"threshold_{key}": threshold.get(key) for key in ("op", "bound", "why")}
        rows.append(flat)
    return _table("measurements", rows)


def _flat(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_{key}": value for key, value in found.items()}


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    columns = COLUMNS[name]
    kinds: dict[str, Kind] = {
        column: "text" if column in TEXTS else "integer" if column in COUNTS else "number" for column in columns
    }
    kinds |= {column: "truth" for column in columns if column == "metric_sensitive"}
    return Table(
        columns=columns, rows=tuple({column: row.get(column) for column in columns} for row in rows), kinds=kinds
    )


def parquet_is_missing() -> bool:
    """Return whether the optional package that writes Parquet is not installed."""
    return find_spec("pyarrow") is None


def write_tables(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `damage` and `measurements` into `folder` as CSV, and Parquet where pyarrow is installed.

    Returns the files. Each appears as a whole or not at all. Raises `ReportError` where it cannot be written.
    """
    tables = {"damage": damage_table(document), "measurements": measurement_table(document)}
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write(written[-1], table.to_csv())
        parquet = folder / f"{name}.parquet"
        if parquet_is_missing():
            parquet.unlink(missing_ok=True)  # one of an earlier run must not stand beside this report
        else:
            written.append(parquet)
            _write_parquet(parquet, table)
    return written


def _write_parquet(file: Path, table: Table) -> None:
    from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]

    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        parquet.write_table(table.to_arrow(), part)
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ReportError(f"{file} cannot be written: {error.strerror or error}.") from None
