"""Local quantization error: what rounding does to each matrix product on a language's text, one product at a time.

The model always runs in full precision. Errors neither reach later layers nor any loss: this predicts damage, it does
not measure it. How they are measured: `rounding.py`. What is stored is read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenbits.errors import NonFiniteError
from evenbits.models.records import Loadable, LoadedModel
from evenbits.progress import Progress, Silent
from evenbits.records import Corpus, text_digest
from evenbits.store import Store
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["FISHER_SEGMENTS", "GRADIENT_SEGMENTS", "HELD_BYTES", "KIND", "LocalErrors", "error_key", "local_errors"]

Float64 = NDArray[np.float64]

KIND = "rounding-errors"
SCHEMA = 6
GRADIENT_SEGMENTS = 16
"""Segments per language for the mean gradient, as many as the shipped calibration has: backward passes over batches."""
FISHER_SEGMENTS = 2
"""Segments per language for squared gradients, which need a backward pass of their own: each costs as much as scoring
ten."""

HELD_BYTES = 4 << 30
"""Errors and gradients held at once; a larger model is measured some products at a time, in rounds of passes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalErrors:
    """Errors of one language by quantized product [M], in the order of the plan.

    `relative`: sum over text tokens of |(W - Q(W)) x|^2 over that of |W x|^2. `first_order`: sum over weights of
    (Q(W) - W) times the mean gradient of a segment's NLL, in bits per segment; negative where rounding happens to help.
    `weighted`: half the squared weight errors, each times the mean squared gradient of a segment's NLL by that weight,
    in bits per segment: the second-order term with the diagonal of the empirical Fisher information for the curvature.
    """

    language: str
    relative: Float64
    first_order: Float64
    weighted: Float64

    ARRAYS = ("relative", "first_order", "weighted")

    def __post_init__(self) -> None:
        for name in self.ARRAYS:
            array = getattr(self, name)
            if not np.isfinite(array).all():
                raise NonFiniteError(f"quantization errors on the texts in {self.language} overflow; use float32.")
            array.setflags(write=False)


def local_errors(
    model: Loadable,
    corpus: Corpus,
    specs: Sequence[QuantSpec],
    *,
    store: Store,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, LocalErrors]]:
    """Return the errors by spec and language of `corpus`, measured or from the store.

    Specs that are missing are measured together: the passes of the model serve all of them. Head and embedding take no
    part, also where a spec includes them. `seed`: of random retention. Products are measured some at a time, so that
    their errors and gradients never take more than a few GiB; a language is stored as soon as all of its are known.
    """
    chosen = {str(spec): spec for spec in specs}
    found: dict[str, dict[str, LocalErrors]] = {text: {} for text in chosen}
    missing: dict[str, list[str]] = {}
    for text, spec in chosen.items():
        for tag in corpus.languages:
            entry = store.get(KIND, error_key(model, corpus, spec, tag, seed))
            if entry is None:
                missing.setdefault(tag, []).append(text)
            else:
                store.hits += 1
                found[text][tag] = LocalErrors(language=tag, **entry.arrays)
    if missing:
        _fill(found, missing, model.load(), corpus, chosen, store=store, seed=seed, progress=progress or Silent())
    return {text: {tag: by_tag[tag] for tag in corpus.languages} for text, by_tag in found.items()}


def _fill(
    found: dict[str, dict[str, LocalErrors]],
    missing: Mapping[str, Sequence[str]],
    loaded: LoadedModel,
    corpus: Corpus,
    specs: Mapping[str, QuantSpec],
    *,
    store: Store,
    seed: int,
    progress: Progress,
) -> None:
    """Measure what is `missing` (language -> specs) into `found` and the store."""
    from evenbits.studies.h035.rounding import measure_errors, product_groups, weight_errors

    lacking = {text: spec for text, spec in specs.items() if any(text in texts for texts in missing.values())}
    parts: dict[str, list[Mapping[str, LocalErrors]]] = {tag: [] for tag in missing}

    def keep(tag: str, text: str) -> None:
        arrays = {
            name: np.concatenate([getattr(part[text], name) for part in parts[tag]]) for name in LocalErrors.ARRAYS
        }
        found[text][tag] = LocalErrors(language=tag, **arrays)
        store.compute(KIND, error_key(loaded, corpus, specs[text], tag, seed), lambda: (arrays, {}))

    groups = product_groups(loaded, len(lacking))
    with progress.task(f"{loaded.local.text}  rounding errors", total=len(groups) * len(missing)) as task:
        for names in groups:
            deltas = {
                text: weight_errors(loaded, corpus, spec, store=store, seed=seed, names=names)
                for text, spec in lacking.items()
            }
            for tag, texts in missing.items():
                task.doing(tag)
                of_tag = {text: deltas[text] for text in texts}
                parts[tag].append(measure_errors(loaded, corpus.texts[tag], tag, of_tag))
                if len(parts[tag]) == len(groups):
                    for text in texts:
                        keep(tag, text)
                task.advance()


def error_key(model: Loadable, corpus: Corpus, spec: QuantSpec, tag: str, seed: int) -> dict[str, object]:
    """Return what identifies the errors of a language in the store."""
    key: dict[str, object] = {
        "schema": SCHEMA,
        "model": model.local.fingerprint,
        "spec": str(spec),
        "texts": text_digest(corpus.texts[tag]),
        "dtype": model.arithmetic,
    }
    if spec.is_drawn:
        key["seed"] = seed
    if spec.needs:
        key["probe"] = corpus.digest
    return key
