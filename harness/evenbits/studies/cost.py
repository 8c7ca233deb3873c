"""What measuring takes, told before it starts: passes, operations, time on this device, memory and disk.

Work is what studies want and the store lacks: text that goes through the model, weights that are read, rounded and
weighed, numbers that are kept. How fast this machine is at each is timed (`speeds.py`); a pass multiplies every matrix
that a token meets (of experts those that are chosen) once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from evenbits.cells import Subject
from evenbits.cells.cell import KIND, Cell
from evenbits.cells.streaming import KEPT_BYTES, Streamed
from evenbits.models.blueprint import Blueprint, blueprint
from evenbits.models.headers import weight_files
from evenbits.observe.weights.checkpoint import KIND as WEIGHED
from evenbits.observe.weights.checkpoint import matrix_key, places_of
from evenbits.records import Corpus, digest_of
from evenbits.store import Store
from evenbits.studies.observation import Observation, linear_weights
from evenbits.studies.speeds import Speeds, product_seconds, speeds_of
from evenbits.studies.study import Wants
from evenbits.variants.quantization.spec import QuantSpec
from evenbits.variants.variant import SMALL_BATCH

__all__ = ["Cost", "Load", "cost_of", "costs_of", "duration", "export_load", "lacking", "parts"]

SLOWER = 2.5
"""Time of a pass in times of its matrix products: between what scoring takes and what it may (tests/benchmarks).

