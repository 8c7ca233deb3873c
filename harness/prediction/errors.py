"""Local quantization error: what rounding does to each matrix product on a language's text, one product at a time.

The model always runs in full precision. Beside every product W x the error (W - Q(W)) x of the same inputs is computed
and thrown away, and gradients of the full-precision loss are multiplied with W - Q(W): errors neither reach later
layers nor any loss. This predicts damage, it does not measure it.

Shapes: w_OI, delta_OI = W - Q(W), gradient_OI out x in; x_NI inputs of N text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from harness.activations import ActivationImportance
from harness.activations.batches import batches_of, sequences_of
from harness.activations.gradients import measure_gradients
from harness.activations.hooks import decoder, listening
from harness.errors import NonFiniteError
from harness.models.records import LoadedModel
from harness.quantization.matrices import quantize_planned
from harness.quantization.patching import checkpoint_source, plan_loaded
from harness.quantization.spec import QuantSpec
from harness.records import Corpus, digest_of
from harness.store import Store

__all__ = ["FISHER_SEGMENTS", "GRADIENT_SEGMENTS", "LocalErrors", "local_errors"]

Float64 = NDArray[np.float64]

SCHEMA = 1
BATCH_TOKENS = 4096
GRADIENT_TOKENS = 1024  # logits and what the backward pass keeps are held for a whole batch
GRADIENT_SEGMENTS = 24
"""Segments per language for the mean gradient: batches of text, one backward pass each."""
FISHER_SEGMENTS = 2
"""Segments per language for squared gradients, which need a backward pass of their own: each costs as much as scoring
ten."""


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
    loaded: LoadedModel, corpus: Corpus, spec: QuantSpec, *, store: Store, seed: int = 0
) -> dict[str, LocalErrors]:
    """Return the errors of `spec` on every language of `corpus`, measured or from the store.

    Head and embedding take no part, also where the spec includes them. `seed`: of random retention. All weight errors
    are held in memory in the model's dtype, which is what quantizing the model would hold.
    """
    entries = {tag: store.get("rounding-errors", _key(loaded, corpus, spec, tag, seed)) for tag in corpus.languages}
    found = {tag: LocalErrors(language=tag, **entry.arrays) for tag, entry in entries.items() if entry is not None}
    store.hits += len(found)
    missing = [tag for tag in corpus.languages if tag not in found]
    if missing:
        deltas = _deltas(loaded, corpus, spec, store=store, seed=seed)
        for tag in missing:
            one = _measure(loaded, corpus, tag, deltas)
            arrays = {name: getattr(one, name) for name in LocalErrors.ARRAYS}
            store.compute(
                "rounding-errors", _key(loaded, corpus, spec, tag, seed), lambda arrays=arrays: (arrays, {})  # type: ignore[misc]
            )  # fmt: skip
            found[tag] = one
    return {tag: found[tag] for tag in corpus.languages}


def _key(loaded: LoadedModel, corpus: Corpus, spec: QuantSpec, tag: str, seed: int) -> dict[str, object]:
    key: dict[str, object] = {
        "schema": SCHEMA,
        "model": loaded.local.fingerprint,
        "spec": str(spec),
        "texts": digest_of(list(corpus.texts[tag])),
        "dtype": str(loaded.dtype),
    }
    if spec.keep is not None and spec.keep.criterion == "random":
        key["seed"] = seed
    if spec.needs:
        key["probe"] = corpus.digest
    return key


def _deltas(
    loaded: LoadedModel, corpus: Corpus, spec: QuantSpec, *, store: Store, seed: int
) -> dict[str, torch.Tensor]:
    """Return W - Q(W) of every quantized product inside the layers, O x I, in the model's dtype."""
    inside = {linear.name for linear in loaded.anatomy.linears}
    source = checkpoint_source(loaded)
    importance = ActivationImportance(loaded, corpus, store=store) if spec.needs else None
    planned = quantize_planned(plan_loaded(loaded, spec), source, importance=importance, seed=seed)
    return {
        matrix.name: (source(matrix.name) - matrix.values).to(loaded.dtype)
        for matrix in planned
        if matrix.name in inside
    }


