"""Training runs: rows, schedule, stopping and going on, repeatability. A toy recipe of two dozen steps."""

from dataclasses import replace

import numpy as np
import pytest

from fixtures.reference import runs, tokenizer
from fixtures.reference.recipes import RECIPES
from fixtures.reference.texts import Paragraph

TOY = replace(RECIPES["a1"], name="toy", context=16, rows_per_step=2, warmup=4)
VOCABULARY = 64


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
    sentences = [f"the legend of chart {n} is below the page" for n in range(40)]
    pool = [Paragraph(key=str(n), source="office", text=t, held_out=False) for n, t in enumerate(sentences)]
    return tokenizer.train_tokenizer({"en": pool}, tmp_path_factory.mktemp("tok") / "tokenizer.json")


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(1, VOCABULARY, size=(24, 17)).astype(np.int32)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    import torch

    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_packed_rows_begin_with_the_end_token_and_lose_nothing(tok):
    texts = ["the legend is below", "the chart", "слово"]  # bytes outside the training text work too
    rows = tokenizer.pack(texts, tok, context=8)
    assert (rows[:, 0] == tok.token_to_id(tokenizer.END)).all()
    stream = rows[:, 1:].ravel()
    stream = stream[stream >= 0].tolist()
    pieces = "".join(tok.id_to_token(i) if i != tok.token_to_id(tokenizer.END) else "\n" for i in stream)
    assert len(pieces.replace("\n", "")) == sum(len(t.encode()) for t in texts)  # one character of a token, one byte
    assert pieces.count("\n") == len(texts)


def test_bytes_seen_are_counted_by_language_from_the_rows_themselves(tok):
    one, two = ["the legend is below", "the chart"], ["слово и дело"]
    packed = [tokenizer.pack(texts, tok, context=8) for texts in (one, two)]
    owners = np.repeat([0, 1], [len(part) for part in packed])
    seen = runs.seen_bytes(np.concatenate(packed), owners, ["en", "ru"], tok)
    assert seen == {"en": len("the legend is belowthe chart"), "ru": len("слово и дело".encode())}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_last_share():
    shares = [runs.learning_rate_share(TOY, step, 100) for step in range(101)]
    assert shares[0] == 0.25  # the first of four steps of warm-up
    assert max(shares) == shares[4] == 1
    assert shares[100] == pytest.approx(TOY.final_share)


def test_training_twice_gives_the_same_weights_bit_for_bit(tmp_path, rows):
    first, second = (
        weights(runs.train(TOY, rows, end=0, vocabulary=VOCABULARY, folder=tmp_path / f"runs/{n}")) for n in range(2)
    )
    assert same(first, second)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, rows, monkeypatch, optimizer):
    monkeypatch.setattr(runs, "SAVE_EVERY", 5)
    recipe = replace(TOY, optimizer=optimizer)
    options = {"end": 0, "vocabulary": VOCABULARY}
    whole = weights(runs.train(recipe, rows, folder=tmp_path / "runs/whole", **options))
    steps = []
    runs.train(recipe, rows, folder=tmp_path / "runs/parts", stop_after=7, **options)
    parts = weights(
        runs.train(recipe, rows, folder=tmp_path / "runs/parts", tick=lambda s, *_: steps.append(s), **options)
    )
    assert steps[0] == 6  # from the state after step 5, the last one saved
    assert same(whole, parts)


def test_training_lowers_the_loss(tmp_path, rows):
    repeated = np.tile(rows[:4], (12, 1))
    losses = []
    runs.train(
        TOY, repeated, end=0, vocabulary=VOCABULARY, folder=tmp_path / "runs/x", tick=lambda *a: losses.append(a[2])
    )
    assert losses[-1] < losses[0] - 0.5  # nats; four rows seen twelve times are learned by heart


def test_padding_enters_no_loss(tmp_path, rows):
    padded = rows.copy()
    padded[:, 9:] = -1
    losses = []
    for name, data in (("short", rows[:, :9]), ("padded", padded)):
        folder = tmp_path / "runs" / name
        runs.train(
            TOY, data, end=0, vocabulary=VOCABULARY, folder=folder, stop_after=1, tick=lambda *a: losses.append(a[2])
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the same words without padding; float32 sums


def test_a_diverging_run_is_stopped_with_a_sentence(tmp_path, rows):
    with pytest.raises(RuntimeError, match=r"toy: the loss is (nan|inf) at step .* lower its learning rate"):
        runs.train(
            replace(TOY, learning_rate=1e30, clip=None), rows, end=0, vocabulary=VOCABULARY, folder=tmp_path / "runs/x"
        )


@pytest.mark.parametrize("name", RECIPES)
def test_every_parameter_is_trained_by_exactly_one_optimizer(name):
    from transformers import AutoModelForCausalLM

    from fixtures.reference.recipes import shape

    model = AutoModelForCausalLM.from_config(shape(RECIPES[name], vocabulary=VOCABULARY, end=0))
    optimizers = runs.optimizers_of(RECIPES[name], model)
    trained = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in model.parameters())
    decayed = [p for o in optimizers for g in o.param_groups if g["weight_decay"] > 0 for p in g["params"]]
    assert all(p.ndim == 2 for p in decayed)  # norms are never decayed


def test_snapshots_are_kept_in_bf16_and_leave_the_model_alone(tmp_path, rows):
    from safetensors import safe_open

    model = runs.train(
        replace(TOY, snapshots=(3,)), rows, end=0, vocabulary=VOCABULARY, folder=tmp_path / "runs/x", stop_after=4
    )
    with safe_open(tmp_path / "runs/x/s0003/model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118 - no mapping
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