What a matrix takes however few the tokens, as it comes from memory, is taken once.
"""

SWEPT = 0.55
"""Share of a pass that a change of one layer takes: what stands before the layer runs once for all of them."""

STARTED, ENTERED, ATTENDED = 2300.0, 4.0, 0.12
"""Yardsticks of Python (`Speeds.python`) that starting takes (torch and transformers are imported), an entry of the
store (tokenizing, a file, a lock), and a segment in a layer (its attention is computed alone)."""

CHOSEN, CLIPPED, PACKED = 6.0, 20.0, 20.0
"""Times of plain rounding that it takes to choose weights first, to search the range of each group, to pack codes."""

PROCESS_BYTES = 0.6 * 2**30
"""Python, torch and transformers, with the activations of a batch."""

WIDENED_BYTES = 2 * 2**30
"""Copies of weights in the dtype of products, where that is another (`evenbits.scoring.arithmetic`)."""

ENTRY_BYTES = 900
"""Of an entry of the store beside its numbers: key, checksum, names."""

SAMPLE = 4
"""Segments of each language that are tokenized to learn how many bytes a token has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Work that the store lacks: a cell, a language of an observation, a matrix to weigh, a model to write.

    `utf8_bytes`: text that goes through the model, in passes of scoring, in `sequences` segments: `passes` times a
    language's. `batch`: tokens that go together, None for the usual number and 1 for segments one by one. `segments`:
    of a cell, else 0. `divergence`: whether it is held against full precision's hidden states. `dtype`: None for the
    run's. `change`: what weights are replaced by, made once for all work with the same; `effort`: how many models'
    worth of plain rounding that takes, or layers' worth where `one_layer` is all that changes. `weighed`: weights of
    which statistics are taken. `read_bytes`: of the checkpoint, beside loading it. `disk_bytes`, `held_bytes`: what is
    kept, and what is held in memory beside the model.
    """

    utf8_bytes: float = 0.0
    sequences: float = 0.0
    passes: float = 1.0
    batch: int | None = None
    segments: int = 0
    divergence: bool = False
    dtype: str | None = None
    change: str | None = None
    effort: float = 0.0
    one_layer: bool = False
    weighed: int = 0
    read_bytes: float = 0.0
    disk_bytes: float = 0.0
    held_bytes: float = 0.0


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
        if not self.seconds:
            return "nothing is left to measure"
        passes = f"about {self.passes:.3g} passes, {self.flop / 1e9:,.3g} GFLOP, " if self.flop else ""
        return (
            f"{self.cells:,} cells, {passes}{duration(self.seconds)}, {self.memory_bytes / 2**30:.1f} GiB of memory, "
            f"{self.disk_bytes / 2**20:.1f} MiB on disk"
        )


def lacking(wants: Wants, store: Store) -> dict[Hashable, Load]:
    """Return what `store` lacks of `wants`: cells by the digest of their key, other work by what it is of."""
    return {name: load for name, (load, stored) in parts(wants).items() if not stored(store)}


def parts(wants: Wants) -> dict[Hashable, tuple[Load, Callable[[Store], bool]]]:
    """Return all of `wants`, named as by `lacking`, each with what tells whether a store has it."""
    found: dict[Hashable, tuple[Load, Callable[[Store], bool]]] = {}
    for cell in wants.cells:
        key = cell.key()
        found[digest_of(key)] = _of_cell(cell), partial(Store.has, kind=KIND, key=key)
    for one in wants.observations:
        for tag in one.corpus.languages:
            found[one.what, one.corpus.digest, one.dtype, tag] = _of_language(one, tag), partial(one.has, language=tag)
    if (subject := wants.weighed) is not None:
        drawn = blueprint(subject.local, store=subject.store)
        for place in places_of(drawn).values():
            rows, columns = drawn.shapes.get(place.name, (0, 0))
            load = Load(weighed=rows * columns, disk_bytes=ENTRY_BYTES + 72 * rows + 16 * columns)
            key = matrix_key(subject.local, place)
            found[WEIGHED, subject.local.fingerprint, place.name] = load, partial(Store.has, kind=WEIGHED, key=key)
    return found


def _of_cell(cell: Cell) -> Load:
    variant = cell.variant
    share = SWEPT if variant.first_layer is not None else 1.0
    changed = variant.key.get("spec") != "full"
    key = {"variant": dict(variant.key), "dtype": cell.dtype, "small": cell.small_batches, "kl": variant.divergence}
    return Load(
        utf8_bytes=share * sum(len(text.encode("utf-8")) for text in cell.texts),
        sequences=share * len(cell.texts),
        passes=share,
        batch=SMALL_BATCH if cell.small_batches else None,
        segments=len(cell.texts),
        divergence=variant.divergence,
        dtype=cell.dtype if variant.in_memory else None,
        change=digest_of(key) if changed and variant.in_memory else None,
        effort=_effort(variant.key.get("spec")),
        one_layer=variant.first_layer is not None,
        disk_bytes=ENTRY_BYTES + 8 * (6 if variant.divergence else 3) * len(cell.texts),
    )


def _effort(spec: object) -> float:
    """Return how much longer than plain rounding a change of weights takes; None is zeroing those that are chosen."""
    if spec is None:
        return CHOSEN
    return CLIPPED if "+clip" in str(spec) else CHOSEN if "+keep" in str(spec) else 1.0


def _of_language(one: Observation, tag: str) -> Load:
    return Load(
        utf8_bytes=one.passes * one.corpus.utf8_bytes(tag),
        sequences=one.passes * len(one.corpus),
        passes=one.passes,
        batch=1 if one.alone else None,
        dtype=one.dtype,
        change=digest_of([one.what, one.corpus.digest]) if one.rounds else None,
        effort=one.rounds,
        disk_bytes=ENTRY_BYTES + one.disk_bytes,
        held_bytes=one.held_bytes,
    )


def export_load(subject: Subject, spec: QuantSpec, *, bits_per_weight: float) -> Load:
    """Return what writing a model quantized as `spec` takes: reading it twice, rounding, packing, and writing.

    All that is not rounded is written as the checkpoint has it.
    """
    size = _checkpoint_bytes(subject)
    linears = linear_weights(blueprint(subject.local, store=subject.store))
    rest = size * max(0.0, 1 - linears / max(1, subject.local.parameters))
    written = linears * bits_per_weight / 8 + rest
    return Load(
        change=str(spec),
        effort=PACKED + _effort(spec),
        read_bytes=2 * size + 2 * written,  # it is written, and read for its checksum
        disk_bytes=written,
        held_bytes=written + 4 * linears / 8,
    )


def costs_of(works: Iterable[tuple[Subject, Collection[Load], Corpus | None]]) -> list[Cost]:
    """Return the cost of each model's work in one run; the first that has any is started for."""
    costs: list[Cost] = []
    start = True
    for subject, loads, corpus in works:
        costs.append(cost_of(subject, loads, corpus, start=start))
        start = start and not loads
    return costs


def cost_of(subject: Subject, loads: Iterable[Load], corpus: Corpus | None, *, start: bool = True) -> Cost:
    """Return what `loads` take of the subject's model; `corpus`: the text that passes are counted over, None for none.

    `start`: whether the time includes that of starting, which a run over several models does once.
    """
    chosen = list(loads)
    drawn = blueprint(subject.local, store=subject.store)
    size = 0 if corpus is None else sum(corpus.utf8_bytes(tag) for tag in corpus.languages)
    token_bytes = _bytes_per_token(subject, corpus) if corpus is not None and size else 1.0
    tokens = sum(one.utf8_bytes for one in chosen) / token_bytes
    seconds = 0.0
    if chosen:
        seconds = _seconds(subject, drawn, chosen, token_bytes) + (STARTED * _speeds(subject).python if start else 0.0)
    kept = sum(one.utf8_bytes for one in chosen if one.divergence) / token_bytes  # the KL of each token
    return Cost(
        cells=sum(one.segments > 0 for one in chosen),
        passes=sum(one.utf8_bytes for one in chosen) / max(1, size),
        tokens=tokens,
        flop=2.0 * drawn.active * tokens,
        seconds=seconds,
        memory_bytes=_memory(subject, drawn, chosen, size / token_bytes) if chosen else 0.0,
        disk_bytes=sum(one.disk_bytes for one in chosen) + 4 * kept,
    )


