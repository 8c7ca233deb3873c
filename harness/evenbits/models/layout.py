"""Layout: a model of transformers is taken apart by what its modules and parameters are called.

Every parameter of two and more dimensions in a decoder layer is accounted for: it is a product that a spec quantizes,
it stays in high precision by a rule below, or the model is refused with the parameter's name. A part that nobody
recognised would silently stay at full precision and make every number look better than it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from evenbits.errors import ModelError
from evenbits.models.anatomy import Anatomy, Block, Linear, Part
from evenbits.models.families import check_type

__all__ = ["anatomy_of", "decoder_of", "text_config", "writes_in_parallel"]

MIXERS = ("self_attn", "self_attention", "attn", "attention", "linear_attn", "mamba", "conv", "mixer")
"""Parts of a layer that mix tokens; where a layer has two (attention beside a state space), the first counts."""

FEEDS = ("mlp", "ffn", "feed_forward", "block_sparse_moe", "shared_mlp")
"""Feed-forward parts of a layer."""

PRODUCTS: Mapping[Part, str] = {
    "attention": r"(q|k|v|o|g|gate|qkv|out|in|x|dt|q_a|q_b|kv_b)_proj|kv_a_proj_with_mqa|in_proj_(qkvz?|z)"
    r"|query_key_value|dense|c_attn|c_proj|Wqkv|output_gate",
    "mlp": r"(gate|up|down|gate_up)_proj|fc1|fc2|fc_in|fc_out|c_fc|c_proj|dense_h_to_4h|dense_4h_to_h|w1|w2|w3"
    r"|input_linear|output_linear|per_layer_input_gate|per_layer_projection|fc[12]_latent_proj",
}
"""Names of the products that a spec quantizes, by the part of the layer they stand in."""

FEEDS_IN_A_MIXER = r"(up|down|fc1_latent|fc2_latent)_proj"
"""Products of a feed-forward part that is called as what mixes tokens, and stands alone in its layer (Nemotron-H)."""

PARALLEL = ("codegen", "cohere", "cohere2", "cohere2_moe", "gptj", "phi")
"""Types whose layers add attention and feed-forward part to the stream side by side, with no setting that says so."""

ATTENTION_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense")
MLP_OUTPUTS = ("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "w2")
"""Products that write into the residual stream."""

KEPT: Mapping[str, str] = {
    r"(mlp|feed_forward|block_sparse_moe|mixer)\.(gate|router)\..*": "router",
    r"mlp\.shared_expert_gate\.weight": "gate of one number",
    r"self_attn\.indexer\..*": "chooses what is attended to",
    r"linear_attn\.(in_proj_(a|b|ba)|(a|b)_proj)\.weight": "gates of one number per head",
    r"(mamba|mixer)\.A_log": "decay of each state",
    r".*\.conv(1d)?\.weight": "convolution along the text",
    r".*experts\.\w+_bias": "biases of experts",
}
"""Parameters of two and more dimensions that stay in high precision, as deployed backends keep them."""

EXPERTS = re.compile(r".*\bexperts\.(gate_up_proj|gate_proj|up_proj|down_proj)")


def text_config(model: Any) -> Any:
    """Return the configuration of the text decoder: of a multimodal wrapper its text part, else the model's own."""
    return model.config.get_text_config(decoder=True)


def decoder_of(model: Any) -> Any:
    """Return the module that turns token ids into final hidden states: no head, of a wrapper the text part alone."""
    found = model.get_decoder()
    if found is model:
        return model.model
    # Of Llama 4's wrapper the text part is a causal model with a head of its own.
    return decoder_of(found) if hasattr(found, "lm_head") else found


def writes_in_parallel(model: Any) -> bool:
    """Return whether the feed-forward part of a layer reads the same stream as attention, not what attention left."""
    config = text_config(model)
    chosen = any(bool(getattr(config, name, False)) for name in ("use_parallel_residual", "parallel_attn"))
    return chosen or config.model_type in PARALLEL


