"""Outliers of every weight matrix by layer and projection, and of whole models side by side (H-037)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenbits.figure import Case, Figure, Series, finite, label_of, scatter, short, text_or
from evenbits.numbers import number

__all__ = ["BY_MODEL", "MODELS", "SPARSITY", "by_model", "models", "sparsity"]

SPARSITY = Figure(
    id="sparsity",
    kind="matrix",
    title="Where the outlier weights sit",
    note="One cell per weight matrix. Rows are projections, columns layers.",
)
MODELS = Figure(
    id="models",
    kind="scatter",
    title="Sparsity against recovered damage",
    note="One point per model: how concentrated its outliers are, the share of its damage a fixed k recovers.",
)
BY_MODEL = Figure(
    id="by-model",
    kind="dots",
    title="Sparsity by model",
    note="One line per model, the one with the heaviest outliers first.",
)

METRICS = {
    "kurtosis": "excess kurtosis",
    "concentration": "concentration (top 1 % over top 10 %)",
    "gini": "Gini coefficient",
    "hoyer": "Hoyer sparsity",
}


def sparsity(row: Mapping[str, Any], _languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.tensors`, one entry per weight matrix; None without."""
    tensors = row["data"].get("tensors")
    if not isinstance(tensors, list) or not tensors:
        return None
    tensors = [tensor for tensor in tensors if tensor["layer"] is not None]
    layers = sorted({tensor["layer"] for tensor in tensors})
    roles = list(dict.fromkeys(tensor["role"] for tensor in tensors))
    cells = {(tensor["role"], tensor["layer"]): tensor for tensor in tensors}
    sigmas = sorted({count["sigma"] for tensor in tensors for count in tensor.get("beyond", ())})
    measured = {f"% of weights beyond {sigma} standard deviations": sigma for sigma in sigmas}
    values: dict[str, list[list[float | None]]] = {}
    for name, sigma in measured.items():
        values[name] = [[_share(cells.get((role, layer)), sigma) for layer in layers] for role in roles]
    for key, name in METRICS.items():
        if any(key in tensor for tensor in tensors):
            values[name] = [[short((cells.get((role, layer)) or {}).get(key)) for layer in layers] for role in roles]
    values = {name: found for name, found in values.items() if any(finite(line) for line in found)}
    first = METRICS["kurtosis"] if METRICS["kurtosis"] in values else next(iter(values))
    return Case(
        label=label_of(row),
        alternative=_alternative(first, values[first], roles, layers),
        data={
            "x": [str(layer) for layer in layers],
            "y": roles,
            "x_name": "layer",
            "metrics": [
                {"name": name, "values": values[name]} for name in sorted(values, key=lambda name: name != first)
            ],
        },
        columns=("weight matrix", *values),
        rows=tuple(
            (str(cells[role, layer].get("name", f"{layer} {role}")), *(values[name][y][x] for name in values))
            for x, layer in enumerate(layers)
            for y, role in enumerate(roles)
            if (role, layer) in cells
        ),
    )


WHOLE = {
    "largest_kurtosis": "largest excess kurtosis of a matrix",
    "concentration_ratio": METRICS["concentration"],
    "gini": METRICS["gini"],
    "hoyer": METRICS["hoyer"],
}
"""Keys of the measurement of a whole model, with their names."""


def by_model(rows: Sequence[Mapping[str, Any]], _languages: Mapping[str, Any]) -> Case | None:
    """Return one case over all measurements with `data.largest_kurtosis`, a line per model; None for fewer than two."""
    found = [row for row in rows if row["model"] and row["data"].get("largest_kurtosis") is not None]
    if len(found) < 2:
        return None
    found.sort(key=lambda row: (-row["data"]["largest_kurtosis"], row["model"]))
    sigmas = list(dict.fromkeys(sigma for row in found for sigma in row["data"].get("sigma_shares") or {}))
    values = {name: [short(row["data"].get(key)) for row in found] for key, name in WHOLE.items()}
    for sigma in sigmas:
        shares = [(row["data"].get("sigma_shares") or {}).get(sigma) for row in found]
        name = f"% of weights beyond {sigma} standard deviations"
        values[name] = [None if share is None else short(100 * share) for share in shares]
    classes = [
        ", ".join(filter(None, (text_or(row["data"].get("kurtosis_class")), text_or(row["data"].get("class")))))
        for row in found
    ]
    first = found[0]
    return Case(
        label=f"{found[0]['hypothesis']} · {len(found)} models",
        alternative=f"{WHOLE['largest_kurtosis'].capitalize()}: most {number(first['data']['largest_kurtosis'])} in "
        f"{first['model']}, least {number(found[-1]['data']['largest_kurtosis'])} in {found[-1]['model']}.",
        data={
            "y": [row["model"] for row in found],
            "notes": classes,
            "marks": [None] * len(found),
            "metrics": [
                {"name": name, "values": [[value, None, None] for value in column]}
                for name, column in values.items()
                if finite(column)
            ],
        },
        columns=("model", "class", *values),
        rows=tuple(
            (row["model"], classes[place], *(column[place] for column in values.values()))
            for place, row in enumerate(found)
        ),
    )


def _share(tensor: Mapping[str, Any] | None, sigma: float) -> float | None:
    """Return the share of weights beyond `sigma` standard deviations in per cent."""
    if tensor is None:
        return None
    return next((short(100 * count["share"]) for count in tensor.get("beyond", ()) if count["sigma"] == sigma), None)


def _alternative(
    name: str, lines: Sequence[Sequence[float | None]], roles: Sequence[str], layers: Sequence[int]
) -> str:
    best = max(
        (value, roles[y], layers[x])
        for y, line in enumerate(lines)
        for x, value in enumerate(line)
        if value is not None
    )
    return f"Largest {name}: {number(best[0])}, in {best[1]} of layer {best[2]}."


def models(row: Mapping[str, Any], languages: Mapping[str, Any]) -> Case | None:
    """Return the case of a measurement with `data.points`, one entry per model; None where fewer than two have both."""
    found = row["data"].get("points")
    if not isinstance(found, list) or not found or "sparsity" not in found[0]:
        return None
    known = [one for one in found if one["sparsity"] is not None and one["recovered"] is not None]
    if len(known) < 2:
        return None
    one = Series(name="sparsity", x=[point["sparsity"] for point in known], y=[point["recovered"] for point in known])
    return scatter(row, [point["model"] for point in known], [one], ("model", "recovered share of damage"), languages)
