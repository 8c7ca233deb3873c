"""A model that is built, not trained, so that what quantization does to each of its languages is known beforehand.

Every language has seven letters of its own, and the model knows which letter follows which: one MLP channel a letter,
opened by that letter alone, writes the logits of its successors. Attention writes nothing. Languages differ in nothing
but their letters, so that they lose the same, until something is planted.

*Ruined rows.* A letter's channel is opened by one weight of `gate_proj`. A weight 60 times larger in the same row, at
an input that is always zero, changes nothing in full precision; a grid fitted to the row rounds the real one to zero,
the channel stays shut, and after that letter the model knows nothing. Keeping the large weight in high precision
gives the row its grid back.

*Decoys.* The largest weights of `down_proj` lead from channels that never open into dimensions nobody reads. Retention
by magnitude spends itself on them there, so that what languages lose to the rounding of their successors' logits is the
same at every k.

Legend: T letters of all languages, D width of the stream (and of the MLP), V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from evenbits.records import Corpus
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

__all__ = ["HIGH", "LOW", "PlantedModel", "planted_corpus", "save_planted"]

LOW = ("eu", "is", "ka", "lv", "mt", "ug")
HIGH = ("de", "en", "es", "fr", "ja", "ru")
"""Names only: which six are called low is a label, as in the other controls."""

LETTERS = 7
WIDTH = 128
RUIN = 60.0
OPEN = 0.5
SHARPNESS = 1.5
AVOIDED = set("heiao")
"""First halves of the merges of the tests' byte-level tokenizer: a letter has to stay one token."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlantedModel:
    """What is planted: `ruined` letters of every low language, each by `outliers` large weights at dead inputs.

    One large weight a row is sparse: 6 rows of 16,384 weights are .04 %. Forty of them are dense, 240 are 1.5 %.
    """

    ruined: int
    outliers: int = 1

    @property
    def planted_share(self) -> float:
        """Share of the weights of `gate_proj` that are planted."""
        return len(LOW) * self.ruined * self.outliers / WIDTH**2


def _letters() -> list[str]:
    """Return the letters of all languages, LOW first, seven each."""
    usable = [chr(code) for code in range(33, 127) if chr(code) not in AVOIDED]
    return usable[: LETTERS * len(LOW + HIGH)]


def _successors() -> Float64:
    """Return weights of `down_proj` [to, from] between the letters of one language: the next has 1, others .5 to .8."""
    weights = np.random.default_rng(0).uniform(0.5, 0.8, (LETTERS, LETTERS))
    weights[(np.arange(LETTERS) + 1) % LETTERS, np.arange(LETTERS)] = 1.0
    return weights


def _opened() -> float:
    """Return the activation of a letter's channel: the norm turns two ones among D entries into sqrt(D / 2) each."""
    entry = np.sqrt(WIDTH / 2)
    gate = OPEN * entry
    return float(gate / (1 + np.exp(-gate)) * OPEN * entry)


def _probabilities() -> Float64:
    """Return p(next | letter) [from, to] of the model within a language; text is drawn from it.

    With text that follows the model's own distribution no change of the weights can gain in the mean, so that rounding
    does damage and nothing else.
    """
    stream = _successors().T * _opened()
    stream[np.arange(LETTERS), np.arange(LETTERS)] += 1.0  # the letter itself
    rms = np.sqrt(((stream**2).sum(axis=1, keepdims=True) + 1.0) / WIDTH)  # and the constant
    odds = np.exp(SHARPNESS * stream / rms)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def planted_corpus(*, segments: int, length: int, rng: np.random.Generator) -> Corpus:
    """Return text in every language, drawn from the model's own distribution."""
    letters, chances = _letters(), _probabilities().cumsum(axis=1)
    languages = tuple(sorted(LOW + HIGH))
    texts = {}
    for tag in languages:
        own = letters[LETTERS * (LOW + HIGH).index(tag) :][:LETTERS]
        state = rng.integers(0, LETTERS, segments)
        drawn = [state]
        for uniform in rng.random((length - 1, segments)):
            state = np.minimum((chances[state] < uniform[:, None]).sum(axis=1), LETTERS - 1)
            drawn.append(state)
        texts[tag] = tuple("".join(own[at] for at in row) for row in np.stack(drawn, axis=1))
    names = tuple(f"s{i:03d}" for i in range(segments))
    return Corpus(name="planted", source="drawn", languages=languages, segment_ids=names, texts=texts)


def save_planted(plant: PlantedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write the model as a llama of one layer in float32, with its tokenizer, and return `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=272,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if name.endswith(("layernorm.weight", "norm.weight")) else 0.0)
        layer = model.model.layers[0]
        ids = [tokenizer.convert_tokens_to_ids(letter) for letter in _letters()]
        count, constant = len(ids), len(ids)
        model.model.embed_tokens.weight[:, constant] = 1.0
        model.model.embed_tokens.weight[ids, range(count)] = 1.0
        model.lm_head.weight[ids, range(count)] = SHARPNESS
        layer.mlp.gate_proj.weight[range(count), range(count)] = OPEN
        layer.mlp.up_proj.weight[range(count), constant] = OPEN
        block = torch.from_numpy(_successors()).float()
        for start in range(0, count, LETTERS):
            own = slice(start, start + LETTERS)
            layer.mlp.down_proj.weight[own, own] = block
        layer.mlp.down_proj.weight[constant + 1 :, count:] = 3.0
        _ruin(layer.mlp.gate_proj.weight, plant, first_dead=constant + 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _ruin(gate_FD: Tensor, plant: PlantedModel, *, first_dead: int) -> None:
    """Give the gates of the first `ruined` letters of each low language their large weights."""
    for row in [LETTERS * at + letter for at in range(len(LOW)) for letter in range(plant.ruined)]:
        gate_FD[row, first_dead : first_dead + plant.outliers] = RUIN * OPEN
