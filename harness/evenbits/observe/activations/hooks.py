"""Listening to the modules of a loaded model, and letting go of them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from evenbits.errors import ModelError
from evenbits.models.anatomy import Block
from evenbits.models.layout import decoder_of, text_config
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import CONTEXT, Batch
from evenbits.observe.activations.stand_in import standing_in
from evenbits.scoring import packed
from evenbits.scoring.arithmetic import products_for
from evenbits.scoring.batches import context_limit

__all__ = ["first_tensor", "listening", "packs", "read", "write_factor", "write_modules"]

SANDWICHES = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM 4, whose post_attention_layernorm is the MLP's own
    ("post_attention_layernorm", "post_mlp_layernorm"),  # AFMoE
    ("post_norm1", "post_norm2"),  # HyperCLOVA X
)
"""Norms between attention and the stream, and between MLP and the stream, by the names they have in a layer."""

UNCALLED = ("dt_proj",)
"""Products of which only the weight is used, so that hooks of the module would not fire: the steps of Mamba."""

Before = Callable[[torch.Tensor], None]
After = Callable[[Any], None]


@contextmanager
def listening(
    model: nn.Module, *, before: Mapping[str, Before] | None = None, after: Mapping[str, After] | None = None
) -> Iterator[None]:
    """Call `before[path](input)` and `after[path](output)` whenever the module at `path` runs, inside the context.

    Hooks only look: the model computes what it always does, and they are removed whatever happens. `ModelError` where
    one of the modules did not run.
    """
    silent = dict.fromkeys([*(before or {}), *(after or {})])

    def heard(path: str, look: Callable[[Any], None], x: Any) -> None:
        silent.pop(path, None)
        look(x)

    with ExitStack() as stack:
        for path in list(silent):
            module = model.get_submodule(path)
            look, watch = (
                partial(heard, path, looks[path]) if looks and path in looks else None for looks in (before, after)
            )
            if path.rpartition(".")[2] in UNCALLED:
                stack.enter_context(_by_weight(module, look, watch))
                continue
            if look is not None:
                stack.callback(module.register_forward_pre_hook(_on_input(look), with_kwargs=True).remove)
            if watch is not None:
                stack.callback(module.register_forward_hook(_on_output(watch)).remove)
        yield
    if silent:
        raise ModelError(
            f"{', '.join(silent)} of a {type(model).__name__} did not run as modules do, so that what they read cannot "
            "be measured; what needs no activations (damage, statistics of weights) can."
        )


def _by_weight(module: nn.Module, look: Before | None, watch: After | None) -> AbstractContextManager[None]:
    """Listen to what is multiplied with the weight of `module`, which is not called itself."""

    def tell(_: int | None, x: torch.Tensor, y: torch.Tensor) -> None:
        if look is not None:
            look(x)
        if watch is not None:
            watch(y)

    return standing_in(module, "weight", tell)


def packs(loaded: LoadedModel) -> bool:
    """Return whether `read` takes packed batches of this model."""
    context = context_limit(text_config(loaded.model), CONTEXT)
    return packed.supports(loaded.model, context=context)


def read(
    loaded: LoadedModel,
    batch: Batch,
    *,
    before: Mapping[str, Before] | None = None,
    after: Mapping[str, After] | None = None,
) -> None:
    """Run the decoder on `batch` with listeners as in `listening`; without the head: nobody needs logits here.

    Of a packed batch (see `packs`), in the lean forward of scoring, listeners of decoder layers and of products are
    heard, and the residual stream is float32.
    """
    if not batch.packed:
        with listening(loaded.model, before=before, after=after):
            decoder_of(loaded.model)(input_ids=batch.ids, use_cache=False)
        return
    model: Any = loaded.model
    layers = {block.name for block in loaded.anatomy.blocks}
    apart = [{name: look for name, look in (looks or {}).items() if name not in layers} for looks in (before, after)]
    silent = [name for looks in apart for name in looks if name.rpartition(".")[2] not in packed.LAYER_CALLS]
    if silent:
        raise ValueError(f"the lean forward does not call {', '.join(silent)}")
    with listening(model, before=apart[0], after=apart[1]), products_for(model.dtype, model.device):
        stream_ND, frame = packed.entered(model, batch.windows)
        for block in loaded.anatomy.blocks:
            if before and block.name in before:
                before[block.name](stream_ND)
            stream_ND = packed.through(model.get_submodule(block.name), stream_ND, frame, keep=False)
            if after and block.name in after:
                after[block.name](stream_ND)


def first_tensor(output: Any) -> torch.Tensor:
    """Return the hidden states in what a layer or attention module returned."""
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


def write_modules(model: nn.Module, block: Block) -> tuple[str | None, str | None]:
    """Return the paths of the modules whose outputs attention and MLP of `block` add to the residual stream.

    The last product of each, except where a norm stands between it and the stream, and the whole feed-forward part
    where that is made of experts; None where there are two such parts, or none. They are added times `write_factor`.
    """
    layer = model.get_submodule(block.name)
    for attention, mlp in SANDWICHES:
        if hasattr(layer, attention) and hasattr(layer, mlp):
            return f"{block.name}.{attention}", f"{block.name}.{mlp}"
    return block.attention_output, block.mlp_output or block.mlp


def write_factor(model: nn.Module, block: Block) -> float:
    """Return what a layer multiplies both of its writes with before it adds them: 1, but in Granite."""
    return float(getattr(model.get_submodule(block.name), "residual_multiplier", 1.0))


def _on_input(look: Before) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        look(args[0] if args else kwargs["hidden_states"])

    return hook


def _on_output(watch: After) -> Callable[..., None]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        watch(output)

    return hook
