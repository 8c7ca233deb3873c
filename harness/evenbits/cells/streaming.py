"""Where lacking cells are computed: layer by layer from disk, where memory has no room for the whole model.

Full precision and every variant of a chunk of text go through a layer while its weights are there: a pass over the
checkpoint serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from evenbits.cells.cell import Cell
from evenbits.errors import NotApplicableError
from evenbits.progress import Progress
from evenbits.records import digest_of
from evenbits.variants.variant import FULL_PRECISION, SMALL_BATCH, InMemory, Original

if TYPE_CHECKING:
    from evenbits.models.skeleton import Skeleton
    from evenbits.scoring import HiddenStates
    from evenbits.scoring.streamed import Passage
    from evenbits.scoring.sweep import Layers

__all__ = ["Streamed"]

KEPT_BYTES = 2 << 30
"""Streams of all positions, texts and variants that are held between two layers; more of them cost another pass."""


@dataclass(kw_only=True)
class Streamed:
    """This process, with one layer of the model in memory at a time."""

    together: ClassVar[bool] = True
    _skeletons: dict[str, Skeleton] = field(default_factory=dict, repr=False)
    _layers: dict[str, Layers | None] = field(default_factory=dict, repr=False)

    def release(self) -> None:
        self._skeletons.clear()
        self._layers.clear()

    def fits(self, original: Original, cell: Cell, *, whole: bool = True) -> bool:
        """Return whether `cell` can be computed layer by layer.

        `whole`: the model may be loaded in the run's own dtype, to see whether its layers can be called one by one.
        """
        if cell.variant.in_layer is None:
            return False
        self._prepare(original, cell, whole=whole)
        return self._layers[cell.dtype] is not None

    def refuse(self, original: Original, cells: Sequence[Cell]) -> None:
        """Raise `NotApplicableError` where a cell needs more than a layer at a time, before anything is computed.

        It names the spec, where there is one, not the full precision that is measured beside it.
        """
        whole = [cell for cell in cells if cell.variant.in_layer is None]
        if whole:
            cell = min(whole, key=lambda one: one.variant.key.get("spec") == "full")
            why = "that takes full precision, or simulated rounding without statistics on text and without @global"
            raise _refused(original, cell, why)

    def run(self, original: Original, cells: Sequence[Cell], *, progress: Progress) -> None:
        """Compute the cells; `NotApplicableError` names what needs more than a layer at a time."""
        from evenbits.scoring.head import forget_head

        self.refuse(original, cells)
        for cell in cells:
            if not self.fits(original, cell, whole=False):
                raise _refused(original, cell, "its layers, called one by one, do not give what the model gives")
        for dtype, of_one in groupby(sorted(cells, key=lambda cell: cell.dtype), key=lambda cell: cell.dtype):
            some = list(of_one)
            self._prepare(original, some[0], whole=False)
            skeleton, layers = self._skeletons[dtype], self._layers[dtype]
            if layers is None:
                raise ValueError(f"{some[0].variant.label} does not fit")
            with skeleton.outside():
                read = [(cell, _passage(skeleton, cell)) for cell in _with_references(some)]
                for chunk in _chunks(read, width=skeleton.width):
                    _measure(original, skeleton, layers, chunk, progress)
            forget_head(skeleton.loaded)  # a GiB of 8 billion weights, beside which the next dtype has no room

    def _prepare(self, original: Original, cell: Cell, *, whole: bool) -> None:
        """Make the skeleton in the dtype of `cell`, and find out how its layers are run: in all dtypes alike."""
        import torch

        from evenbits.models.skeleton import Skeleton
        from evenbits.scoring.streamed import layers_of, same_way
        from evenbits.scoring.sweep import Text

        if cell.dtype in self._layers:
            return
        skeleton = Skeleton(original.local, dtype=getattr(torch, cell.dtype), device=original.device)
        self._skeletons[cell.dtype] = skeleton
        known = next((layers for layers in self._layers.values() if layers is not None), None)
        if known is not None:
            self._layers[cell.dtype] = same_way(known, skeleton)
            return
        text = Text.of(skeleton.loaded, cell.language, cell.segment_ids, cell.texts, cell.context)
        self._layers[cell.dtype] = layers_of(
            skeleton, text, context=cell.context, whole=original.loaded if whole else None
        )


def _refused(original: Original, cell: Cell, why: str) -> NotApplicableError:
    return NotApplicableError(
        f"{cell.variant.label} on a {original.local.model_type} model cannot be measured layer by layer: {why}. Leave "
        "--stream-layers out."
    )


def _with_references(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells text by text, full precision first where a divergence from it is measured."""
    every = {digest_of(cell.key()): cell for cell in cells}
    for cell in cells:
        if cell.variant.divergence:
            full = replace(cell, variant=FULL_PRECISION)
            every[digest_of(full.key())] = full
    return sorted(every.values(), key=lambda cell: (cell.text_digest, cell.variant.divergence))


def _passage(skeleton: Skeleton, cell: Cell) -> Passage:
    from evenbits.scoring.likelihood import read_batches
    from evenbits.scoring.streamed import Passage

    if cell.variant.in_layer is None:
        raise ValueError(f"{cell.variant.label} cannot be applied layer by layer")
    batches = read_batches(
        skeleton.loaded,
        cell.language,
        cell.segment_ids,
        cell.texts,
        context=cell.context,
        batch_tokens=SMALL_BATCH if cell.small_batches else None,
    )
    return Passage(batches=batches, change=cell.variant.in_layer, name=digest_of({"variant": dict(cell.variant.key)}))


def _chunks(read: Sequence[tuple[Cell, Passage]], *, width: int) -> Iterator[list[tuple[Cell, Passage]]]:
    """Yield as many texts as there is room for, each with all that is measured on it."""
    chunk: list[tuple[Cell, Passage]] = []
    held = 0
    for _, of_one in groupby(read, key=lambda one: one[0].text_digest):
        some = list(of_one)
        size = 4 * width * sum(len(window) for _, passage in some for batch in passage.batches for window in batch)
        if chunk and held + size > KEPT_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk += some
        held += size
    if chunk:
        yield chunk


def _measure(
    original: Original, skeleton: Skeleton, layers: Layers, chunk: Sequence[tuple[Cell, Passage]], progress: Progress
) -> None:
    """Take the texts of a chunk through the layers once, then score them."""
    from evenbits.scoring.streamed import stream

    loaded = skeleton.loaded
    texts = len({cell.text_digest for cell, _ in chunk})
    what = f"{original.local.text}  {len(chunk)} measurements of {texts} texts, layer by layer"
    with progress.task(what, total=len(loaded.anatomy.layers)) as task:
        bodies = stream(skeleton, layers, [passage for _, passage in chunk], advance=task.advance)
    arithmetic = InMemory(loaded, context=original.context).arithmetic
    referred = {cell.text_digest for cell, _ in chunk if cell.variant.divergence}
    kept: dict[str, HiddenStates | None] = {}
    for (cell, passage), body in zip(chunk, bodies, strict=True):
        keep = cell.variant is FULL_PRECISION and not cell.small_batches and cell.text_digest in referred
        scorer = InMemory(loaded, context=original.context, body=body)
        with passage.change(loaded, None):
            losses, hidden = scorer.score(
                cell.language,
                cell.segment_ids,
                cell.texts,
                reference=kept[cell.text_digest] if cell.variant.divergence else None,
                keep_hidden=keep,
                small_batches=cell.small_batches,
            )
        if keep:
            kept[cell.text_digest] = hidden
        cell.put(original.store, losses, arithmetic=arithmetic)
