"""How fast this machine is at what measuring consists of.

Timed by every process that asks, in less than a second: nothing is kept, so that a busy moment or another number of
threads is not believed for ever. Of every work the best of a few rounds counts, with the other works in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evenbits.models.records import LocalModel

__all__ = ["Products", "Speeds", "best_of", "product_seconds", "speeds_of"]

ROUNDS = 5

FEW, MANY = 16, 256
"""Tokens of the products that are timed: what each token takes, and what a matrix takes however few they are."""

MATRIX = 1 << 21
"""Weights of a timed product at most: of a larger matrix some rows stand for all."""

ROUNDED, WEIGHED, READ_BYTES = 1 << 20, 1 << 18, 32 << 20

YARDSTICK = "def half(x):\n    return [x[i] for i in range(len(x) // 2) if x[i] is not None]\n" * 60
"""Source text that is compiled, which takes a millisecond or two."""

STATISTICS_THREADS = 2
"""Of `evenbits.observe.weights.checkpoint`."""

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Products:
    """Seconds of a model's matrix products: for each `token`, and for each `call`, however few tokens go through."""

    token: float
    call: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """`python`: seconds of a yardstick of plain Python, of which importing and bookkeeping are multiples.

    `read`: bytes of a checkpoint per second, made weights of the model and checked. `rounded`, `weighed`: weights per
    second that are rounded to a grid, and of which statistics are taken.
    """

    python: float
    read: float
    rounded: float
    weighed: float


def best_of(
    jobs: Sequence[Callable[[], object]], *, rounds: int = ROUNDS, clock: Clock = time.perf_counter
) -> list[float]:
    """Return the shortest time of each job over `rounds` in which all of them take their turn."""
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for place, job in enumerate(jobs):
            begun = clock()
            job()
            best[place] = min(best[place], clock() - begun)
    return best


def speeds_of(local: LocalModel, *, dtype: str, device: str) -> Speeds:
    """Return the speeds at which a model in `dtype` is made ready on `device`."""
    import torch

    return _speeds(local.folder, dtype, device, torch.get_num_threads())


@cache
def _speeds(folder: Path, dtype: str, device: str, _threads: int) -> Speeds:
    import torch

    from evenbits.models import checkpoint
    from evenbits.models.headers import entries
    from evenbits.observe.weights.matrix import ArrayMatrix
    from evenbits.observe.weights.measurement import matrix_statistics
    from evenbits.variants.quantization.matrices import quantize_matrix
    from evenbits.variants.quantization.spec import Grid

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    w_OI = torch.randn(ROUNDED // 1024, 1024, generator=generator)
    on_device, weighed = w_OI.to(device=device, dtype=kind), w_OI.view(-1)[:WEIGHED].view(-1, 512)
    grid = Grid(bits=4, span="group", size=64)
    tensors = {name: entry.end - entry.begin for name, entry in entries(folder).items()}
    small = [name for name, size in tensors.items() if size <= READ_BYTES] or [min(tensors, key=lambda n: tensors[n])]
    tensor = max(small, key=lambda name: tensors[name])

    def read() -> None:
        bool(torch.isfinite(checkpoint.read(folder, tensor).to(dtype=kind, device=device)).all())

    python, reading, rounding, weighing = best_of(
        [
            lambda: compile(YARDSTICK, "yardstick", "exec"),
            read,
            lambda: float(quantize_matrix(on_device, grid, dtype=kind).values[0, 0]),  # a device is waited for
            lambda: matrix_statistics(ArrayMatrix("w", weighed), name="w", layer=0, part="mlp", role="w"),
        ]
    )
    return Speeds(
        python=python,
        read=tensors[tensor] / reading,
        rounded=ROUNDED / rounding,
        weighed=min(STATISTICS_THREADS, os.cpu_count() or 1) * WEIGHED / weighing,
    )


def product_seconds(multiplied: dict[str, float], *, dtype: str, device: str) -> Products:
    """Return what the products `multiplied` (how many of each shape `OxI` a token takes part in) take in `dtype`."""
    import torch

    return _products(tuple(sorted(multiplied.items())), dtype, device, torch.get_num_threads())


@cache
def _products(multiplied: tuple[tuple[str, float], ...], dtype: str, device: str, _threads: int) -> Products:
    import torch

    def job(rows: int, columns: int, tokens: int) -> Callable[[], float]:
        weight = torch.ones(rows, columns, dtype=getattr(torch, dtype), device=device)
        x = torch.ones(tokens, columns, dtype=weight.dtype, device=device)
        return lambda: float(torch.nn.functional.linear(x, weight)[0, 0])  # a device is waited for

    jobs, times = [], []
    for shape, count in multiplied:
        rows, columns = map(int, shape.split("x"))
        some = max(1, min(rows, MATRIX // columns))
        jobs += [job(some, columns, FEW), job(some, columns, MANY)]
        times.append(count * rows / some)
    found = best_of(jobs)
    token = call = 0.0
    for count, few, many in zip(times, found[::2], found[1::2], strict=True):
        each = max((many - few) / (MANY - FEW), many / MANY / 4)  # a lucky round never makes tokens free
        token += count * each
        call += count * max(0.0, few - FEW * each)
    return Products(token=token, call=call)
