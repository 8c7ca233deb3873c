import os
import signal

import numpy as np
import pytest
from evenbits.errors import EngineError
from evenbits.variants.llama_cpp.engine import GgufEngine, engine_here
from llama_cpp_builds import needs_llama_cpp

pytestmark = needs_llama_cpp
TEXTS = ("the inner thing an other", "Ünïcode: ქართული ენა, 日本語 an", "he  in\tan\n the")


@pytest.fixture
def engine(tiny_gguf):
    with GgufEngine(tiny_gguf, context=256, threads=1, kv="f32") as found:
        yield found


def test_the_engine_says_what_it_is(engine):
    assert engine.engine.name == "llama.cpp"
    assert engine.engine.version
    assert engine.engine.build
    assert engine.engine == engine_here()
    assert (engine.vocabulary, engine.prefix) == (272, 0)


def test_the_tokenizer_of_the_file_is_the_original_one(engine):
    import tiny_models

    original = tiny_models.build_tokenizer()(list(TEXTS), add_special_tokens=False)["input_ids"]
    assert engine.tokens(TEXTS) == original


def test_logits_of_every_position_are_those_of_transformers(engine, tiny_llama):
    import torch
    from transformers import AutoModelForCausalLM

    ids = [0, *engine.tokens(TEXTS)[1]]
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    assert engine.logits(ids, len(ids)).shape == theirs.shape
    np.testing.assert_allclose(engine.logits(ids, len(ids)), theirs, atol=2e-4)
    np.testing.assert_allclose(engine.logits(ids, 3), theirs[-3:], atol=2e-4)


def test_a_window_does_not_remember_the_one_before(engine):
    first = engine.logits([0, 5, 6], 2).copy()
    engine.logits([0, 9, 9, 9, 9], 1)
    np.testing.assert_array_equal(engine.logits([0, 5, 6], 2), first)


def test_a_window_longer_than_the_context_is_refused_and_the_next_is_served(engine):
    with pytest.raises(EngineError, match="asked of a context of 256"):
        engine.logits([1] * 300, 1)
    assert engine.logits([0, 1], 1).shape == (1, 272)


def test_a_file_that_is_no_gguf_is_refused_in_the_words_of_the_engine(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"not a model at all")
    with pytest.raises(EngineError, match=r"cannot open .*m\.gguf"):
        GgufEngine(file, context=16, threads=1)


def test_a_crash_of_the_engine_is_one_sentence_and_not_our_end(engine):
    os.kill(engine._process.pid, signal.SIGSEGV)
    engine._process.wait()
    with pytest.raises(
        EngineError, match=r"llama.cpp died \(SIGSEGV\) while scoring a window of 2 tokens of tiny.gguf"
    ):
        engine.logits([0, 1], 1)


def test_an_unknown_cache_type_is_refused(tiny_gguf):
    with pytest.raises(EngineError, match="one of f32, f16"):
        GgufEngine(tiny_gguf, context=16, threads=1, kv="q9")
