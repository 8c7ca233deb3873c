"""What stands in a parameter's place and tells what is multiplied with it: for products that are no module's call.

Shapes: E experts, N rows that a product reads, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["standing_in"]

PRODUCTS = (functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm)


Tell = Callable[[int | None, torch.Tensor, torch.Tensor], None]
"""Is told after every product the expert, what it read [..., N, I] and what it gave [..., N, O], without a bias; the
expert is None where the whole parameter was multiplied."""


@contextmanager
def standing_in(module: nn.Module, attribute: str, tell: Tell) -> Iterator[None]:
    """Put a `StandIn` in the place of a parameter of `module` while the context lasts."""
    module.__dict__[attribute] = StandIn(module.get_parameter(attribute), tell)
    try:
        yield
    finally:
        del module.__dict__[attribute]


class StandIn:
    """Stands where a parameter stood, in everything that is done with it; of one expert where it was asked for that."""

    def __init__(self, weight: torch.Tensor, tell: Tell, *, expert: int | None = None) -> None:
        self.weight, self.tell, self.expert = weight, tell, expert

    def __getattr__(self, name: str) -> Any:
        return getattr(self.weight, name)

    def __getitem__(self, number: Any) -> StandIn:
        return StandIn(self.weight[number], self.tell, expert=int(number))

    def __matmul__(self, other: torch.Tensor) -> Any:
        return torch.matmul(self, other)  # type: ignore[arg-type]  # what stands for a tensor is taken for one

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        own = next(one for one in args if isinstance(one, cls))
        y = func(*(one.weight if one is own else one for one in args), **(kwargs or {}))
        if func in PRODUCTS:
            first = args[0] is own  # weight @ columns, where others have rows @ weight
            own.tell(own.expert, args[1].mT if first else args[0], y.mT if first else y)
        return y
