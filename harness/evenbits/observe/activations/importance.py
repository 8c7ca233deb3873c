"""Importance of weights from measured activations, in the form `evenbits.variants.quantization` asks for.

Nothing is measured before it is asked for, and everything measured is kept in the store. Languages count equally,
whatever their number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenbits.errors import CorpusError
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.gradients import GradientSquares, gradient_squares
from evenbits.observe.activations.lookup import (
    GRADIENT_SEGMENTS,
    PEAK_TEXTS,
    PEAKS,
    activations,
    peak_key,
)
from evenbits.observe.activations.spikes import Peaks, spike_peaks
from evenbits.observe.activations.statistics import ActivationStatistics
from evenbits.progress import Progress
from evenbits.records import Corpus
from evenbits.store import Store

__all__ = ["ActivationImportance"]


class ActivationImportance:
    """Measurements of the products of `loaded` on the probe texts `corpus`; `languages` None means all of them.

    The model must hold its full-precision weights whenever something is asked for that is not in the store.
    `gradient_segments`: backward passes per language for `gradient_square`, the first segments of the corpus.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        corpus: Corpus,
        *,
        store: Store,
        gradient_segments: int = GRADIENT_SEGMENTS,
        progress: Progress | None = None,
    ) -> None:
        self._loaded, self._corpus, self._store, self._progress = loaded, corpus, store, progress
        self._gradient_segments = gradient_segments
        self._statistics: dict[str, ActivationStatistics] = {}
        self._gradients: dict[tuple[str, ...], GradientSquares] = {}
        self._peaks: Mapping[str, Peaks] | None = None

    def input_rms(self, name: str, languages: tuple[str, ...] | None) -> torch.Tensor:
        """Return the root mean square of every input channel of module `name`, [I], float32; of experts [E, I].

        Languages in which an expert got no token take no part in its mean.
        """
        chosen = self._chosen(languages)
        lacking = [tag for tag in chosen if tag not in self._statistics]
        if lacking:
            self._statistics |= activations(
                self._loaded, self._corpus, store=self._store, languages=lacking, progress=self._progress
            )
        found = [self._statistics[tag] for tag in chosen]
        total: Any = sum(one.input_square[name] for one in found)
        counted: Any = sum((one.routed[name] > 0)[:, None] if name in one.routed else 1 for one in found)
        return torch.from_numpy(np.sqrt(total / np.maximum(counted, 1))).float()

    def gradient_square(self, name: str, languages: tuple[str, ...] | None) -> torch.Tensor:
        """Return the mean squared gradient of the loss by every weight of module `name`, [O, I], float32."""
        chosen = self._chosen(languages)
        if chosen not in self._gradients:
            texts = {tag: self._corpus.texts[tag][: self._gradient_segments] for tag in chosen}
            self._gradients[chosen] = gradient_squares(self._loaded, texts, store=self._store, progress=self._progress)
        return self._gradients[chosen][name]

    def peaks(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the largest |input| of every channel [I] and the largest |output| [O] of module `name`, float32.

        Of experts the inputs are [E, I], the outputs [E * O].

        Over the first texts of every language, the prefix token included: super weights show there.
        """
        if self._peaks is None:
            self._peaks = self._measured_peaks()
        found = self._peaks[name]
        return torch.from_numpy(found.inputs.copy()).float(), torch.from_numpy(found.outputs.copy()).float()

    def _chosen(self, languages: tuple[str, ...] | None) -> tuple[str, ...]:
        chosen = self._corpus.languages if languages is None else tuple(sorted(set(languages)))
        missing = [tag for tag in chosen if tag not in self._corpus.texts]
        if missing or not chosen:
            raise CorpusError(
                f"no probe text in {', '.join(missing) or 'any language'}; there is text in "
                f"{', '.join(self._corpus.languages)}"
            )
        return chosen

    def _measured_peaks(self) -> Mapping[str, Peaks]:
        texts = [text for tag in self._corpus.languages for text in self._corpus.texts[tag][:PEAK_TEXTS]]

        def measure() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
            found = spike_peaks(self._loaded, texts)
            arrays: dict[str, NDArray[Any]] = {f"{name}/inputs": peaks.inputs for name, peaks in found.items()}
            return arrays | {f"{name}/outputs": peaks.outputs for name, peaks in found.items()}, {}

        arrays = self._store.compute(PEAKS, peak_key(self._loaded, texts), measure).arrays
        names = [key.removesuffix("/inputs") for key in arrays if key.endswith("/inputs")]
        return {name: Peaks(inputs=arrays[f"{name}/inputs"], outputs=arrays[f"{name}/outputs"]) for name in names}
