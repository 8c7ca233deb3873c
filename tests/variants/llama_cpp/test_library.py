import struct

import pytest
from evenbits.variants.llama_cpp import library
from evenbits.variants.llama_cpp.library import LibraryError, find_library

MINUS = struct.unpack("<I", struct.pack("<f", -1.0))[0]


def words(*, more=0, type_k=1, flash=0xFFFFFFFF):
    """Default context parameters as llama.h documents them, with `more` fields that evenbits has not met."""
    known = [512, 2048, 512, 1, *[7] * more, 4, 4, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, flash, 0, 0]
    known += [MINUS] * 4 + [0, MINUS] + [0] * 4 + [type_k, 1]
    return known + [0] * 40


def test_the_parameters_are_found_behind_fields_that_are_not_known():
    for more in range(4):
        # 4 + more of the head, two thread counts, context type, three scaling settings, flash, base, scale
        assert library._yarn_at(words(more=more), "x") == 4 + more + 9


@pytest.mark.parametrize("changes", [{"type_k": 8}, {"flash": 1}])
def test_other_defaults_than_the_documented_ones_are_refused(changes):
    with pytest.raises(LibraryError, match="in an order that evenbits does not know"):
        library._yarn_at(words(**changes), "x")


def test_a_missing_library_says_how_to_get_one(monkeypatch):
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)
    monkeypatch.setattr(library, "find_spec", lambda _name: None)
    with pytest.raises(LibraryError, match=r"EVENBITS_LLAMA_CPP .* or install llama-cpp-python"):
        find_library()


def test_the_environment_names_a_file_or_a_folder(monkeypatch, tmp_path):
    built = tmp_path / "libllama.v9.so"
    built.touch()
    for named in (built, tmp_path):
        monkeypatch.setenv(library.ENVIRONMENT, str(named))
        assert find_library() == built


def test_a_folder_without_a_library_is_named(tmp_path):
    with pytest.raises(LibraryError, match="holds no llama"):
        find_library(str(tmp_path))


def test_the_variant_of_the_cpu_or_its_features_name_the_device(monkeypatch):
    said = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | "
    monkeypatch.setattr(library, "_cpu_variant", lambda: "zen4")
    assert library._device(said) == "CPU zen4"
    monkeypatch.setattr(library, "_cpu_variant", lambda: None)
    assert library._device(said) == "CPU SSE3 AVX2 REPACK"
    assert library._device("CUDA : ARCHS = 900 | CPU : AVX2 = 1 | ").startswith("CUDA+CPU")
