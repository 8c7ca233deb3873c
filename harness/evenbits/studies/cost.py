"""What measuring takes, told before it starts: passes, operations, time on this device, memory and disk.

Cells and observations are those that studies want and the store lacks. A pass multiplies every matrix that a token
meets (of experts those that are chosen) once; how long that takes is measured once per model and device, with products
of the model's own shapes, and kept.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from evenbits.cells import Subject
from evenbits.cells.cell import KIND, Cell
from evenbits.cells.streaming import Streamed
from evenbits.models.blueprint import Blueprint, blueprint
from evenbits.records import Corpus, digest_of
from evenbits.store import Store
from evenbits.studies.study import Wants

__all__ = ["Cost", "Load", "cost_of", "duration", "lacking", "parts"]

SLOWER = 2.5
"""Time of a pass in times of its matrix products: between what scoring takes and what it may (tests/benchmarks)."""

SWEPT = 0.55
"""Share of a pass that a change of one layer takes: what stands before the layer runs once for all of them."""

PROCESS_BYTES = 0.6 * 2**30
"""Python, torch and transformers, with the activations of a batch."""

WIDENED_BYTES = 2 * 2**30
"""Copies of weights in the dtype of products, where that is another (`evenbits.scoring.arithmetic`)."""

ENTRY_BYTES = 900
"""Of an entry of the store beside its numbers: key, checksum, names."""

SAMPLE = 4
"""Segments of each language that are tokenized to learn how many bytes a token has."""

PRODUCT_TOKENS, PRODUCT_FLOP = 512, 4e9
"""Rows of the products that are timed: so many, fewer where a matrix is so large that they would take long."""

ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """One cell or observation that the store lacks.

    `utf8_bytes`: text to run over, in passes of scoring. `segments`: of a cell, 0 for an observation. `divergence`:
    whether it is held against full precision's hidden states. `changed`: whether weights are replaced for it.
    """

    utf8_bytes: float
    segments: int = 0
    divergence: bool = False
    changed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What measuring takes; all are estimates. `passes`: over the text at hand; `flop`: operations of its products."""

    cells: int
    passes: float
    tokens: float
    flop: float
    seconds: float
    memory_bytes: float
    disk_bytes: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def sentence(self) -> str:
        """Return the cost in a line."""
        return (
            f"{self.cells:,} cells, about {self.passes:.3g} passes, {self.flop / 1e9:,.3g} GFLOP, "
            f"{duration(self.seconds)}, {self.memory_bytes / 2**30:.1f} GiB of memory, "
            f"{self.disk_bytes / 2**20:.1f} MiB on disk"
        )


def lacking(wants: Wants, store: Store) -> dict[Hashable, Load]:
    """Return what `store` lacks of `wants`: cells by the digest of their key, observations by kind and text."""
    return {name: load for name, (load, stored) in parts(wants).items() if not stored(store)}


def parts(wants: Wants) -> dict[Hashable, tuple[Load, Callable[[Store], bool]]]:
    """Return all of `wants`, named as by `lacking`, each with what tells whether a store has it."""
    found: dict[Hashable, tuple[Load, Callable[[Store], bool]]] = {}
    for cell in wants.cells:
        key = cell.key()
        found[digest_of(key)] = _load(cell), partial(Store.has, kind=KIND, key=key)
    for one in wants.observations:
        digest = one.corpus.digest
        for tag in one.corpus.languages:
            load = Load(utf8_bytes=one.passes * one.corpus.utf8_bytes(tag))
            found[one.what, digest, tag] = load, partial(one.has, language=tag)
    return found


def _load(cell: Cell) -> Load:
    share = SWEPT if cell.variant.first_layer is not None else 1.0
    return Load(
        utf8_bytes=share * sum(len(text.encode("utf-8")) for text in cell.texts),
        segments=len(cell.texts),
        divergence=cell.variant.divergence,
        changed=cell.variant.key.get("spec") != "full",
    )


