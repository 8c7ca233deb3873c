"""The output head: hidden states times vocabulary, a tile at a time, never all logits at once.

Shape legend: N tokens, D hidden, V vocabulary, S tokens of a tile, U vocabulary entries of a tile, R tokens of a strip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from evenbits.errors import ModelError
from evenbits.models.layout import text_config
from evenbits.models.outline import LOGIT_SCALES
from evenbits.scoring.arithmetic import home_of_sums, in_float64, product_dtype, widened

if TYPE_CHECKING:
    from evenbits.models.records import LoadedModel

__all__ = [
    "AnyHead",
    "AnyTile",
    "Head",
    "Prediction",
    "Reduction",
    "Tile",
    "forget_head",
    "head_of",
    "kept_head",
    "predict",
    "strips",
    "token_tiles",
]

TILE_TOKENS = 512
TILE_VOCABULARY = 4096
"""A tile's weights are multiplied with as many tokens as keep the processor busy, so that they are read seldom."""

STRIP_TOKENS = 64
"""A strip's logits (1 MiB in float32) stay in a core's own cache while they are reduced: beside full precision 44 us a
token and 4,096 entries against 76 us for a whole tile, the same bytes."""

DEVICE_TILE_TOKENS = 8192
"""On a GPU: 128 MiB of logits at once, so that few kernels are started and each has enough to do."""

MULTIPLIES = ("hyperclovax",)
"""Types that multiply by `logits_scaling`, which divides elsewhere (`LOGIT_SCALES`)."""

UNSUPPORTED = ("output_multiplier_scale",)
"""Settings by which other families change their logits after the head; none of the supported families has them."""


class AnyTile(Protocol):
    """Some entries of a vocabulary."""

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...

    def products(self, hidden_SD: torch.Tensor) -> torch.Tensor:
        """Return the products of these entries, S x U in whatever dtype they are computed in."""

    def logits(self, products_RU: torch.Tensor) -> torch.Tensor:
        """Return the logits of some rows of `products`, R x U float32, for the caller to overwrite."""


