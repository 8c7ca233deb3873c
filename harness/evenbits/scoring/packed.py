"""A lean forward of llama-like decoders on packed windows: no padding, no mask, fewer passes over memory.

It calls the model's own linear layers and reads its own norm weights, so patched weights and hooks on linear layers
count. It replaces what stands between them: windows lie one after another in one block of rows, attention runs on each
window's rows, activations are changed in place. A test holds it to transformers' own forward, family by family.

Shape legend: N positions of all windows, D hidden, H heads, G key-value heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from evenbits.models.placement import Carrier
from evenbits.scoring.arithmetic import product_dtype

__all__ = ["Frame", "entered", "left", "packed_hidden", "supports", "through"]

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Model types whose decoder is: norm, attention with rotary positions, add; norm, gated MLP, add."""

FIXED_ROPES = {"default", "linear", "llama3", "yarn"}
"""Rotary tables that do not depend on how many positions are read at once."""

LAYER_CALLS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "embed_tokens",
    "rotary_emb",
)
"""Modules the lean forward calls; hooks on any other would not fire."""


def supports(model: Any, *, context: int) -> bool:
    """Return whether the lean forward gives what the model's own forward gives, for windows up to `context` tokens.

    False for other architectures, for attention windows shorter than `context`, for rotary tables that depend on the
    length, and where someone listens with a hook on a module that the lean forward does not call.
    """
    config = model.config
    if FAMILIES.get(config.model_type) != type(model).__name__ or not type(model).__module__.startswith(
        "transformers."
    ):
        return False
    if (config.rope_parameters or {}).get("rope_type", "default") not in FIXED_ROPES or config.hidden_act != "silu":
        return False
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()) and config.sliding_window < context:
        return False
    return not any(_listened_to(name, module) for name, module in model.named_modules())


def _listened_to(name: str, module: torch.nn.Module) -> bool:
    if "forward" in module.__dict__:  # replaced on the instance
        return True
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]  # noqa: SLF001 - no public question
    carried = all(isinstance(getattr(hook, "__self__", hook), Carrier) for hook in hooks)  # as the lean forward carries
    return not carried and name.rpartition(".")[2] not in {*LAYER_CALLS, "lm_head"}


