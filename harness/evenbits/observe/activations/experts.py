"""What fused experts read and give: their products are no modules, so the parameter that holds them listens instead.

While a module of experts runs, it is run once more by its own loop over the experts, on the positions that count. In
the place of each parameter stands one that hands out an expert's matrix and tells what is multiplied with it.

Shapes: E experts, N rows that a product reads, I inputs and O outputs of one expert.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from evenbits.errors import ModelError
from evenbits.models.anatomy import Linear
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.stand_in import standing_in

__all__ = ["Look", "listening_to_experts"]

Look = Callable[[str, int, torch.Tensor, torch.Tensor], None]
"""Is told the product's name, the expert, what it reads (N x I) and what it gives (N x O, without a bias)."""


@contextmanager
def listening_to_experts(
    loaded: LoadedModel, look: Look, *, count: int, rows: torch.Tensor, names: Collection[str] | None = None
) -> Iterator[None]:
    """Call `look` whenever an expert multiplies its part of a batch, inside the context.

    `count`: positions of the batch, padding included. `rows`: those that count, flat. `names`: of these products only.
    Nothing happens in models without experts. `ModelError` where a module of experts computes in a way that this does
    not see.
    """
    owners: dict[str, list[Linear]] = defaultdict(list)
    for linear in loaded.anatomy.linears:
        if linear.experts and (names is None or linear.name in names):
            owners[linear.name.rpartition(".")[0]].append(linear)
    with ExitStack() as stack:
        for path, linears in owners.items():
            again = partial(_again, linears=linears, count=count, rows=rows, look=look)
            module = loaded.model.get_submodule(path)
            stack.callback(module.register_forward_pre_hook(again, with_kwargs=True).remove)
        yield


def _again(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    linears: Sequence[Linear],
    count: int,
    rows: torch.Tensor,
    look: Look,
) -> None:
    told: dict[str, int] = dict.fromkeys((linear.name for linear in linears), 0)

    def tell(name: str, expert: int | None, x: torch.Tensor, y: torch.Tensor) -> None:
        if expert is not None:
            told[name] += len(x)
            look(name, expert, x, y)
            return
        for number, (x_NI, y_NO) in enumerate(zip(x, y, strict=True)):
            routed = (x_NI != 0).any(dim=1).nonzero()[:, 0]
            if len(routed):
                tell(name, number, x_NI.index_select(0, routed), y_NO.index_select(0, routed))

    with ExitStack() as stack:
        for linear in linears:
            attribute = linear.name.rpartition(".")[2]
            stack.enter_context(standing_in(module, attribute, partial(tell, linear.name)))
        chosen = partial(_chosen, count=count, rows=rows, experts=linears[0].experts)
        named = {name: chosen(value) for name, value in kwargs.items()}
        inspect.unwrap(type(module).forward)(module, *map(chosen, args), **named)
    unseen = [name for name, seen in told.items() if not seen]
    if len(rows) and unseen:
        raise ModelError(f"{type(module).__name__} multiplies {unseen[0]} in a way that is not understood")


def _chosen(value: Any, *, count: int, rows: torch.Tensor, experts: int) -> Any:
    """Return `rows` of what a module of experts is given for `count` positions."""
    if not isinstance(value, torch.Tensor):
        return value
    here = rows.to(value.device)
    if len(value) == count:
        return value.index_select(0, here)
    if len(value) == experts * count:  # Llama 4: every expert reads all positions, zeros where it was not chosen
        return value.view(experts, count, -1).index_select(1, here).flatten(0, 1)
    raise ModelError(f"experts read a tensor of {tuple(value.shape)} for {count} positions, which is not understood")