class AnyHead(Protocol):
    """What turns the rows that it understands into logits, tile by tile: a model's head, or logits that exist."""

    def tiles(self) -> Iterable[AnyTile]: ...

    def true_logit(self, hidden_SD: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tile:
    """Vocabulary entries `begin` to `end` of a head, ready to multiply: `weight` U x D, `bias` U; see `Head`."""

    begin: int
    end: int
    weight: torch.Tensor
    bias: torch.Tensor | None
    softcap: float | None
    scale: float | None = None

    def products(self, hidden_SD: torch.Tensor) -> torch.Tensor:
        """Return `h @ weight.T + bias` of this tile's entries, S x U, in the dtype of the product."""
        return functional.linear(hidden_SD.to(self.weight.dtype), self.weight, self.bias)

    def logits(self, products_RU: torch.Tensor) -> torch.Tensor:
        """Return the logits that rows of `products` come to, R x U, in float32."""
        logits_RU = products_RU.float()
        if self.scale is not None:
            logits_RU = logits_RU.mul_(self.scale)
        if self.softcap is not None:
            logits_RU = logits_RU.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_RU


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Head:
    """What turns a final hidden state into logits: `h @ weight.T + bias`, times `scale`, then Gemma's soft cap.

    `weight` (V x D) and `bias` (V) are the model's own tensors (see `kept_head` for a copy), in the run's dtype.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    softcap: float | None
    scale: float | None = None

    def tiles(self) -> Iterator[Tile]:
        """Yield the head in tiles over the vocabulary, each in the dtype in which this machine multiplies fastest."""
        dtype = product_dtype(self.weight.dtype, self.weight.device)
        weight_VD = self.weight if dtype is self.weight.dtype else widened(self.weight)
        for begin in range(0, self.weight.shape[0], TILE_VOCABULARY):
            end = min(begin + TILE_VOCABULARY, self.weight.shape[0])
            bias_U = None if self.bias is None else self.bias[begin:end].to(dtype)
            yield Tile(
                begin=begin, end=end, weight=weight_VD[begin:end], bias=bias_U, softcap=self.softcap, scale=self.scale
            )

    def true_logit(self, hidden_SD: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
        """Return about the logit of each true token (float32), a shift that keeps sums small: its rounding cancels."""
        logits_S = (hidden_SD.float() * self.weight[targets_S].float()).sum(dim=1)
        if self.bias is not None:
            logits_S += self.bias[targets_S].float()
        if self.scale is not None:
            logits_S *= self.scale
        if self.softcap is not None:
            logits_S = logits_S.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_S


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prediction:
    """What the logits of N tokens come to, where sums of their device are kept.

    `lse`: log of the sum of their exponentials (float64). `target`: the logit of the true token (float64). `top1`: the
    most likely token (int64), None where nobody asked.
    """

    lse: torch.Tensor
    target: torch.Tensor
    top1: torch.Tensor | None

    @property
    def nll(self) -> torch.Tensor:
        """Negative log-likelihood of the true tokens in nats (float64)."""
        return self.lse - self.target

    def __getitem__(self, rows: torch.Tensor | slice) -> Prediction:
        if isinstance(rows, torch.Tensor):
            rows = rows.to(self.lse.device)
        top1 = None if self.top1 is None else self.top1[rows]
        return Prediction(lse=self.lse[rows], target=self.target[rows], top1=top1)

    @classmethod
    def joined(cls, parts: list[Prediction]) -> Prediction:
        """Return the predictions of several runs of tokens as one."""
        top1 = [part.top1 for part in parts if part.top1 is not None]
        return cls(
            lse=torch.cat([part.lse for part in parts]),
            target=torch.cat([part.target for part in parts]),
            top1=torch.cat(top1) if len(top1) == len(parts) else None,
        )


def head_of(loaded: LoadedModel) -> Head:
    """Return the head of `loaded` as it is now, patches included.

    `ModelError` where the logits are not a plain linear map of the hidden states that this module reproduces.
    """
    model: Any = loaded.model
    module = model.get_output_embeddings()
    weight = getattr(module, "weight", None)
    if (
        not isinstance(module, torch.nn.Linear)
        or not isinstance(weight, torch.Tensor)
        or not weight.is_floating_point()
    ):
        raise ModelError(
            f"{loaded.local.text}: the output head is a {type(module).__name__}, not a linear layer with float "
            "weights; scoring needs one. Leave the head in high precision."
        )
    config = text_config(model)
    unsupported = [name for name in UNSUPPORTED if getattr(config, name, None) not in {None, 1}]
    if unsupported:
        raise ModelError(
            f"{loaded.local.text}: {', '.join(unsupported)} in config.json changes the logits after the head, "
            "which scoring does not reproduce for this architecture."
        )
    softcap = getattr(config, "final_logit_softcapping", None)
    powers = [
        (getattr(config, name, None), abs(power) if config.model_type in MULTIPLIES else power)
        for name, power in LOGIT_SCALES.items()
    ]
    scale = math.prod(float(value) ** power for value, power in powers if value is not None)
    return Head(
        weight=weight,
        bias=None if module.bias is None else module.bias.detach(),
        softcap=None if softcap is None else float(softcap),
        scale=None if scale == 1 else scale,
    )


_kept: WeakKeyDictionary[torch.nn.Module, Head] = WeakKeyDictionary()


def kept_head(loaded: LoadedModel) -> Head:
    """Return a copy of the head that later patches of the model do not reach.

    One copy is shared by all calls while the model's head holds the same values, and goes with the model.
    """
    now = head_of(loaded)
    kept = _kept.get(loaded.model)
    if kept is None or not _same(kept, now):
        bias = None if now.bias is None else now.bias.clone()
        weight = torch.nn.Parameter(now.weight.detach().clone(), requires_grad=False)
        kept = Head(weight=weight, bias=bias, softcap=now.softcap, scale=now.scale)
        _kept[loaded.model] = kept
    return kept


def forget_head(loaded: LoadedModel) -> None:
    """Give back the copy that `kept_head` keeps of the head of `loaded`."""
    _kept.pop(loaded.model, None)


def _same(kept: Head, now: Head) -> bool:
    if kept.softcap != now.softcap or kept.weight.dtype != now.weight.dtype or kept.weight.device != now.weight.device:
        return False
    if kept.bias is None or now.bias is None:
        return kept.bias is now.bias and torch.equal(kept.weight, now.weight)
    return torch.equal(kept.bias, now.bias) and torch.equal(kept.weight, now.weight)


def token_tiles(hidden_ND: torch.Tensor) -> list[slice]:
    """Return the rows of each tile of tokens: small ones in a core's cache, large ones that fill a GPU."""
    size = hidden_ND.shape[0]
    step = TILE_TOKENS if hidden_ND.device.type == "cpu" else DEVICE_TILE_TOKENS
    return [slice(begin, min(begin + step, size)) for begin in range(0, size, step)]


def strips(tile: AnyTile, hidden_SD: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the logits of a tile's entries for S tokens, R rows at a time with their place among the S."""
    products_SU = tile.products(hidden_SD)
    size = products_SU.shape[0]
    step = STRIP_TOKENS * torch.get_num_threads() if products_SU.device.type == "cpu" else max(size, 1)
    for begin in range(0, size, step):
        rows = slice(begin, min(begin + step, size))
        yield rows, tile.logits(products_SU[rows])


def predict(head: AnyHead, hidden_ND: torch.Tensor, targets_N: torch.Tensor, *, top1: bool = False) -> Prediction:
    """Reduce the logits of N tokens over the vocabulary, tile by tile; `top1` asks for the most likely token too."""
    rows = token_tiles(hidden_ND)
    reductions = [Reduction(targets_N[row], top1=top1) for row in rows]
    for tile in head.tiles():
        for row, reduction in zip(rows, reductions, strict=True):
            for strip, logits_RU in strips(tile, hidden_ND[row]):
                reduction.add(strip, logits_RU, tile)
    return Prediction.joined([reduction.result() for reduction in reductions])


class Reduction:
    """Running log-sum-exp, true-token logit and argmax of S tokens over vocabulary tiles; float32 in, float64 out."""

    def __init__(self, targets_S: torch.Tensor, *, top1: bool) -> None:
        size, device = targets_S.shape[0], targets_S.device
        self._targets_S = targets_S
        self._max_S = torch.full((size,), -torch.inf, dtype=torch.float32, device=device)
        self._sum_S = torch.zeros(size, dtype=torch.float64, device=home_of_sums(device))
        self._target_S = torch.zeros(size, dtype=torch.float32, device=device)
        self._top1_S = torch.zeros(size, dtype=torch.int64, device=device) if top1 else None

    def add(self, rows: slice, logits_RU: torch.Tensor, tile: AnyTile) -> None:
        """Take in a tile's logits of some of the tokens; they are overwritten."""
        place_R = self._targets_S[rows] - tile.begin
        here_R = (place_R >= 0) & (place_R < tile.end - tile.begin)
        true_R = logits_RU.gather(1, place_R.clamp_(0, tile.end - tile.begin - 1)[:, None]).squeeze(1)
        self._target_S[rows] = torch.where(here_R, true_R, self._target_S[rows])
        before_R, tile_max_R = self._max_S[rows], logits_RU.amax(dim=1)
        if self._top1_S is not None:
            top1_R = _argmax(logits_RU) + tile.begin
            self._top1_S[rows] = torch.where(tile_max_R > before_R, top1_R, self._top1_S[rows])
        max_R = torch.maximum(before_R, tile_max_R)
        tile_sum_R = logits_RU.sub_(max_R[:, None]).exp_().sum(dim=1)
        self._sum_S[rows] = self._sum_S[rows] * in_float64(before_R - max_R).exp() + in_float64(tile_sum_R)
        self._max_S[rows] = max_R

    def result(self) -> Prediction:
        return Prediction(
            lse=in_float64(self._max_S) + self._sum_S.log(),
            target=in_float64(self._target_S),
            top1=None if self._top1_S is None else self._top1_S.to(self._sum_S.device),
        )


BLOCK = 64
"""Vocabulary entries that the search for the most likely token looks at together."""


def _argmax(logits_SU: torch.Tensor) -> torch.Tensor:
    """Return the place of each row's maximum, the first of equals; NaN where it stands first, as torch has it.

    torch's own search takes twenty times as long on a CPU as finding the maximum does. So the block that holds it is
    found by the maxima of blocks, and only that block is searched.
    """
    size, width = logits_SU.shape
    if logits_SU.device.type != "cpu" or width % BLOCK:
        return logits_SU.argmax(dim=1)
    blocks_SBK = logits_SU.view(size, -1, BLOCK)
    block_S = blocks_SBK.amax(dim=2).argmax(dim=1)
    return block_S * BLOCK + blocks_SBK[torch.arange(size), block_S].argmax(dim=1)
