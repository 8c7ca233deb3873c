"""Measuring local quantization error: forward and backward passes in full precision beside errors of the weights.

Beside every product W x the error (W - Q(W)) x of the same inputs is computed and thrown away, and gradients of the
full-precision loss are multiplied with W - Q(W).

Shapes: w_OI, delta_OI = W - Q(W), gradient_OI out x in; x_NI inputs of N text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from evenbits.models.device import room_on
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import batches_of, sequences_of
from evenbits.observe.activations.experts import listening_to_experts
from evenbits.observe.activations.gradients import exact_attention, in_rounds, measure_gradients
from evenbits.observe.activations.hooks import packs, read
from evenbits.observe.activations.importance import ActivationImportance
from evenbits.records import Corpus
from evenbits.scoring.arithmetic import in_float64
from evenbits.store import Store
from evenbits.studies.h035.errors import FISHER_SEGMENTS, GRADIENT_SEGMENTS, HELD_BYTES, LocalErrors
from evenbits.variants.quantization.matrices import quantize_planned
from evenbits.variants.quantization.patching import checkpoint_source, plan_loaded
from evenbits.variants.quantization.spec import QuantSpec

__all__ = ["measure_errors", "product_groups", "weight_errors"]

Float64 = NDArray[np.float64]
Deltas = Mapping[str, Mapping[str, torch.Tensor]]
"""Spec -> module -> W - Q(W), O x I."""

BATCH_TOKENS = 1024
"""Positions of a batch, whose logits a backward pass holds. Four times as many take half as long again on a CPU: more
padding, and a layer's activations beyond the cache."""


def weight_errors(
    loaded: LoadedModel,
    corpus: Corpus,
    spec: QuantSpec,
    *,
    store: Store,
    seed: int,
    names: Collection[str] | None = None,
) -> dict[str, torch.Tensor]:
    """Return W - Q(W) of every quantized product inside the layers, O x I, in the model's dtype; of `names` alone."""
    inside = {linear.name for linear in loaded.anatomy.linears if names is None or linear.name in names}
    source = checkpoint_source(loaded)
    importance = ActivationImportance(loaded, corpus, store=store) if spec.needs else None
    whole = plan_loaded(loaded, spec)
    if whole.kept_globally is None:  # else which weights are kept is decided over all tensors
        whole = replace(whole, tensors=tuple(tensor for tensor in whole.tensors if tensor.name in inside))
    planned = quantize_planned(whole, source, importance=importance, seed=seed)
    return {
        matrix.name: (source(matrix.name) - matrix.values).to(loaded.dtype)
        for matrix in planned
        if matrix.name in inside
    }


def product_groups(loaded: LoadedModel, specs: int) -> list[list[str]]:
    """Return the products in runs whose errors under so many specs, and whose gradients, fit into `HELD_BYTES`."""
    sizes = {}
    for linear in loaded.anatomy.linears:
        weight = _weight(loaded, linear.name)
        sizes[linear.name] = weight.nbytes * (specs + 1) + 4 * weight.numel()  # and a gradient's square in float32
    return in_rounds(sizes, HELD_BYTES)


def measure_errors(loaded: LoadedModel, texts: Sequence[str], tag: str, deltas: Deltas) -> dict[str, LocalErrors]:
    """Return the errors of one language by spec: a forward pass, and the backward passes of two kinds of gradient."""
    if not _names(deltas):
        nothing = np.empty(0)
        return {
            spec: LocalErrors(language=tag, relative=nothing, first_order=nothing, weighted=nothing) for spec in deltas
        }
    with room_on(loaded.device, f"errors and gradients of {tag} beside the model"):
        relative = _relative(loaded, texts, tag, deltas)
        first_order = _first_order(loaded, texts[:GRADIENT_SEGMENTS], tag, deltas)
    squares = measure_gradients(loaded, texts[:FISHER_SEGMENTS], language=tag, names=_names(deltas))
    return {
        spec: LocalErrors(
            language=tag,
            relative=relative[spec],
            first_order=first_order[spec],
            weighted=np.array(
                [0.5 * _dot(squares[name], delta.float().square()) / math.log(2) for name, delta in by_name.items()]
            ),
        )
        for spec, by_name in deltas.items()
    }


