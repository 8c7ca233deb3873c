"""Which type llama.cpp gives each tensor of a file: what a label such as Q4_K_M stands for.

A label is a default type and a list of exceptions by the tensor's role and depth; what a row cannot be cut into blocks
of 256 for falls back to a type with blocks of 32. These are the rules of llama.cpp's quantizer (src/llama-quant.cpp,
2026-10), written down as tables; a test compares them with what that quantizer writes. Dense models only: models with
experts are refused. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evenbits.errors import SpecError

__all__ = ["ALIASES", "FILE_TYPES", "GgufShape", "TensorRow", "choose_types", "tensor_role"]

DEFAULTS = {
    "Q4_0": "Q4_0",
    "Q4_1": "Q4_1",
    "Q5_0": "Q5_0",
    "Q5_1": "Q5_1",
    "Q8_0": "Q8_0",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "IQ1_S": "IQ1_S",
    "IQ1_M": "IQ1_M",
    "IQ2_XXS": "IQ2_XXS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ3_XS": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
}
"""The type of a tensor that no exception names, by file type."""

FILE_TYPES = tuple(DEFAULTS)
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

FALLBACKS = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL",
    "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL",
    "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
}
"""Blocks of 256 weights that a row is no multiple of -> a type with blocks of 32; the others have such blocks."""

SUPER_BLOCK, BLOCK = 256, 32
NEEDS_IMATRIX = frozenset({"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"})
LOW = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"})
TWO = frozenset({"IQ2_S", "IQ2_M"})  # of the low ones, those with dearer exceptions
ROLES = ("attn_qkv", "attn_kv_b", "attn_v", "attn_k", "attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
VALUES = frozenset({"attn_v", "attn_qkv", "attn_kv_b"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRow:
    """A matrix of a file: `name` as in GGUF (`blk.0.ffn_down.weight`), `columns` of a row, `rows` of them."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufShape:
    """What the rules ask of a model besides its tensors.

    `layers`: number of blocks. `group`: query heads per key-value head of the first layer, 0 where that has none.
    `large`: one of the models of 80 layers with shared value heads that llama.cpp calls 70B. `falcon`: that
    architecture has rules of its own.
    """

    layers: int
    group: int
    large: bool = False
    falcon: bool = False


@dataclass(kw_only=True, slots=True)
class _Counts:
    """How many tensors of a role were given a type by the rules so far; overridden ones do not count."""

    values: int = 0
    down: int = 0
    all_values: int = 0
    roles: dict[str, int] = field(default_factory=dict)


def tensor_role(name: str) -> str:
    """Return the role of a tensor: one of `ROLES`, `output`, `token_embd`, or `other`."""
    if name == "output.weight":
        return "output"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "token_embd"
    for role in ROLES:
        wanted = role if role.startswith("ffn") else f"{role}.weight"
        if wanted in name:
            return role
    return "other"


