"""The subject: one model of a run, measured cell by cell into the store; what is stored is not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evenbits.cells.cell import KIND, Cell, cells_of
from evenbits.cells.runner import Local, Runner, lacking
from evenbits.cells.spread import FLOOR_LANGUAGES, spread_of
from evenbits.errors import SpecError
from evenbits.models.device import CPU, Device, room_on
from evenbits.models.records import OnDemand
from evenbits.observe.weights.superweights import SpikeProfile, SuperWeightCandidate, super_weight_candidates
from evenbits.progress import Progress, Silent
from evenbits.records import Corpus, Losses, text_digest
from evenbits.store import Store
from evenbits.variants.variant import Variant

if TYPE_CHECKING:  # torch and transformers are imported when something has to be computed
    from evenbits.models.records import LoadedModel, LocalModel
    from evenbits.observe.weights.statistics import WeightStatistics

__all__ = ["DTYPES", "Subject"]

SCHEMA = 2
"""Raised whenever the same inputs would give other candidates."""

DTYPES = ("bfloat16", "float32")


@dataclass(kw_only=True)
class Subject:
    """One model: loaded on first need, changed only inside variants, measured into the store.

    `probe` is the text that statistics-based retention criteria may look at; it never overlaps the scored text.
    `runner` computes what the store lacks. Holds at most one loaded model: asking for another dtype lets the first go.
    """

    local: LocalModel
    store: Store
    dtype: str = "bfloat16"
    device: Device = CPU
    seed: int = 0
    context: int = 1024
    probe: Corpus | None = None
    progress: Progress = field(default_factory=Silent)
    runner: Runner = field(default_factory=Local)
    _loaded: dict[str, LoadedModel] = field(default_factory=dict, repr=False)

    def loaded(self, dtype: str | None = None) -> LoadedModel:
        """Return the model in memory, in `dtype` (default: the run's)."""
        wanted = dtype or self.dtype
        if wanted not in self._loaded:
            import torch

            from evenbits.models.loading import load

            self._loaded.clear()
            self._loaded[wanted] = load(self.local, dtype=getattr(torch, wanted), device=self.device)
        return self._loaded[wanted]

    def on_demand(self) -> OnDemand:
        """Return the model as what is loaded only where the store lacks something, in the run's dtype."""
        return OnDemand(local=self.local, arithmetic=self.device.arithmetic(f"torch.{self.dtype}"), loader=self.loaded)

    def release(self) -> None:
        """Give the model's memory back; it is loaded again when something has to be computed."""
        self._loaded.clear()
        self.runner.release()

    def cells(self, variant: Variant, corpus: Corpus, *, small_batches: bool = False) -> tuple[Cell, ...]:
        """Return the cells of `variant` on `corpus`, one for each language."""
        return cells_of(
            variant,
            corpus,
            model=self.local.fingerprint,
            dtype=self.dtype,
            device=self.device,
            context=self.context,
            small_batches=small_batches,
        )

    def measure(self, cells: Sequence[Cell]) -> list[Losses]:
        """Return the losses of `cells`, in their order; only what the store lacks is computed."""
        missing = lacking(self.store, cells)
        if missing:
            self.store.refuse_if_sealed(
                KIND, missing[0].key() | {"model": self.local.text, "language": missing[0].language}
            )
            with room_on(self.device, "what is measured beside the model"):
                self.runner.run(self, missing, progress=self.progress)
        self.store.hits += len(cells) - len(missing)
        return [self._read(cell) for cell in cells]

    def _read(self, cell: Cell) -> Losses:
        entry = self.store.get(KIND, cell.key())
        if entry is None:
            raise SpecError(f"{cell.variant.label} was not measured in {cell.language}, and nobody says why")
        return cell.losses(entry)

    def losses(self, variant: Variant, corpus: Corpus) -> dict[str, Losses]:
        """Return the losses of `corpus` under `variant` by language."""
        return dict(zip(corpus.languages, self.measure(self.cells(variant, corpus)), strict=True))

    def weight_statistics(self) -> WeightStatistics:
        """Return the statistics of the checkpoint's linear tensors; no model is loaded."""
        from evenbits.observe.weights.checkpoint import weight_statistics

        return weight_statistics(self.local, store=self.store, progress=self.progress)

    def super_weight_candidates(self) -> tuple[SuperWeightCandidate, ...]:
        """Return the weights at which activation spikes of the MLP down projections meet, strongest first.

        Spikes are looked for on the first probe segment of up to eight languages: a super weight shows on any text.
        """
        if self.probe is None:
            raise SpecError("the search for super weights needs probe text")
        sample = self.probe.select(languages=spread_of(self.probe.languages, FLOOR_LANGUAGES), indices=(0,))
        texts = [sample.texts[tag][0] for tag in sample.languages]
        key = {
            "schema": SCHEMA,
            "model": self.local.fingerprint,
            "dtype": self.device.arithmetic(self.dtype),
            "texts": text_digest(texts),
        }
        entry = self.store.compute("super-weight-candidates", key, lambda: ({}, {"found": self._candidates(texts)}))
        return tuple(SuperWeightCandidate(**row) for row in entry.meta["found"])

    def _candidates(self, texts: Sequence[str]) -> list[Mapping[str, Any]]:
        from evenbits.observe.activations.spikes import spike_peaks
        from evenbits.variants.quantization.patching import checkpoint_source

        loaded = self.loaded()
        peaks, source = spike_peaks(loaded, texts), checkpoint_source(loaded)
        profiles = []
        for layer, product in loaded.anatomy.feeding():
            inputs = np.atleast_2d(peaks[product.name].inputs)  # of each expert, where there are any
            outputs = peaks[product.name].outputs.reshape(len(inputs), -1)
            profiles += [
                SpikeProfile(
                    name=product.name,
                    layer=layer,
                    input_peak=inputs[number],
                    output_peak=outputs[number],
                    first_row=number * outputs.shape[1],
                )
                for number in range(len(inputs))
            ]
        found = super_weight_candidates(profiles, lambda name, row, column: float(source(name)[row, column]))
        return [asdict(candidate) for candidate in found]
