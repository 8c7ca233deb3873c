"""Plans: what a spec does to each tensor of a model, checked before anything is computed, and what it costs to store.

Bits per weight count, over the linear weights of the decoder layers (and the head or the embedding where the spec
includes them):

- payload: the grid's bits for every weight of a quantized matrix, also at the places of kept weights (a dense matrix
  has no holes); 16 bits for every weight of a matrix that is protected or not selected;
- scales: 16 bits for every group (absmax, min-max and NF4 alike); an asymmetric grid adds a zero point of the grid's
  bits for every group;
- kept weights: 16 bits for the value and ceil(log2(size)) bits for its index; size is that of the tensor, or of all
  quantized tensors together with scope `global`.

Biases, norms, position embeddings and projections outside the layers are not counted: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evenbits.errors import SpecError
from evenbits.variants.quantization.spec import Grid, QuantSpec

if TYPE_CHECKING:
    from evenbits.models.anatomy import Anatomy

__all__ = ["Plan", "PlannedTensor", "Storage", "bits_per_weight", "plan", "storage"]

Status = Literal["quantized", "protected", "not_selected", "untouched"]
FP16 = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTensor:
    """What happens to the weight of the module `name`.

    `part`: attention, mlp, head or embedding. `shape`: O x I. `status`: `quantized`; `protected` by the spec;
    `not_selected` by its `only`; `untouched`: head or embedding that the spec doesn't include. `grid`: None unless
    quantized. `kept`: weights kept in this tensor, None where they are counted over all tensors together.
    `shared_with`: other modules that use the same weight and get the same values (a tied head).
    """

    name: str
    part: str
    shape: tuple[int, int]
    status: Status
    grid: Grid | None = None
    kept: int | None = 0
    shared_with: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A spec applied to a model's shapes.

    `tensors`: decoder linears in order, then embedding, then head (a tied head that shares the embedding's fate is not
    listed twice). `kept_globally`: weights kept of all quantized tensors together, None where each has its own count.
    """

    spec: QuantSpec
    tensors: tuple[PlannedTensor, ...]
    kept_globally: int | None = None

    @property
    def quantized(self) -> tuple[PlannedTensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.status == "quantized")


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Bits that a plan needs, by purpose.

    `payload` to `high_precision`, and `weights`: over the linears of the decoder layers and what the spec includes.
    `other_weights`: number of weights of embedding and head where they stay in 16 bits, a tied pair once.
    """

    payload: int
    scales: int
    zero_points: int
    kept: int
    high_precision: int
    weights: int
    other_weights: int

    @property
    def bits_per_weight(self) -> float:
        """Bits per linear weight: the figure by which interventions are compared."""
        return self._bits / self.weights

    @property
    def bits_per_weight_with_embeddings(self) -> float:
        """For reference: the same with embedding and head counted in, at 16 bits unless the spec includes them."""
        return (self._bits + FP16 * self.other_weights) / (self.weights + self.other_weights)

    @property
    def _bits(self) -> int:
        return self.payload + self.scales + self.zero_points + self.kept + self.high_precision


def plan(spec: QuantSpec, anatomy: Anatomy, shapes: Mapping[str, tuple[int, int]]) -> Plan:
    """Return what `spec` does to each tensor of a model with this `anatomy`.

    `shapes`: O x I of every linear of the anatomy, its head and its embedding, by module path. `SpecError` names the
    layer where a group size does not divide the inputs, and the name where a path matches no module.
    """
    parts = {linear.name: linear.part for linear in anatomy.linears}
    extras = {anatomy.embedding: "embedding", anatomy.head: "head"}
    _check_names(spec, (*parts, *extras), kept=anatomy.kept)
    tensors = [_planned(spec, name, part, shapes) for name, part in parts.items()]
    tensors += [_planned(spec, name, part, shapes) for name, part in extras.items()]
    if anatomy.tied:
        tensors = _merge_tied(tensors, anatomy.embedding, anatomy.head)
    chosen = [tensor for tensor in tensors if tensor.status == "quantized"]
    if spec.grid is not None and not chosen:
        raise SpecError(
            f"spec {str(spec)!r} quantizes nothing: everything is protected or not selected. "
            "The head and the embedding are quantized only with include:head or include:embedding"
        )
    kept_globally = None
    if spec.keep is not None and spec.keep.scope == "global":
        kept_globally = spec.keep.count(sum(tensor.size for tensor in chosen))
    return Plan(spec=spec, tensors=tuple(tensors), kept_globally=kept_globally)


def storage(plan: Plan) -> Storage:
    """Return the bits that `plan` needs, counted as the module says."""
    counted = [tensor for tensor in plan.tensors if tensor.status != "untouched"]
    quantized = plan.quantized
    total = sum(tensor.size for tensor in quantized)
    payload = scales = zero_points = kept = 0
    for tensor in quantized:
        if tensor.grid is None:
            continue
        groups = tensor.grid.scales(tensor.shape)
        payload += tensor.grid.bits * tensor.size
        scales += FP16 * groups
        zero_points += 0 if tensor.grid.symmetric else tensor.grid.bits * groups
        kept += (tensor.kept or 0) * (FP16 + index_bits(tensor.size))
    if plan.kept_globally is not None:
        kept += plan.kept_globally * (FP16 + index_bits(total))
    return Storage(
        payload=payload,
        scales=scales,
        zero_points=zero_points,
        kept=kept,
        high_precision=FP16 * sum(tensor.size for tensor in counted if tensor.status != "quantized"),
        weights=sum(tensor.size for tensor in counted),
        other_weights=sum(tensor.size for tensor in plan.tensors if tensor.status == "untouched"),
    )


def bits_per_weight(plan: Plan) -> float:
    """Return the storage of `plan` in bits per linear weight, scales and kept weights included."""
    return storage(plan).bits_per_weight


def index_bits(size: int) -> int:
    """Return ceil(log2(size)): the bits that tell `size` places apart."""
    return (size - 1).bit_length()


def _planned(spec: QuantSpec, name: str, part: str, shapes: Mapping[str, tuple[int, int]]) -> PlannedTensor:
    if name not in shapes:
        raise SpecError(f"{name}: the model has no weight matrix there, so {str(spec)!r} cannot be planned")
    shape = shapes[name]
    if spec.grid is None or (part in {"head", "embedding"} and part not in spec.include):
        status: Status = "untouched" if part in {"head", "embedding"} else "not_selected"
        return PlannedTensor(name=name, part=part, shape=shape, status=status)
    if _matches(name, spec.protect):
        return PlannedTensor(name=name, part=part, shape=shape, status="protected")
    if spec.only and not _matches(name, spec.only):
        return PlannedTensor(name=name, part=part, shape=shape, status="not_selected")
    try:
        spec.grid.scales(shape)
    except SpecError as error:
        fitting = [size for size in (256, 128, 64, 32, 16, 8, 4, 2) if shape[1] % size == 0]
        remedy = f"sizes that do: {', '.join(map(str, fitting))}" if fitting else "use one scale per row"
        raise SpecError(
            f"spec {str(spec)!r}: {name} has {shape[1]} inputs, and {error} ({remedy}); "
            f"or leave it out with +protect:{name}"
        ) from None
    kept: int | None = 0
    if spec.keep is not None:
        kept = None if spec.keep.scope == "global" else spec.keep.count(shape[0] * shape[1])
    return PlannedTensor(name=name, part=part, shape=shape, status="quantized", grid=spec.grid, kept=kept)


def _merge_tied(tensors: list[PlannedTensor], embedding: str, head: str) -> list[PlannedTensor]:
    """List a tied head and embedding once where both meet the same fate: they are one matrix in storage.

    Where only one is quantized, the pair is untied and both are stored.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    first, second = by_name[embedding], by_name[head]
    if first.status != second.status:
        return tensors
    shared = PlannedTensor(
        name=embedding,
        part="embedding",
        shape=first.shape,
        status=first.status,
        grid=first.grid,
        kept=first.kept,
        shared_with=(head,),
    )
    return [shared if tensor.name == embedding else tensor for tensor in tensors if tensor.name != head]


def _check_names(spec: QuantSpec, modules: Sequence[str], *, kept: Sequence[str]) -> None:
    for verb, names in (("protect", spec.protect), ("only", spec.only)):
        for name in names:
            if not any(_matches(module, (name,)) for module in modules):
                if any(_matches(parameter, (name,)) for parameter in kept):
                    raise SpecError(
                        f"spec {str(spec)!r}: {verb}:{name} stays in high precision by rule (routers, convolutions, "
                        "biases of experts), whatever a spec says; leave it out"
                    )
                raise SpecError(
                    f"spec {str(spec)!r}: {verb}:{name} matches no linear layer of this model. Its modules go from "
                    f"{modules[0]} to {modules[-1]}; a name is a full path or its beginning, such as "
                    f"{'.'.join(modules[0].split('.')[:3])}"
                )


def _matches(module: str, names: Sequence[str]) -> bool:
    """Return whether a name is `module` or its beginning at a dot: layers.1 is no beginning of layers.10."""
    return any(module == name or module.startswith(f"{name}.") for name in names)