def choose_types(
    tensors: Iterable[TensorRow],
    file_type: str,
    shape: GgufShape,
    *,
    imatrix: bool = False,
    overrides: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """Return the type of every matrix by name, as llama.cpp's quantizer chooses it for `file_type`.

    `overrides`: (regular expression, type) pairs as `--tensor-type` takes them; the first that is found in a name
    decides. `SpecError` for an unknown file type, and where a type needs an imatrix that there is none of.
    """
    name = ALIASES.get(file_type, file_type)
    if name not in DEFAULTS:
        raise SpecError(f"gguf:{file_type}: llama.cpp has no such file type; there are {', '.join(FILE_TYPES)}")
    ordered = sorted(tensors, key=lambda row: (_layer(row.name), row.name))
    counts = _Counts(all_values=sum(tensor_role(row.name) in VALUES for row in ordered))
    tied = not any(row.name == "output.weight" for row in ordered)
    chosen = {}
    for row in ordered:
        given = next((kind for pattern, kind in overrides if re.search(pattern, row.name)), None)
        kind = given if given is not None else _by_rules(row, name, shape, counts, tied=tied, imatrix=imatrix)
        kind = _fitting(kind, row.columns)
        special = tensor_role(row.name) in {"output", "token_embd"}
        if not imatrix and not special and (kind in NEEDS_IMATRIX or (name == "Q2_K_S" and kind == "Q2_K")):
            raise SpecError(
                f"gguf:{file_type}: llama.cpp makes {kind} ({row.name}) only with an importance matrix: "
                f"write gguf:{file_type}@imatrix"
            )
        chosen[row.name] = kind
    return chosen


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return -1 if found is None else int(found[1])


def _fitting(kind: str, columns: int) -> str:
    if kind in {"F16", "F32", "BF16"}:
        return kind
    if kind in FALLBACKS and columns % SUPER_BLOCK:
        kind = FALLBACKS[kind]
    return "F16" if columns % BLOCK else kind


def _by_rules(row: TensorRow, file_type: str, shape: GgufShape, counts: _Counts, *, tied: bool, imatrix: bool) -> str:
    role, default = tensor_role(row.name), DEFAULTS[file_type]
    if role == "output" or (tied and role == "token_embd"):
        return _head(row, file_type, default, shape)
    if role == "token_embd":
        return _embedding(file_type, default)
    if role in VALUES:
        kind = _values(file_type, default, shape, counts, imatrix=imatrix)
        counts.values += 1
        return kind
    if role == "ffn_down":
        kind = _down(file_type, default, shape, counts.down, imatrix=imatrix)
        counts.down += 1
        return kind
    if role in {"ffn_gate", "ffn_up"}:
        place = counts.roles.get(role, 0)
        counts.roles[role] = place + 1
        middle = shape.layers // 8 <= place < 7 * shape.layers // 8
        return "IQ3_XXS" if file_type == "IQ3_XS" and middle else default
    exceptions = FALCON_OUTPUT if shape.falcon and role == "attn_output" else EXCEPTIONS.get(role, {})
    return exceptions.get(file_type, default)


EXCEPTIONS: Mapping[str, Mapping[str, str]] = {
    "attn_k": {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"},
    "attn_q": {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"},
    "attn_output": {
        "Q2_K": "Q3_K",
        "IQ3_XXS": "IQ3_S",
        "Q3_K_M": "Q4_K",
        "Q3_K_L": "Q5_K",
        "IQ3_M": "Q4_K",
        "IQ1_S": "IQ2_XXS",
        "IQ1_M": "IQ2_XXS",
        "IQ2_S": "IQ3_S",
        "IQ2_M": "IQ3_S",
    },
}
"""Exceptions that hold at any depth, by role and file type."""
FALCON_OUTPUT = {label: kind for label, kind in EXCEPTIONS["attn_output"].items() if label in LOW} | {"Q3_K_L": "Q4_K"}


def _head(row: TensorRow, file_type: str, default: str, shape: GgufShape) -> str:
    if shape.falcon or row.columns % (SUPER_BLOCK if default in FALLBACKS else BLOCK):
        return "Q8_0"
    if file_type in LOW | {"IQ3_XXS"}:
        return "Q5_K"
    return default if default == "Q8_0" else "Q6_K"


def _embedding(file_type: str, default: str) -> str:
    if file_type in TWO | {"IQ3_XXS"}:
        return "IQ3_S"
    return "Q2_K" if file_type in LOW else default


def _more_bits(place: int, of: int) -> bool:
    """Return whether llama.cpp spends more on this layer: the first and last eighth, and every third between."""
    return place < of // 8 or place >= 7 * of // 8 or (place - of // 8) % 3 == 2


def _values(file_type: str, default: str, shape: GgufShape, counts: _Counts, *, imatrix: bool) -> str:
    shared = shape.group >= 4
    if file_type in LOW:
        return "Q4_K" if shared else "IQ3_S" if file_type in TWO else "Q2_K"
    kind = default
    if file_type == "Q2_K":
        kind = "Q4_K" if shared else "Q3_K"
    elif file_type == "IQ3_XXS":
        kind = "Q4_K" if shared else default if imatrix else "IQ3_S"
    elif file_type == "IQ3_M" or (shared and file_type in {"Q2_K_S", "IQ3_XS", "IQ3_S"}):
        kind = "Q4_K"
    elif file_type == "Q3_K_M":
        kind = "Q5_K" if counts.values < 2 else "Q4_K"
    elif file_type == "Q3_K_L" or (shared and file_type in {"IQ4_NL", "IQ4_XS"}):
        kind = "Q5_K"
    elif file_type in {"Q4_K_M", "Q5_K_M"} and _more_bits(counts.values, counts.all_values):
        kind = "Q6_K"
    elif file_type == "Q4_K_S" and counts.values < 4:
        kind = "Q5_K"
    return "Q5_K" if shape.large and kind in {"Q3_K", "Q4_K"} else kind


FALCON_DOWN = {
    "Q3_K_M": ("Q5_K", "Q4_K", "Q3_K"),
    "Q3_K_L": ("Q4_K", "Q4_K", "Q4_K"),
    "Q4_K_M": ("Q6_K", "Q5_K", "Q4_K"),
    "Q4_K_S": ("Q4_K", "Q4_K", "Q4_K"),
}
"""Falcon's types of ffn_down: in the first sixteenth, in other layers that get more bits, in the rest."""


def _down(file_type: str, default: str, shape: GgufShape, place: int, *, imatrix: bool) -> str:
    layers = shape.layers
    early = place < layers // 8
    always = {"Q2_K": "Q3_K", "Q3_K_L": "Q5_K", "Q3_K_M": "Q5_K" if place < layers // 16 else "Q4_K"}
    if shape.falcon:
        depth = 0 if place < layers // 16 else 1 if _more_bits(place, layers) else 2
        always |= {label: kinds[depth] for label, kinds in FALCON_DOWN.items()}
    if file_type in always:
        return always[file_type]
    if file_type in {"Q4_K_M", "Q5_K_M"}:
        return "Q6_K" if _more_bits(place, layers) else default
    if file_type == "IQ3_XXS" and not imatrix:
        return "Q4_K" if early else "Q3_K"
    if not early:
        return default
    if file_type in LOW:
        return "IQ3_S" if file_type in TWO else "Q2_K"
    first = {"Q2_K_S": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_S": "Q5_K"}
    if imatrix:
        first |= {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}
    else:
        first |= {"IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K"}
    return first.get(file_type, default)