def packed_hidden(model: Any, windows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the final hidden states of all positions of `windows`, shape N x D, window after window.

    The residual stream is float32, so that sums of many layers are not rounded at each; what a layer multiplies is in
    the dtype in which this machine multiplies fastest (call it under `arithmetic.products_for`), and so is the result.
    """
    stream_ND, frame = entered(model, windows)
    for layer in model.model.layers:
        stream_ND = through(layer, stream_ND, frame, keep=False)
    return left(model, stream_ND, frame)


def entered(model: Any, windows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, Frame]:
    """Return the residual stream of packed windows before the first layer, N x D in float32, and their frame."""
    dtype = product_dtype(model.dtype, model.device)
    ids_N = torch.tensor([token for window in windows for token in window], device=model.device)
    positions_N = torch.cat([torch.arange(len(window)) for window in windows]).to(model.device)
    stream_ND = model.model.embed_tokens(ids_N).float()
    cos_1NC, sin_1NC = model.model.rotary_emb(stream_ND.to(dtype), positions_N[None])
    lengths = tuple(len(window) for window in windows)
    return stream_ND, Frame(dtype, lengths, cos_1NC[0], sin_1NC[0])


def through(layer: Any, stream_ND: torch.Tensor, frame: Frame, *, keep: bool) -> torch.Tensor:
    """Return the stream after `layer`, where that is; `keep`: the stream that was given stays as it is."""
    home = layer.input_layernorm.weight.device
    stream_ND = stream_ND.to(home)
    rotary, blocks = frame.on(home)
    write_ND = _attention(layer.self_attn, _norm(layer.input_layernorm, stream_ND, frame.dtype), rotary, blocks)
    stream_ND = stream_ND + write_ND if keep else stream_ND.add_(write_ND)
    stream_ND += _mlp(layer.mlp, _norm(layer.post_attention_layernorm, stream_ND, frame.dtype))
    return stream_ND


def left(model: Any, stream_ND: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return the final hidden states of the stream after the last layer."""
    norm = model.model.norm
    return _norm(norm, stream_ND.to(norm.weight.device), frame.dtype)


class Frame:
    """What packed windows are read with: how they lie in the rows, and rotary tables, on each device that has layers.

    `dtype`: in which layers multiply.
    """

    def __init__(self, dtype: torch.dtype, lengths: Sequence[int], cos_NC: torch.Tensor, sin_NC: torch.Tensor) -> None:
        self.dtype, self._lengths = dtype, lengths
        self._cos_NC, self._sin_NC = cos_NC, sin_NC
        self._made: dict[torch.device, tuple[_Rotary, list[_Block]]] = {}

    def on(self, device: torch.device) -> tuple[_Rotary, list[_Block]]:
        """Return the tables on `device`, and the blocks in which attention reads the rows there."""
        if device not in self._made:
            rotary = _Rotary(self._cos_NC.to(device), self._sin_NC.to(device))
            self._made[device] = rotary, _blocks(self._lengths, device)
        return self._made[device]


class _Block:
    """Neighbouring windows that attention reads in one call, as B windows x T positions: rows `begin` to `end`.

    Windows of unequal length are padded behind their rows, where a causal model cannot see it.
    """

    def __init__(self, begin: int, lengths: Sequence[int], device: torch.device) -> None:
        self.shape = (len(lengths), max(lengths))
        self.begin, self.end = begin, begin + sum(lengths)
        self._rows: torch.Tensor | None = None
        if min(lengths) == max(lengths):
            return
        sizes_B = torch.tensor(lengths)
        begins_B = sizes_B.cumsum(0) - sizes_B
        position_T = torch.arange(max(lengths))
        # Behind a window's end its last row stands in: any finite row would do.
        rows_BT = begins_B[:, None] + torch.minimum(position_T[None], sizes_B[:, None] - 1)
        self._rows = rows_BT.reshape(-1).to(device)
        self._places_N = (position_T[None] < sizes_B[:, None]).reshape(-1).nonzero()[:, 0].to(device)

    def spread(self, x_NHC: torch.Tensor) -> torch.Tensor:
        """Return the block's rows as B x H x T x C."""
        x_NHC = x_NHC[self.begin : self.end]
        if self._rows is not None:
            x_NHC = x_NHC.index_select(0, self._rows)
        return x_NHC.view(*self.shape, *x_NHC.shape[1:]).transpose(1, 2)

    def gather(self, x_BHTC: torch.Tensor) -> torch.Tensor:
        """Return the rows of B x H x T x C as N x H x C."""
        x_NHC = x_BHTC.transpose(1, 2).flatten(0, 1)
        return x_NHC if self._rows is None else x_NHC.index_select(0, self._places_N)


PADDED_POSITIONS = 32768
"""Positions that padding may make of a batch on a device: one call for most, less than a GiB of an 8B model."""


def _blocks(lengths: Sequence[int], device: torch.device) -> list[_Block]:
    """Return the blocks of packed windows.

    A CPU reads windows of one length together and pads nothing. On a device, where calls are dear, a block is padded to
    `PADDED_POSITIONS`, or by as much as there is text.
    """
    blocks: list[_Block] = []
    begin, rows, longest, held = 0, 0, 0, list[int]()
    for length in lengths:
        rows, longest = rows + length, max(longest, length)
        if held and (len(held) + 1) * longest > (rows if device.type == "cpu" else max(2 * rows, PADDED_POSITIONS)):
            blocks.append(_Block(begin, held, device))
            begin, rows, longest, held = begin + rows - length, length, length, []
        held.append(length)
    return [*blocks, _Block(begin, held, device)]


def _norm(module: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `x / rms(x) * weight` in `dtype`, computed in float32 in fewer passes than torch's own takes on CPUs."""
    x = x.float()
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    normed: torch.Tensor = (x * mean_square.add_(module.variance_epsilon).rsqrt_()).mul_(module.weight)
    return normed.to(dtype)


class _Rotary:
    """Rotary tables of N positions; the sign of the rotated half lies in the sine, so that rotating is one roll."""

    def __init__(self, cos_NC: torch.Tensor, sin_NC: torch.Tensor) -> None:
        self.half = cos_NC.shape[-1] // 2
        self.cos_N1C = cos_NC[:, None]
        self.sin_N1C = torch.cat((-sin_NC[:, : self.half], sin_NC[:, self.half :]), dim=1)[:, None]

    def __call__(self, x_NHC: torch.Tensor) -> torch.Tensor:
        """Return `x * cos + rotate_half(x) * sin`."""
        return (x_NHC * self.cos_N1C).addcmul_(x_NHC.roll(self.half, dims=-1), self.sin_N1C)


def _attention(module: Any, x_ND: torch.Tensor, rotary: _Rotary, blocks: Sequence[_Block]) -> torch.Tensor:
    size = (x_ND.shape[0], -1, module.head_dim)
    q_NHC, k_NGC, v_NGC = module.q_proj(x_ND).view(size), module.k_proj(x_ND).view(size), module.v_proj(x_ND).view(size)
    if hasattr(module, "q_norm"):
        q_NHC, k_NGC = _norm(module.q_norm, q_NHC, q_NHC.dtype), _norm(module.k_norm, k_NGC, k_NGC.dtype)
    if getattr(module, "use_rope", True):
        q_NHC, k_NGC = rotary(q_NHC), rotary(k_NGC)
    mixed_NHC = torch.empty_like(q_NHC)
    for block in blocks:
        q, k, v = (block.spread(x) for x in (q_NHC, k_NGC, v_NGC))
        causal = block.shape[1] > 1
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=module.scaling, enable_gqa=True)
        mixed_NHC[block.begin : block.end] = block.gather(out)
    return module.o_proj(mixed_NHC.flatten(1))  # type: ignore[no-any-return]


def _mlp(module: Any, x_ND: torch.Tensor) -> torch.Tensor:
    gate = functional.silu(module.gate_proj(x_ND), inplace=True)
    return module.down_proj(gate.mul_(module.up_proj(x_ND)))  # type: ignore[no-any-return]