def _measure(loaded: LoadedModel, corpus: Corpus, tag: str, deltas: Mapping[str, torch.Tensor]) -> LocalErrors:
    texts = corpus.texts[tag]
    error, signal = (dict.fromkeys(deltas, 0.0) for _ in range(2))
    transposed = {linear.name for linear in loaded.anatomy.linears if linear.transposed}
    real = torch.empty(0, dtype=torch.long)

    def look(name: str, x: torch.Tensor) -> None:
        x_NI = x.reshape(-1, x.shape[-1]).index_select(0, real)
        weight = _weight(loaded, name)
        w_OI = weight.t() if name in transposed else weight
        error[name] += _squares(functional.linear(x_NI, deltas[name]))
        signal[name] += _squares(functional.linear(x_NI, w_OI))

    sequences = sequences_of(loaded.tokenizer, loaded.model.config, texts, language=tag)
    before = {name: partial(look, name) for name in deltas}
    with torch.inference_mode(), listening(loaded.model, before=before):
        for batch in batches_of(sequences, tokens=BATCH_TOKENS):
            real = batch.real
            decoder(loaded)(input_ids=batch.ids, use_cache=False)
    squares = measure_gradients(loaded, texts[:FISHER_SEGMENTS], language=tag)
    weighted = [0.5 * _dot(squares[name], delta.float().square()) / math.log(2) for name, delta in deltas.items()]
    relative = [error[name] / signal[name] if signal[name] > 0 else 0.0 for name in deltas]
    return LocalErrors(
        language=tag,
        relative=np.array(relative),
        first_order=_first_order(loaded, texts[:GRADIENT_SEGMENTS], tag, deltas),
        weighted=np.array(weighted),
    )


def _first_order(loaded: LoadedModel, texts: Sequence[str], tag: str, deltas: Mapping[str, torch.Tensor]) -> Float64:
    """Return the first-order change of the mean NLL of a segment by product, bits, [M]; no gradient is kept."""
    transposed = {linear.name for linear in loaded.anatomy.linears if linear.transposed}
    weights = {name: _weight(loaded, name) for name in deltas}
    change = np.zeros(len(deltas))
    sequences = sequences_of(loaded.tokenizer, loaded.model.config, texts, language=tag)
    with _differentiable(loaded.model, list(weights.values())), torch.enable_grad():
        for batch in batches_of(sequences, tokens=GRADIENT_TOKENS):
            logits = loaded.model(input_ids=batch.ids, use_cache=False).logits
            before_NV = logits.reshape(-1, logits.shape[-1]).index_select(0, batch.real - 1)
            loss = functional.cross_entropy(before_NV.float(), batch.ids.reshape(-1)[batch.real], reduction="sum")
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for place, (name, gradient) in enumerate(zip(weights, gradients, strict=True)):
                change[place] -= _dot((gradient.t() if name in transposed else gradient).float(), deltas[name].float())
    return change / (len(texts) * math.log(2))


@contextmanager
def _differentiable(model: torch.nn.Module, weights: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let only `weights` ask for gradients while the context lasts."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, asked in before.items():
            parameter.requires_grad_(asked)


def _squares(y: torch.Tensor) -> float:
    return float(y.float().square().sum(dtype=torch.float64))


def _weight(loaded: LoadedModel, name: str) -> torch.Tensor:
    weight = loaded.model.get_submodule(name).weight
    assert isinstance(weight, torch.nn.Parameter)  # noqa: S101 - a product has a weight
    return weight


def _dot(a_OI: torch.Tensor, b_OI: torch.Tensor) -> float:
    return float((a_OI * b_OI).sum(dtype=torch.float64))
