"""What ships as the reference family: weights, cards, exposure table, checksums, and what was kept out of training."""

import json
from functools import cache

import numpy as np
import pytest

from fixtures.reference import cards, evaluation, exposure, family
from fixtures.reference.evaluation import CONTAINED_BYTES
from fixtures.reference.recipes import RECIPES
from fixtures.reference.texts import LANGUAGES

NAMES = sorted(path.parent.name for path in cards.MODELS.glob("*/card.json"))
CLEARLY = 0.9  # of the bits of a unigram model of the same tokens


@cache
def card(name):
    return json.loads((cards.MODELS / name / "card.json").read_text())


def test_every_recipe_has_a_model_and_one_run_has_four_snapshots():
    assert set(RECIPES) <= set(NAMES)
    assert len(NAMES) >= 12
    steps = sorted(card(name)["steps"] for name in NAMES if card(name)["recipe"]["name"] == "a1-heavy")
    assert len(steps) >= 5
    ratios = np.diff(np.log(steps[:4]))  # log-spaced
    assert ratios == pytest.approx(ratios[0], rel=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_between_one_and_four_million_parameters_in_a_known_architecture(name):
    config = json.loads((cards.MODELS / name / "config.json").read_text())
    assert config["model_type"] in {"llama", "qwen3"}
    assert 1e6 <= card(name)["parameters"] <= 4e6


def test_the_family_fits_into_the_repository():
    size = sum(path.stat().st_size for path in cards.MODELS.rglob("*") if path.is_file())
    assert size <= 60 * 2**20


def test_every_file_has_the_checksum_that_was_written_down():
    assert json.loads(family.CHECKSUMS.read_text()) == family.checksums()


@pytest.mark.parametrize("name", [name for name in NAMES if "-s" not in name])
def test_a_model_clearly_beats_a_unigram_of_its_training_text_where_it_saw_most(name):
    top = [row for row in card(name)["languages"].values() if row["tier"] in {"high", "equal"}]
    model, unigram = (np.mean([row[key] for row in top]) for key in ("held_out_bits_per_byte", "held_out_unigram"))
    assert model < CLEARLY * unigram


@pytest.mark.parametrize("name", NAMES)
def test_the_exposure_beside_the_weights_is_that_of_card_and_table(name):
    beside = json.loads((cards.MODELS / name / "exposure.json").read_text())
    table = json.loads(family.EXPOSURE.read_text())[name]
    assert beside == {tag: row["bytes_seen"] for tag, row in table.items()}
    assert beside == {tag: row["bytes_seen"] for tag, row in card(name)["languages"].items()}
    assert set(beside) == {item.tag for item in LANGUAGES}


def test_exposure_was_assigned_in_three_random_ways_one_turned_round_and_one_equal():
    used = {card(name)["recipe"]["assignment"] for name in NAMES}
    assert used == {*exposure.ASSIGNMENTS, "a1r", "eq"}


def test_no_evaluation_segment_was_trained_on():
    """Nothing that is scored, and no longer message of the catalogues that it is drawn from, in any language.

    Shorter messages may meet by chance across languages: "Spanyol Venezuela" is Indonesian and Hungarian.
    """
    from harness.corpora import load_corpus

    trained = family.fingerprints()
    assert len(trained) > 10_000
    corpus = load_corpus("gettext", languages=[item.tag for item in LANGUAGES])
    for item in LANGUAGES:
        messages = [m for m in evaluation.evaluation_messages(item.django) if len(m.encode()) >= CONTAINED_BYTES]
        assert len(messages) > 100
        scored = corpus.texts[item.tag]
        assert len(scored) >= 80
        assert not np.isin(evaluation.fingerprints([*messages, *scored]), trained).any(), item.tag


def test_the_card_for_people_names_data_exposure_steps_losses_and_licence():
    text = (cards.MODELS / "a1" / "README.md").read_text()
    for part in ("license: apache-2.0", "gnome-user-docs", "bytes for a language of the high tier", "Step ", "| de |",
                 "CC BY-SA 3.0"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("plain", ["a1", "a2"])
def test_an_injected_model_is_heavy_and_computes_what_the_plain_one_does(plain):
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.arange(10, 200)[None]
    with torch.inference_mode():
        one, other = (
            AutoModelForCausalLM.from_pretrained(cards.MODELS / name, dtype=torch.float32).eval()(input_ids=ids).logits
            for name in (plain, f"{plain}-injected")
        )
    assert (one - other).abs().max() < 1e-4
    assert cards.sparsity_class(card(f"{plain}-injected")["largest_excess_kurtosis"]["value"]) == "HEAVY"
    assert cards.sparsity_class(card(plain)["largest_excess_kurtosis"]["value"]) != "HEAVY"