def _seconds(subject: Subject, drawn: Blueprint, loads: Sequence[Load], token_bytes: float) -> float:
    speeds, layers = _speeds(subject), len(drawn.anatomy.layers)
    changes = {one.change: one.effort / (layers if one.one_layer else 1) for one in loads if one.change is not None}
    rounded = sum(changes.values()) * linear_weights(drawn)
    loaded = _checkpoint_bytes(subject) * _readings(subject, drawn, loads, token_bytes)
    read = loaded + sum(one.read_bytes for one in loads)
    entries = sum(one.weighed > 0 or one.utf8_bytes > 0 for one in loads)
    attended = layers * sum(one.sequences for one in loads)
    return (
        read / speeds.read
        + rounded / speeds.rounded
        + sum(one.weighed for one in loads) / speeds.weighed
        + speeds.python * (ENTERED * entries + ATTENDED * attended)
        + sum(_pass_seconds(subject, drawn, one, token_bytes) for one in loads)
    )


def _pass_seconds(subject: Subject, drawn: Blueprint, load: Load, token_bytes: float) -> float:
    """Return the seconds of the products that the text of `load` takes."""
    if not load.utf8_bytes:
        return 0.0
    products = product_seconds(
        drawn.multiplied, dtype=_products_in(subject, load.dtype or subject.dtype), device=subject.device.name
    )
    tokens = load.utf8_bytes / token_bytes
    calls = load.sequences if load.batch == 1 else max(load.passes, tokens / (load.batch or _batch_tokens(subject)))
    return SLOWER * tokens * products.token + calls * products.call


def _readings(subject: Subject, drawn: Blueprint, loads: Sequence[Load], token_bytes: float) -> int:
    """Return how often the checkpoint is read: once for each dtype, layer by layer as often as memory is full.

    Types that the lean forward does not know are asked first whether their layers can be called one by one: twice.
    """
    tokens: dict[str, float] = {}
    for one in loads:
        if one.utf8_bytes:
            dtype = one.dtype or subject.dtype
            tokens[dtype] = tokens.get(dtype, 0.0) + one.utf8_bytes / token_bytes
    if not isinstance(subject.runner, Streamed):
        return len(tokens)
    from evenbits.scoring.packed import FAMILIES

    asked = 0 if drawn.anatomy.model_type in FAMILIES else 2
    width = 4 * drawn.shapes[drawn.anatomy.embedding][1]
    return asked + sum(max(1, math.ceil(width * held / KEPT_BYTES)) for held in tokens.values())


def _checkpoint_bytes(subject: Subject) -> int:
    return sum(file.stat().st_size for file in weight_files(subject.local.folder))


def _speeds(subject: Subject) -> Speeds:
    return speeds_of(subject.local, dtype=subject.dtype, device=subject.device.name)


def _batch_tokens(subject: Subject) -> int:
    import torch

    from evenbits.scoring.likelihood import batch_tokens_for

    return batch_tokens_for(torch.device(subject.device.name))


def _memory(subject: Subject, drawn: Blueprint, loads: Sequence[Load], tokens: float) -> float:
    """Return about the most memory that measuring holds at once."""
    size = 4 if subject.dtype == "float32" else 2
    head = drawn.shapes[drawn.anatomy.head]
    linears = linear_weights(drawn)
    if all(one.weighed for one in loads):
        return PROCESS_BYTES  # a matrix for each thread, in pieces
    if isinstance(subject.runner, Streamed):  # float32, of the noise floor: what stands outside, a layer, its rounding
        layer = linears / len(drawn.anatomy.layers)
        return PROCESS_BYTES + 4 * (subject.local.parameters - linears + 2 * layer)
    held = float(size * subject.local.parameters) + max(one.held_bytes for one in loads)
    if any(one.change is not None and one.utf8_bytes for one in loads):
        held += size * linears
    if any(one.divergence for one in loads):
        held += size * (head[0] * head[1] + tokens * head[1])
    if any(one.utf8_bytes for one in loads) and _products_in(subject, subject.dtype) != subject.dtype:
        held += min(WIDENED_BYTES, 4 * (linears + head[0] * head[1]))
    return PROCESS_BYTES + held


def _products_in(subject: Subject, dtype: str) -> str:
    """Return the dtype in which a model in `dtype` is multiplied on the subject's device."""
    import torch

    from evenbits.scoring.arithmetic import product_dtype

    kind = product_dtype(getattr(torch, dtype), torch.device(subject.device.name))
    return str(kind).removeprefix("torch.")


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


def duration(seconds: float | None) -> str:
    """Return a time as people say it."""
    if seconds is None:
        return "unknown time"
    if not seconds:
        return "no time"
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
