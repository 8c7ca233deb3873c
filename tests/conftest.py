"""Fixtures shared by the tests: an empty store, tiny models of every architecture."""

from __future__ import annotations

import os
import random
import sys

import pytest
import tiny_models
from hypothesis import settings

# A run gives the same verdict on the same code, however busy the machine (no deadlines); `--hypothesis-profile=explore`
# looks for new examples.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, derandomize=False, deadline=None)
settings.load_profile("repeat")

os.environ["HF_HUB_OFFLINE"] = "1"  # no test talks to a hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same numbers in every run, whichever tests ran before it."""
    random.seed(0)
    if "torch" in sys.modules:  # a test of what needs no torch does not import it
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def imported_for_good():
    """torch, which cannot be imported twice, before a `pytester` that would forget it again after its test."""
    import transformers.modeling_utils  # noqa: F401 - brings torch, and what of it registers operators


@pytest.fixture
def pytester(imported_for_good, pytester):  # noqa: ARG001
    """pytest's own, in whatever order tests run."""
    return pytester


@pytest.fixture
def store(tmp_path):
    """An empty store, outside the working folder of the test."""
    from evenbits.store import Store

    return Store(tmp_path / "store")


@pytest.fixture
def plain_terminal(monkeypatch, tmp_path):
    """A wide terminal without colours, and a store of the test's own, for commands."""
    monkeypatch.setenv("EVENBITS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def tagged_texts(tmp_path_factory):
    """`tagged_texts(tags, segments)` -> a folder for `dir:` with as many short lines in each language."""

    def make(tags, segments):
        folder = tmp_path_factory.mktemp("corpus")
        for tag in tags:
            lines = [f"{tag}: the inner thing an {number} says {tag * (1 + number % 3)}" for number in range(segments)]
            (folder / f"{tag}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture
def text_folder(tmp_path):
    """`text_folder(tags, lines=8)` -> folder with `<tag>.txt` of so many short lines in each."""

    def make(tags, *, lines=8):
        folder = tmp_path / "texts"
        folder.mkdir()
        for tag in tags:
            said = [f"{tag} says the {number}th thing an inner" for number in range(lines)]
            (folder / f"{tag}.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture
def resolved(tmp_path):
    """`resolved(folder)` -> the checked model in it, by a store of its own."""
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    return lambda folder: resolve(parse_model(str(folder)), store=Store(tmp_path / "models"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """`tiny_model(architecture, **options)` -> folder of a tiny model, made once per session. Read-only.

    Options are those of `build_model` and `build_config` in tiny_models.py: layers, hidden, seed, shard, and any entry
    of the architecture's configuration.
    """
    made = {}

    def make(architecture="llama", **options):
        key = (architecture, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(architecture) / architecture
            made[key] = tiny_models.build_model(architecture, folder, **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_llama(tiny_model):
    """Folder of a llama with 3 layers of width 64, tied embeddings, byte-level tokenizer. Read-only."""
    return tiny_model("llama", layers=3, hidden=64)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """The byte-level tokenizer of the tiny models: `<s>` 0, `</s>` 1, `<pad>` 2, `<unk>` 3, then bytes and 8 merges."""
    return tiny_models.build_tokenizer()


@pytest.fixture(scope="session")
def tiny_gguf(tiny_llama, tmp_path_factory):
    """The tiny llama as a float32 GGUF file. Read-only."""
    return tiny_models.build_gguf(tiny_llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def loaded_tiny(tiny_llama, tmp_path_factory):
    """The tiny llama, resolved and loaded in float32; a new copy for every test, which may change it."""
    import torch
    from evenbits.models.loading import load
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    store = Store(tmp_path_factory.mktemp("loaded") / "store")
    return load(resolve(parse_model(str(tiny_llama)), store=store), dtype=torch.float32)
