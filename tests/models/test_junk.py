"""Junk in any file of a model gives one sentence, or a model that can be loaded and scored: never a traceback."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from evenbits.errors import EvenbitsError
from evenbits.models.gguf import check, precision_of
from evenbits.models.loading import load
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve

JUNK = (None, True, False, 0, -1, 3, 10**9, 10**30, 1.5, "", "x", "\x1b[2J", "四", [], [1], ["a"], {}, {"a": 1})
ENTRIES = (
    "auto_map",
    "quantization_config",
    "rope_parameters",
    "sliding_window",
    "text_config",
    "num_experts",
    "layer_types",
    "tie_word_embeddings",
    "num_key_value_heads",
    "head_dim",
)
FILES = (
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "generation_config.json",
    "model.safetensors",
    "gguf",
)


def junk(rng):
    return json.loads(json.dumps(rng.choice(JUNK)))


def spoilt(value, rng):
    """Return a JSON value with one to three of its entries, at any depth, replaced by junk."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        place = value
        while isinstance(place, dict | list) and place:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not place[key] or not isinstance(place[key], dict | list) or rng.random() < 0.4:
                place[key] = junk(rng)
                break
            place = place[key]
    return value


def spoil_header(path, rng):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(spoilt(json.loads(content[8 : 8 + length]), rng)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def spoil_bytes(content, rng):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(8000)] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)


def use(folder, store):
    import torch
    from evenbits.scoring.likelihood import score

    loaded = load(resolve(parse_model(str(folder)), store=store), dtype=torch.float32)
    score(loaded, "en", ("a", "b"), ("the inner thing", "an other one"))


def attempt(name, seed, *, model, gguf, place, store):
    """Spoil one file of a copy of the model and use it; return what is said of it, empty where it is sound."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311 - junk, no secret
    folder = shutil.copytree(model, place / f"{name}-{seed}")
    try:
        if name == "gguf":
            path = folder / "m.gguf"
            path.write_bytes(spoil_bytes(gguf.read_bytes(), rng))
            check(path)
            precision_of(path)
        elif name == "model.safetensors":
            spoil_header(folder / name, rng)
            use(folder, store)
        else:
            content = spoilt(json.loads((folder / name).read_text()), rng)
            if name == "config.json" and rng.random() < 0.3:
                content[rng.choice(ENTRIES)] = junk(rng)
            (folder / name).write_text(json.dumps(content))
            use(folder, store)
    except EvenbitsError as error:
        return str(error)
    finally:
        shutil.rmtree(folder)
    return ""


@pytest.mark.parametrize("name", FILES)
def test_junk_in_a_file_is_a_sentence(name, tiny_model, tiny_gguf, tmp_path, store):
    for seed in range(8):
        said = attempt(name, seed, model=tiny_model("llama"), gguf=tiny_gguf, place=tmp_path, store=store)
        assert said.isprintable(), said


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_junk_in_a_file_is_a_sentence_two_thousand_times(name, tiny_model, tiny_gguf, tmp_path, store):
    for seed in range(2000):
        said = attempt(name, seed, model=tiny_model("llama"), gguf=tiny_gguf, place=tmp_path, store=store)
        assert said.isprintable(), said