def anatomy_of(model: nn.Module) -> Anatomy:
    """Return the paths of layers, linears, embedding, head and final norm of a transformers causal language model.

    `ModelError` names the first parameter that is neither a known product nor kept by rule, and a product that one
    layer lacks and its like have.
    """
    tree = _Tree.of(model)
    parts = [tree.layer(index, name) for index, name in enumerate(tree.layers)]
    _check_alike(tree, parts)
    modules = tree.modules
    inside = tuple(f"{name}." for name in tree.layers)
    projections = sorted(
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear)
        and name.startswith(f"{tree.decoder}.")
        and not name.startswith(inside)
        and name != tree.head
    )
    return Anatomy(
        model_type=tree.model_type,
        layers=tree.layers,
        blocks=tuple(part.block for part in parts),
        linears=tuple(linear for part in parts for linear in part.linears),
        embedding=tree.embedding,
        head=tree.head,
        final_norm=_final_norm(tree),
        tied=modules[tree.head].weight is modules[tree.embedding].weight,
        projections=tuple(
            Linear(name=name, layer=None, part="projection", role=name.rsplit(".", 1)[-1]) for name in projections
        ),
        kept=tuple(name for part in parts for name in part.kept),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """One decoder layer, taken apart."""

    block: Block
    linears: tuple[Linear, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tree:
    """A model's modules, and where embedding, head and layers are among them."""

    model_type: str
    modules: Mapping[str, Any]
    embedding: str
    head: str
    decoder: str
    layers: tuple[str, ...]
    width: int

    @classmethod
    def of(cls, model: Any) -> _Tree:
        model_type = str(model.config.model_type)
        check_type(model_type)
        modules = dict(model.named_modules())
        paths = {id(module): name for name, module in modules.items()}
        embedding, head = (
            paths.get(id(found)) for found in (model.get_input_embeddings(), model.get_output_embeddings())
        )
        if embedding is None or head is None:
            raise ModelError(f"this {model_type} model has no embedding or no output head of its own")
        root = _layers_path(modules, embedding, model_type)
        return cls(
            model_type=model_type,
            modules=modules,
            embedding=embedding,
            head=head,
            decoder=root.rpartition(".")[0],
            layers=tuple(f"{root}.{index}" for index in range(len(modules[root]))),
            width=int(text_config(model).hidden_size),
        )

    def layer(self, index: int, name: str) -> _Layer:
        """Return layer `name` with every parameter of two and more dimensions accounted for."""
        linears, kept = [], []
        for path, parameter in self.modules[name].named_parameters(remove_duplicate=False):
            if parameter.dim() < 2:
                continue
            if any(re.fullmatch(pattern, path) for pattern in KEPT):
                kept.append(f"{name}.{path}")
            else:
                linears.append(self._product(index, name, path, parameter))
        return _Layer(block=_block(index, name, linears), linears=tuple(linears), kept=tuple(kept))

    def _product(self, index: int, layer: str, path: str, parameter: Any) -> Linear:
        owner_path, _, attribute = path.rpartition(".")
        owner = self.modules[f"{layer}.{owner_path}" if owner_path else layer]
        if EXPERTS.fullmatch(path) and parameter.dim() == 3:
            return Linear(
                name=f"{layer}.{path}",
                layer=index,
                part="mlp",
                role=attribute,
                transposed=self._experts_transposed(f"{layer}.{path}", owner, parameter),
                experts=int(parameter.shape[0]),
            )
        role = owner_path.rpartition(".")[2]
        part = _part(owner_path)
        plain = isinstance(owner, nn.Linear | Conv1D) and attribute == "weight"
        if not plain or part is None or not re.fullmatch(PRODUCTS[part], role):
            size = " x ".join(map(str, parameter.shape))
            raise ModelError(
                f"{layer}.{owner_path if plain else path} ({type(owner).__name__}, {size}) is not a known part of a "
                f"{self.model_type} layer, so it would stay at full precision unseen. Variants with adapters are not "
                "supported: merge them into the weights."
            )
        return Linear(
            name=f"{layer}.{owner_path}", layer=index, part=part, role=role, transposed=isinstance(owner, Conv1D)
        )

    def _experts_transposed(self, name: str, owner: Any, parameter: Any) -> bool:
        """Return whether experts are stored in x out; transformers' own mark first, else the width of the model."""
        marked = getattr(owner, "is_transposed", None)
        if marked is not None:
            return bool(marked)
        _, first, second = parameter.shape
        reads_stream = not name.endswith("down_proj")
        if (first == self.width) == (second == self.width):
            raise ModelError(f"{name}: whether its experts are stored output x input or the reverse cannot be told")
        return bool((first if reads_stream else second) == self.width)


def _layers_path(modules: Mapping[str, Any], embedding: str, model_type: str) -> str:
    """Return the path of the list of decoder layers: beside or below the embedding's parent, with mixers inside."""
    found = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.ModuleList)
        and embedding.startswith(f"{name.rpartition('.')[0]}.")
        and len(module)
        and any(child in {*MIXERS, *FEEDS} for child, _ in module[0].named_children())
    ]
    if len(found) != 1:
        raise ModelError(
            f"this {model_type} model has {len(found)} lists of decoder layers ({', '.join(found)}), not 1"
        )
    return found[0]