def _relative(loaded: LoadedModel, texts: Sequence[str], tag: str, deltas: Deltas) -> dict[str, Float64]:
    """Return the relative error of every product by spec, [M]."""
    names = _names(deltas)
    products = {name: loaded.anatomy.product(name) for name in names}
    matrices = {
        name: product.matrix(_weight(loaded, name)) for name, product in products.items() if not product.experts
    }
    signal = dict.fromkeys(names, 0.0)
    error = {spec: dict.fromkeys(by_name, 0.0) for spec, by_name in deltas.items()}
    real = torch.empty(0, dtype=torch.long)

    def look(name: str, x: torch.Tensor) -> None:
        x_NI = x.reshape(-1, x.shape[-1]).index_select(0, real.to(x.device))
        add(name, x_NI, functional.linear(x_NI, matrices[name]), slice(None))

    def look_at_expert(name: str, expert: int, x_NI: torch.Tensor, y_NO: torch.Tensor) -> None:
        outputs = y_NO.shape[1]
        add(name, x_NI, y_NO, slice(expert * outputs, (expert + 1) * outputs))

    def add(name: str, x_NI: torch.Tensor, y_NO: torch.Tensor, rows: slice) -> None:
        signal[name] += _squares(y_NO)
        for spec, by_name in deltas.items():
            if name in by_name:
                error[spec][name] += _squares(functional.linear(x_NI, by_name[name][rows]))

    sequences = sequences_of(loaded, texts, language=tag)
    before = {name: partial(look, name) for name in matrices}
    with torch.inference_mode():
        for batch in batches_of(loaded, sequences, packed=packs(loaded)):
            real = batch.real
            with listening_to_experts(loaded, look_at_expert, count=batch.ids.numel(), rows=real, names=names):
                read(loaded, batch, before=before)
    return {
        spec: np.array([lost / signal[name] if signal[name] > 0 else 0.0 for name, lost in by_name.items()])
        for spec, by_name in error.items()
    }


def _first_order(loaded: LoadedModel, texts: Sequence[str], tag: str, deltas: Deltas) -> dict[str, Float64]:
    """Return the first-order change of a segment's mean NLL by spec and product, bits, [M]; no gradient is kept."""
    weights = {name: _weight(loaded, name) for name in _names(deltas)}
    change = {spec: dict.fromkeys(by_name, 0.0) for spec, by_name in deltas.items()}
    sequences = sequences_of(loaded, texts, language=tag)
    with (
        _differentiable(loaded.model, list(weights.values())),
        exact_attention(loaded.model.device),
        torch.enable_grad(),
    ):
        for batch in batches_of(loaded, sequences, tokens=BATCH_TOKENS):
            logits = loaded.model(input_ids=batch.ids, use_cache=False).logits
            before_NV = logits.reshape(-1, logits.shape[-1]).index_select(0, batch.real - 1)
            loss = functional.cross_entropy(before_NV.float(), batch.ids.reshape(-1)[batch.real], reduction="sum")
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                gradient_OI = loaded.anatomy.product(name).matrix(gradient).float()
                for spec, by_name in deltas.items():
                    if name in by_name:
                        change[spec][name] -= _dot(gradient_OI, by_name[name].float())
    bits = len(texts) * math.log(2)
    return {spec: np.array(list(by_name.values())) / bits for spec, by_name in change.items()}


def _names(deltas: Deltas) -> tuple[str, ...]:
    """Return the products that any of the specs rounds."""
    return tuple(dict.fromkeys(name for by_name in deltas.values() for name in by_name))


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
    return float(in_float64(y.float().square()).sum())


def _weight(loaded: LoadedModel, name: str) -> torch.Tensor:
    return loaded.model.get_parameter(loaded.anatomy.product(name).parameter)


def _dot(a_OI: torch.Tensor, b_OI: torch.Tensor) -> float:
    return float(in_float64(a_OI * b_OI).sum())
