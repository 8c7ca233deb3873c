"""What is known of a model without its weights is stored, and what is stored is found without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from evenbits.models.blueprint import blueprint
from evenbits.models.records import OnDemand
from evenbits.observe.activations.lookup import activation_statistics
from evenbits.observe.weights.checkpoint import weight_statistics
from evenbits.store import Store

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("one short sentence", "another one, somewhat longer than the first")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "gpt_neox"])
def test_a_blueprint_says_what_the_outline_of_the_model_says(architecture, tiny_model, resolved, store):
    from evenbits.models.layout import anatomy_of
    from evenbits.models.outline import outline, weight_names
    from evenbits.variants.quantization.patching import shapes_of

    local = resolved(tiny_model(architecture))
    model = outline(local.folder)
    for found in (blueprint(local, store=store), blueprint(local, store=store)):  # made, and read back
        assert found.anatomy == anatomy_of(model)
        assert found.shapes == shapes_of(model, found.anatomy)
        assert {f"{name}.weight": (tensor,) for name, tensor in weight_names(local.folder).items()}.items() <= (
            found.tensors.items()
        )
    assert (store.misses, store.hits) == (1, 1)


def test_what_is_stored_of_a_model_is_read_without_torch(tiny_llama, resolved, store):
    import torch
    from evenbits.models.loading import load

    local = resolved(tiny_llama)
    statistics = weight_statistics(local, store=store)
    measured = activation_statistics(load(local, dtype=torch.bfloat16), TEXTS, language="de", store=store)
    code = f"""
import sys
from pathlib import Path
from evenbits.observe.activations.lookup import activation_statistics
from evenbits.models.device import CPU
from evenbits.models.records import LocalModel, OnDemand
from evenbits.store import Store
from evenbits.observe.weights.checkpoint import weight_statistics

def refuse():
    raise AssertionError("nothing is lacking")

store = Store(Path({str(store.root)!r}))
local = LocalModel(text="m", folder=Path({str(local.folder)!r}), fingerprint={local.fingerprint!r}, model_type="llama",
                   parameters=1)
kurtosis = weight_statistics(local, store=store).tensors[0].kurtosis
model = OnDemand(local=local, arithmetic=CPU.arithmetic('torch.bfloat16'), loader=refuse)
tokens = activation_statistics(model, {TEXTS!r}, language="de", store=store).tokens.tolist()
print(kurtosis, tokens, [name for name in ("torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split("\n")[0] == f"{statistics.tensors[0].kurtosis} {measured.tokens.tolist()} []", done.stderr


def test_a_model_on_demand_is_loaded_only_where_something_is_lacking(tiny_llama, resolved, tmp_path):
    import torch
    from evenbits.models.loading import load

    store, times = Store(tmp_path / "own"), []
    local = resolved(tiny_llama)

    def loader():
        times.append(1)
        return load(local, dtype=torch.bfloat16)

    model = OnDemand(local=local, arithmetic="torch.bfloat16", loader=loader)
    first = activation_statistics(model, TEXTS, language="de", store=store)
    again = activation_statistics(model, TEXTS, language="de", store=store)
    assert (first.tokens == again.tokens).all()
    assert len(times) == 1