def _part(path: str) -> Part | None:
    first, _, rest = path.partition(".")
    if first in FEEDS or (not rest and re.fullmatch(PRODUCTS["mlp"], first)):
        return "mlp"
    if first not in MIXERS:
        return None
    return "mlp" if re.fullmatch(FEEDS_IN_A_MIXER, path.rpartition(".")[2]) else "attention"


def _block(index: int, name: str, linears: list[Linear]) -> Block:
    paths = [linear.name.removeprefix(f"{name}.") for linear in linears]
    output = _first(f"{name}.", paths, MIXERS, ATTENTION_OUTPUTS)
    fed = [path for path, linear in zip(paths, linears, strict=True) if linear.part == "mlp"]
    if output is None and len(fed) < max(1, len(paths)):
        raise ModelError(
            f"{name} has no product by which attention, or what stands in its place, writes into the residual stream "
            f"(one of {', '.join(ATTENTION_OUTPUTS)})"
        )
    feeds = sorted({path.partition(".")[0] for path in fed} & {*FEEDS, *MIXERS})
    mlp = f"{name}.{feeds[0]}" if len(feeds) == 1 else None
    written = _first(f"{name}.", paths, (*feeds, "") if len(feeds) < 2 else (), MLP_OUTPUTS)
    return Block(
        index=index,
        name=name,
        attention=None if output is None else output.rpartition(".")[0],
        mlp=mlp,
        attention_output=output,
        mlp_output=written,
    )


def _first(prefix: str, paths: list[str], parents: tuple[str, ...], roles: tuple[str, ...]) -> str | None:
    """Return the first of `paths` that is a role directly below a parent, or one deeper as in gpt_neo's attention."""
    for parent in parents:
        for path in paths:
            owner, _, role = path.rpartition(".")
            if role in roles and owner in {parent, f"{parent}.attention"}:
                return f"{prefix}{path}"
    return None


def _check_alike(tree: _Tree, parts: list[_Layer]) -> None:
    """Raise `ModelError` where a module of a layer lacks a product that modules of its class have in other layers."""
    found: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(dict)
    for layer, part in zip(tree.layers, parts, strict=True):
        for owner, kind in _owners(tree, layer):
            paths = {linear.name.removeprefix(f"{layer}.") for linear in part.linears}
            inside = {path for path in paths if (path.partition(".")[0] if "." in path else "") == owner}
            found[owner, kind][layer] = inside
    for by_layer in found.values():
        every = set().union(*by_layer.values())
        for layer, inside in by_layer.items():
            missing = sorted(every - inside)
            if missing:
                raise ModelError(f"layer {layer} of this {tree.model_type} model has no {', '.join(missing)}")


def _owners(tree: _Tree, layer: str) -> Iterator[tuple[str, str]]:
    """Yield name and class of each child of a layer, and of the layer itself under the name ''."""
    module = tree.modules[layer]
    yield "", type(module).__name__
    for child, held in module.named_children():
        yield child, type(held).__name__


def _final_norm(tree: _Tree) -> str | None:
    """Return the last norm of the stream; norms of another width are of what layers are given beside it."""
    names = []
    for name, module in tree.modules[tree.decoder].named_children():
        weight = getattr(module, "weight", None)
        if "Norm" in type(module).__name__ and (weight is None or weight.shape[-1] == tree.width):
            names.append(name)
    return f"{tree.decoder}.{names[-1]}" if names else None