def cost_of(subject: Subject, loads: Iterable[Load], corpus: Corpus) -> Cost:
    """Return what `loads` take of the subject's model; `corpus`: the text that passes are counted over."""
    chosen = list(loads)
    drawn = blueprint(subject.local, store=subject.store)
    text_bytes = sum(corpus.utf8_bytes(tag) for tag in corpus.languages)
    token_bytes = _bytes_per_token(subject, corpus)
    tokens = sum(one.utf8_bytes for one in chosen) / token_bytes
    disk = 0.0
    for one in chosen:
        if one.segments:
            columns = 6 if one.divergence else 3  # by segment; and the KL of each token
            disk += ENTRY_BYTES + 8 * columns * one.segments
            disk += 4 * one.utf8_bytes / token_bytes if one.divergence else 0
    return Cost(
        cells=sum(one.segments > 0 for one in chosen),
        passes=sum(one.utf8_bytes for one in chosen) / max(1, text_bytes),
        tokens=tokens,
        flop=2.0 * drawn.active * tokens,
        seconds=SLOWER * tokens * _seconds_per_token(subject, drawn) if chosen else 0.0,
        memory_bytes=_memory(subject, drawn, chosen, text_bytes / token_bytes) if chosen else 0.0,
        disk_bytes=disk,
    )


def _memory(subject: Subject, drawn: Blueprint, loads: Iterable[Load], tokens: float) -> float:
    """Return about the most memory that measuring holds at once."""
    size = 4 if subject.dtype == "float32" else 2
    head = drawn.shapes[drawn.anatomy.head]
    linears = sum(drawn.shapes[linear.name][0] * drawn.shapes[linear.name][1] for linear in drawn.anatomy.linears)
    if isinstance(subject.runner, Streamed):  # float32, of the noise floor: what stands outside, a layer, its rounding
        layer = linears / len(drawn.anatomy.layers)
        return PROCESS_BYTES + 4 * (subject.local.parameters - linears + 2 * layer)
    held = float(size * subject.local.parameters)
    some = list(loads)
    if any(one.changed for one in some):
        held += size * linears
    if any(one.divergence for one in some):
        held += size * (head[0] * head[1] + tokens * head[1])
    if _products_in(subject) != subject.dtype:
        held += min(WIDENED_BYTES, 4 * (linears + head[0] * head[1]))
    return PROCESS_BYTES + held


def _products_in(subject: Subject) -> str:
    import torch

    from evenbits.scoring.arithmetic import product_dtype

    dtype = product_dtype(getattr(torch, subject.dtype), torch.device(subject.device.name))
    return str(dtype).removeprefix("torch.")


def _bytes_per_token(subject: Subject, corpus: Corpus) -> float:
    """Return the UTF-8 bytes of a token of this model on the text, from a few segments of each language."""

    def count() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        from evenbits.models.loading import tokenizer_of

        texts = [text for tag in corpus.languages for text in corpus.texts[tag][:SAMPLE]]
        read = tokenizer_of(subject.local)(texts, add_special_tokens=False, truncation=False, verbose=False)
        tokens = sum(len(ids) + 1 for ids in read["input_ids"])  # and the prefix
        return {}, {"bytes": sum(len(text.encode("utf-8")) for text in texts) / max(1, tokens)}

    key = {"model": subject.local.fingerprint, "texts": corpus.digest, "sample": SAMPLE}
    return max(0.1, float(subject.store.compute("token-sizes", key, count).meta["bytes"]))


def _seconds_per_token(subject: Subject, drawn: Blueprint) -> float:
    """Return how long the products of a token take here, measured once per model's shapes and device and then kept."""
    products = _products_in(subject)
    key = {
        "shapes": digest_of({"shapes": sorted(map(list, drawn.multiplied.items()))}),
        "dtype": products,
        "machine": platform.node(),
        "device": subject.device.key(subject.dtype),
        "torch": version("torch"),
    }

    def measure() -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return {}, {"seconds": _timed(drawn.multiplied, products, subject.device.name)}

    return float(subject.store.compute("speeds", key, measure).meta["seconds"])


def _timed(
    multiplied: Mapping[str, float], dtype: str, device: str, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds that a token's share of products of each shape takes: the best of a few rounds."""
    import torch

    total = 0.0
    for shape, count in multiplied.items():
        rows, columns = map(int, shape.split("x"))
        tokens = max(32, min(PRODUCT_TOKENS, int(PRODUCT_FLOP / (2 * rows * columns))))
        weight = torch.ones(rows, columns, dtype=getattr(torch, dtype), device=device)
        x = torch.ones(tokens, columns, dtype=weight.dtype, device=device)
        best = float("inf")
        for _ in range(ROUNDS):
            begun = clock()
            float(torch.nn.functional.linear(x, weight)[0, 0])  # a device is waited for
            best = min(best, clock() - begun)
        total += count * best / tokens
    return total


def duration(seconds: float | None) -> str:
    """Return a time as people say it."""
    if seconds is None:
        return "unknown time"
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
