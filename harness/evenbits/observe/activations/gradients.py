"""Mean squared gradient of the loss by every weight: the diagonal of the empirical Fisher information.

Shapes: g_OI is out x in, also for modules that store their weight transposed.

F_oi = mean over segments of (d NLL(segment) / d w_oi)^2, NLL in nats of the whole segment (its tokens after the prefix
token), as in SqueezeLLM (arXiv 2306.07629). One backward pass per segment: the gradient of a batch would be squared
after averaging, which measures something else. One float32 tensor per product is kept, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from evenbits.errors import NonFiniteError
from evenbits.models.anatomy import Linear
from evenbits.models.device import room_on
from evenbits.models.records import LoadedModel
from evenbits.observe.activations.batches import Sequenced, sequences_of
from evenbits.observe.activations.lookup import GRADIENTS, HELD_BYTES, gradient_key
from evenbits.progress import Progress, Silent
from evenbits.scoring.arithmetic import WidenedAttention
from evenbits.store import Store

__all__ = ["GradientSquares", "exact_attention", "gradient_squares", "in_rounds", "measure_gradients"]


class GradientSquares:
    """Mean squared gradients in a folder of the store, one file per product, read by memory map when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return the mean squared gradient of module `name`, float32 [O, I]; KeyError where it was not measured."""
        path = self._folder / f"{name}.npy"
        if not path.is_file():
            raise KeyError(f"no gradients of {name} were measured")
        return torch.from_numpy(np.load(path))


def gradient_squares(
    loaded: LoadedModel, texts: Mapping[str, Sequence[str]], *, store: Store, progress: Progress | None = None
) -> GradientSquares:
    """Return the mean over languages of the mean squared gradients over their `texts`.

    Measured once per model, texts and dtype, some products at a time, so that memory is bounded and the disk holds one
    number for each weight whatever the number of languages. Gradients that are not finite raise `NonFiniteError`.
    """

    def fill(folder: Path) -> None:
        # the totals of some products, and those of a language
        sizes = {linear.name: 2 * 4 * _weight(loaded.model, linear).numel() for linear in loaded.anatomy.linears}
        rounds = in_rounds(sizes, HELD_BYTES)
        shown = (progress or Silent()).task(f"{loaded.local.text}  gradients", total=len(rounds) * len(texts))
        with shown as task:
            for names in rounds:
                totals: dict[str, torch.Tensor] = {}
                for tag, lines in texts.items():
                    task.doing(tag)
                    for name, squares in measure_gradients(loaded, lines, language=tag, names=names).items():
                        totals[name] = totals[name].add_(squares) if name in totals else squares
                    task.advance()
                for name, total in totals.items():
                    np.save(folder / f"{name}.npy", total.div_(len(texts)).cpu().numpy())

    return GradientSquares(store.folder(GRADIENTS, gradient_key(loaded, texts.values()), fill))


def in_rounds(sizes: Mapping[str, int], held: int) -> list[list[str]]:
    """Return the names in runs whose sizes come to `held` at most; what is larger stands alone."""
    rounds: list[list[str]] = [[]]
    room = held
    for name, size in sizes.items():
        if rounds[-1] and size > room:
            rounds.append([])
            room = held
        rounds[-1].append(name)
        room -= size
    return rounds


def measure_gradients(
    loaded: LoadedModel, texts: Sequence[str], *, language: str, names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Return the mean squared gradient of every product inside the decoder layers, float32 [O, I], without a store.

    `names`: only of these products; memory is needed for theirs alone.

    Long segments are read in several sequences, each with the prefix token; their gradients count as segments of their
    own. The model is left as it was: no gradients, the same parameters asking for none.
    """
    model = loaded.model
    linears = [linear for linear in loaded.anatomy.linears if names is None or linear.name in names]
    sequences = sequences_of(loaded, texts, language=language)
    sums = {linear.name: torch.zeros_like(_weight(model, linear), dtype=torch.float32) for linear in linears}
    room = room_on(loaded.device, f"gradients of {language} beside the model")
    with room, collecting(model, linears, sums), exact_attention(model.device), torch.enable_grad():
        for sequence in sequences:
            loss = _nll(model, sequence)
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(f"the loss of segment {sequence.segment} in {language} is {float(loss)}")
            loss.backward()  # type: ignore[no-untyped-call]
    means = {}
    for linear in linears:
        mean = sums.pop(linear.name).div_(len(sequences))
        if not bool(torch.isfinite(mean).all()):
            raise NonFiniteError(f"gradients of {linear.name} overflow on the texts in {language}; use --dtype float32")
        means[linear.name] = linear.matrix(mean).contiguous()
    return means


def exact_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which gradients through attention come out the same every time, and soon.

    The backward passes of a GPU's fused kernels add in whatever order they finish; plain products do not.
    """
    return WidenedAttention() if device.type == "cpu" else sdpa_kernel(SDPBackend.MATH)


@contextmanager
def collecting(model: nn.Module, linears: Sequence[Linear], sums: dict[str, torch.Tensor]) -> Iterator[None]:
    """Add the squared gradient of every weight to `sums` as soon as a backward pass has it, and drop the gradient."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with ExitStack() as stack:
        stack.callback(lambda: [parameter.requires_grad_(asked) for parameter, asked in before.items()])
        for parameter in before:
            parameter.requires_grad_(False)
        for linear in linears:
            weight = _weight(model, linear)
            weight.requires_grad_(True)
            take = _taker(sums[linear.name])
            handle = weight.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]
            stack.callback(handle.remove)
        yield


def _taker(total: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def take(weight: torch.Tensor) -> None:
        assert weight.grad is not None  # noqa: S101 - this hook runs after it was accumulated
        gradient = weight.grad.float()
        total.addcmul_(gradient, gradient)
        weight.grad = None

    return take


def _nll(model: PreTrainedModel, sequence: Sequenced) -> torch.Tensor:
    ids = torch.tensor([sequence.ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return functional.cross_entropy(logits, ids[0, 1:], reduction="sum")


def _weight(model: nn.Module, linear: Linear) -> nn.Parameter:
    return model.get_parameter(linear.parameter)
