"""Where lacking cells are computed: in this process.

A cell is stored as soon as it is known, so that a killed run resumes at the first one that lacks; two runs on one store
share the work. Cells of single-layer changes share what stands before the layer, and cells of several variants the
logits of full precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Protocol

from evenbits.cells.cell import KIND, Cell
from evenbits.cells.streaming import Streamed
from evenbits.progress import Progress
from evenbits.records import Losses
from evenbits.store import Store
from evenbits.variants.variant import FULL_PRECISION, InMemory, Original, Scorer, full_beside

if TYPE_CHECKING:
    from evenbits.scoring import HiddenStates

__all__ = ["Local", "Runner", "lacking"]


HELD_BYTES = 192 << 20
"""Final hidden states of variants that are held for one pass of full precision's head, before it is made again."""


class Runner(Protocol):
    """Fills the store with cells of one model. `together`: whether it is best asked for all that is wanted at once."""

    together: ClassVar[bool]

    def run(self, original: Original, cells: Sequence[Cell], *, progress: Progress) -> None:
        """Compute every one of `cells` into the store of `original`; none of them is in it yet."""

    def release(self) -> None:
        """Give back what was kept for further cells of this model."""


def lacking(store: Store, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are not in the store."""
    return [cell for cell in cells if store.get(KIND, cell.key()) is None]


@dataclass(kw_only=True)
class Local:
    """This process. Keeps full precision's final hidden states, against which KL is measured.

    What is measured in another arithmetic than the run's is taken layer by layer from disk where that can be, so that
    the model is never held twice.
    """

    together: ClassVar[bool] = False
    _hidden: dict[tuple[bool, str, str], HiddenStates] = field(default_factory=dict, repr=False)
    _streamed: Streamed = field(default_factory=Streamed, repr=False)

    def release(self) -> None:
        self._hidden.clear()
        self._streamed.release()

    def run(self, original: Original, cells: Sequence[Cell], *, progress: Progress) -> None:
        """Compute cells variant by variant; changes of single layers are swept together."""
        swept = [cell for cell in cells if _can_be_swept(cell)]
        several = len({id(cell.variant) for cell in swept}) > 1
        if several:
            for _, of_one in groupby(swept, key=lambda cell: cell.dtype):
                _sweep(original, list(of_one), progress)
        rest = [cell for cell in cells if not (several and _can_be_swept(cell))]
        streamed = [one for one in rest if one.dtype != original.dtype and self._streamed.fits(original, one)]
        if streamed:
            self._streamed.run(original, streamed, progress=progress)
        rest = [cell for cell in rest if cell not in streamed]
        held = [cell for cell in rest if _can_be_held(cell)]  # first: what they keep of full precision is stored too
        for dtype in dict.fromkeys(cell.dtype for cell in held):
            by_variant = _by_variant([cell for cell in held if cell.dtype == dtype])
            if len(by_variant) > 1:
                self._score_together(original, dtype, by_variant, progress)
            else:
                self._score(original, by_variant[0], progress)
        for alike in _by_variant([cell for cell in rest if not _can_be_held(cell)]):
            self._score(original, alike, progress)

    def _score(self, original: Original, cells: Sequence[Cell], progress: Progress) -> None:
        """Compute the cells of one variant in one arithmetic."""
        variant = replace(cells[0].variant, dtype=cells[0].dtype)
        if variant.divergence:
            self._keep_full_precision(original, cells, progress)
        what = f"{original.local.text}  {variant.label}"
        with progress.task(what, total=len(cells)) as task, ExitStack() as stack:
            scorer: Scorer | None = None
            for cell in cells:
                task.doing(cell.language)
                if scorer is None:
                    scorer = stack.enter_context(variant.open(original))
                reference = self._hidden[_beside(cell)] if variant.divergence else None
                cell.put(original.store, partial(_losses, scorer, cell, reference), arithmetic=scorer.arithmetic)
                task.advance(1)

    def _score_together(
        self, original: Original, dtype: str, by_variant: Sequence[Sequence[Cell]], progress: Progress
    ) -> None:
        """Compute the cells of several variants in one arithmetic, as many variants at once as `HELD_BYTES` lets."""
        from evenbits.scoring.beside import Reading, read, score_each
        from evenbits.scoring.sweep import Text

        every = [cell for of_one in by_variant for cell in of_one]
        self._keep_full_precision(original, every, progress)
        loaded = original.loaded(dtype)
        arithmetic = InMemory(loaded, context=original.context).arithmetic
        texts: dict[str, Text] = {}
        readings: dict[str, list[tuple[Cell, Reading]]] = {}
        with progress.task(f"{original.local.text}  {len(by_variant)} variants", total=len(every)) as task:

            def score() -> None:
                for digest, pairs in readings.items():
                    task.doing(texts[digest].tag)
                    found = score_each(texts[digest], [one for _, one in pairs], self._hidden[True, dtype, digest])
                    for (cell, _), losses in zip(pairs, found, strict=True):
                        cell.put(original.store, losses, arithmetic=arithmetic)
                        task.advance(1)
                readings.clear()

            for of_one in by_variant:
                missing = lacking(original.store, of_one)  # another run may have been here meanwhile
                task.advance(len(of_one) - len(missing))
                if not missing:
                    continue
                with missing[0].variant.applied(loaded):
                    for cell in missing:
                        task.doing(f"{cell.variant.label}  {cell.language}")
                        name = cell.text_digest
                        if name not in texts:
                            texts[name] = Text.of(loaded, cell.language, cell.segment_ids, cell.texts, cell.context)
                        readings.setdefault(name, []).append((cell, read(loaded, texts[name], context=cell.context)))
                if sum(one.nbytes for pairs in readings.values() for _, one in pairs) > HELD_BYTES:
                    score()
            score()

    def _keep_full_precision(self, original: Original, cells: Sequence[Cell], progress: Progress) -> None:
        """Keep the final hidden states of full precision on the text of `cells`, and store its losses."""
        texts = {cell.text_digest: cell for cell in cells}
        missing = [cell for cell in texts.values() if _beside(cell) not in self._hidden]
        if not missing:
            return
        variant = full_beside(missing[0].variant, dtype=missing[0].dtype)
        with (
            progress.task(f"{original.local.text}  full precision", total=len(missing)) as task,
            variant.open(original) as scorer,
        ):
            for cell in missing:
                task.doing(cell.language)
                losses, hidden = scorer.score(cell.language, cell.segment_ids, cell.texts, keep_hidden=True)
                if hidden is not None:  # always, as it was asked for
                    self._hidden[_beside(cell)] = hidden
                full = replace(cell, variant=variant, device=original.device.key(cell.dtype))
                full.put(original.store, losses, arithmetic=scorer.arithmetic)
                task.advance(1)


def _can_be_swept(cell: Cell) -> bool:
    return cell.variant.first_layer is not None and not cell.variant.divergence and not cell.small_batches


def _beside(cell: Cell) -> tuple[bool, str, str]:
    """Return what tells the hidden states of full precision apart that a cell is held against."""
    return cell.variant.lean, cell.dtype, cell.text_digest


def _by_variant(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells of each variant in one arithmetic."""
    groups = groupby(cells, key=lambda cell: (id(cell.variant), cell.dtype, cell.small_batches))
    return [list(of_one) for _, of_one in groups]


def _can_be_held(cell: Cell) -> bool:
    """Return whether its hidden states alone say what the cell is about, and may wait for those of other variants."""
    return cell.variant.in_memory and cell.variant.divergence and not cell.small_batches


def _losses(scorer: Scorer, cell: Cell, reference: HiddenStates | None) -> Losses:
    losses, _ = scorer.score(
        cell.language, cell.segment_ids, cell.texts, reference=reference, small_batches=cell.small_batches
    )
    return losses


def _sweep(original: Original, cells: Sequence[Cell], progress: Progress) -> None:
    """Compute changes of single layers in one arithmetic; the layers before a change run once for all of them."""
    from evenbits.scoring.sweep import Change, sweep

    loaded = original.loaded(cells[0].dtype)
    arithmetic = InMemory(loaded, context=cells[0].context).arithmetic
    variants = list({id(cell.variant): cell.variant for cell in cells}.values())
    changes = [Change(layer=variant.first_layer or 0, apply=partial(variant.applied, loaded)) for variant in variants]
    for of_text in _by_text(cells):
        some = of_text[0]
        texts = {cell.language: cell.texts for cell in of_text}
        what = f"{original.local.text}  {len(changes)} single changes in {len(texts)} languages"
        with progress.task(what) as task:
            for swept in sweep(
                loaded,
                some.segment_ids,
                texts,
                changes,
                context=some.context,
                advance=task.advance,
                expect=task.expect,
            ):
                measured = [(FULL_PRECISION, swept.full), *zip(variants, swept.changed, strict=True)]
                for variant, by_tag in measured:
                    for tag, losses in by_tag.items():
                        cell = replace(some, variant=variant, language=tag, texts=texts[tag])
                        cell.put(original.store, losses, arithmetic=arithmetic)


def _by_text(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Yield the cells in groups of equal segments."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.segment_ids, []).append(cell)
    yield from groups.values()
