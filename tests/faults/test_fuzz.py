"""Anything at all, given to every reader of files and options: an answer or a sentence, never another exception."""

from __future__ import annotations

import json
import shutil
import struct
from contextlib import suppress

import fault_campaign as campaign
import pytest
from evenbits.errors import EvenbitsError
from evenbits.models.exposure import read_exposure
from evenbits.models.gguf_header import read_gguf_header
from evenbits.models.headers import read_header
from evenbits.models.references import parse_model
from evenbits.models.sources import resolve
from evenbits.report.document import load
from evenbits.store import Store
from evenbits.studies.gate.policy import load_policy
from evenbits.studies.h035 import best_forecaster, load_calibration
from evenbits.text import load_corpus
from evenbits.variants.registry import parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

fuzzed = settings(
    max_examples=campaign.EXAMPLES,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([10**400, -1, 0, 2**31, 1e308, "\ud800", "\x00", "de", "gptq", "float32", "F32", [[]], {}])
)


def nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


junk = st.recursive(leaves, nested, max_leaves=8)
deep = st.sampled_from(["[" * 50_000, '{"a":' * 50_000, "1" * 5_000, "[" * 900 + "]" * 900])


def dumped(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


def anything():
    return st.binary(max_size=60) | junk.map(dumped) | deep.map(raw)


def paths_of(value, path):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from paths_of(inner, (*path, key))


def raw(text):
    """Return a text as bytes, halves of surrogate pairs included."""
    return text.encode("utf-8", "surrogatepass")


def made_of(pieces):
    """Return texts put together of `pieces`, in any order."""
    return st.lists(st.sampled_from(pieces), max_size=10).map("".join)


def changed(whole):
    """Return the JSON object `whole` with one to three of its entries, at any depth, replaced, removed or added."""
    paths = list(paths_of(whole, ()))
    one = st.tuples(st.sampled_from(paths[1:]), st.sampled_from(["replace", "remove"]), junk)

    def apply(changes):
        copy = json.loads(json.dumps(whole))
        for path, action, value in changes:
            holder = copy
            with suppress(KeyError, IndexError, TypeError):
                for key in path[:-1]:
                    holder = holder[key]
                if action == "replace":
                    holder[path[-1]] = value
                else:
                    del holder[path[-1]]
        return dumped(copy)

    return st.lists(one, min_size=1, max_size=3).map(apply)


GRIDS = ["int4", "int3", "nf4", "-g64", "-row", "-b64", "-asym", "gguf:", "bnb:", "checkpoint:", "torchao:int8"]
PARTS = ["+keep", "0.1%", "1e9%", ":magnitude", "[de,en]", "[", "]", "+protect:", "+clip:mse", "@global", "%", "+", ":"]
SPECS = [*GRIDS, *PARTS, "served:http://", ",", "../", "9" * 5000, "\x1b", "\n"]


@fuzzed
@given(st.text(max_size=30) | made_of(SPECS))
def test_specs(text):
    with suppress(EvenbitsError):
        str(parse(text))


POLICIES = [
    "[metric.excess_bits]\n",
    "limit = ",
    "9" * 5000,
    "1.0\n",
    "nan\n",
    "[[waiver]]\n",
    'metric = "kl"\n',
    "[[[[",
    "expires = 2030-01-31\n",
    "expires = 1\n",
    "language.sw.limit = 2\n",
    'inconclusive = "x"\n',
    "a.b.c = []\n",
    'language = "xx@yyy"\n',
    "[baseline]\n",
    'owner = "\x1b"\n',
]


@fuzzed
@given(anything() | st.text(max_size=80).map(raw) | made_of(POLICIES).map(raw))
def test_policies(tmp_path, blob):
    (tmp_path / "policy.toml").write_bytes(blob)
    with suppress(EvenbitsError):
        load_policy(tmp_path / "policy.toml")


@fuzzed
@given(anything())
def test_reports(tmp_path, blob):
    (tmp_path / "report.json").write_bytes(blob)
    with suppress(EvenbitsError):
        load(tmp_path / "report.json")


@fuzzed
@given(anything() | changed({"de": 5000, "en": 10, "sr-Latn": 0}))
def test_exposures(tmp_path, blob):
    (tmp_path / "exposure.json").write_bytes(blob)
    with suppress(EvenbitsError):
        read_exposure(tmp_path)


HEADER = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
}


@fuzzed
@given(anything() | changed(HEADER), st.integers(-(2**20), 2**20), st.binary(min_size=24, max_size=24))
def test_headers_of_safetensors(tmp_path, header, off, body):
    length = len(header) + (off if abs(off) < 8 or off > 2**19 else 0)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", max(length, 0)) + header + body)
    with suppress(EvenbitsError):
        read_header(tmp_path / "model.safetensors")


@pytest.fixture(scope="module")
def gguf_head(tiny_gguf):
    """The first 4 KiB of a sound GGUF file: most of its header."""
    return tiny_gguf.read_bytes()[:4096]


BYTES = st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=8))


@fuzzed
@given(st.lists(BYTES, max_size=6), st.integers(0, 4096), st.binary(max_size=40))
def test_headers_of_gguf(tmp_path, gguf_head, changes, length, tail):
    head = bytearray(gguf_head)
    for place, replacement in changes:
        head[place : place + len(replacement)] = replacement
    (tmp_path / "model.gguf").write_bytes(bytes(head[:length]) + tail)
    with suppress(EvenbitsError):
        read_gguf_header(tmp_path / "model.gguf")


ONE = {
    "text": "a",
    "fingerprint": "f",
    "run": "a",
    "model_type": "llama",
    "parameters": 10,
    "resource_kind": "class",
    "languages": ["de", "en"],
    "metrics": {"int4-row": {"token_parity": [1.0, 2.0]}},
    "excess_bits": {"int4-row": [1.0, 2.0]},
}
CALIBRATION = {"schema_version": 1, "corpus": {"name": "gettext"}, "models": [ONE | {"run": run} for run in "abc"]}


@fuzzed
@given(anything() | changed(CALIBRATION))
def test_calibrations(tmp_path, blob):
    (tmp_path / "calibration.json").write_bytes(blob)
    with suppress(EvenbitsError):
        known = load_calibration(tmp_path / "calibration.json")
        for spec in known.specs:
            best_forecaster(known, spec, ("token_parity", "nll_full"))


@pytest.fixture(scope="module")
def configured(tiny_llama):
    return {name: json.loads((tiny_llama / name).read_text()) for name in ("config.json", "tokenizer_config.json")}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_configurations(tiny_llama, configured, tmp_path, name):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")

    @fuzzed
    @given(anything() | changed(configured[name]))
    def check(blob):
        (folder / name).write_bytes(blob)
        with suppress(EvenbitsError):
            resolve(parse_model(str(folder)), store=Store(tmp_path / "store"), offline=True)

    check()


NAMES = ["de.txt", "EN.TXT", "en.txt", "xx@yyy.txt", "fr.jsonl", "ka.txt", ".hidden", "README.md", "\x1b.txt"]
RECORDS = st.fixed_dictionaries({"id": st.integers() | st.text(max_size=3), "text": st.text(max_size=9)})
LINES = st.text(max_size=30).map(raw) | st.binary(max_size=30) | (junk | RECORDS).map(dumped) | deep.map(raw)
FOLDERS = st.dictionaries(st.sampled_from(NAMES), st.lists(LINES, max_size=4), max_size=4)


@fuzzed
@given(FOLDERS, st.sampled_from(["\n", "\r", "\r\n"]), st.none() | st.just("de"))
def test_corpora(tmp_path_factory, files, ending, languages):
    folder = tmp_path_factory.mktemp("corpus")
    for name, lines in files.items():
        (folder / name).write_bytes(ending.encode().join(lines))
    try:
        with suppress(EvenbitsError):
            load_corpus(f"dir:{folder}", languages=languages)
    finally:
        shutil.rmtree(folder)


MESSAGES = [
    'msgid "',
    'msgstr "',
    '"\n',
    "#, fuzzy\n",
    "#~ ",
    "msgid_plural",
    "charset=hex\\n",
    "msgctxt",
    "[0]",
    "\\",
    "\xfc",
    '"Content-Type: text/plain; charset=ISO-8859-1\\n"\n',
    "a long enough message for a segment here",
]


@fuzzed
@given(
    st.binary(max_size=80) | st.text(max_size=80).map(raw) | made_of(MESSAGES).map(lambda text: text.encode("latin-1"))
)
def test_message_catalogues(tmp_path, blob):
    pytest.importorskip("polib", reason="lifted by: pip install 'evenbits[gettext]'")
    from evenbits.text.catalogues import _entries

    (tmp_path / "x.po").write_bytes(blob)
    with suppress(EvenbitsError):
        list(_entries(tmp_path / "x.po"))


def test_exports(tiny_llama, tmp_path):
    """A manifest of whatever content whose checksum fits: refused, or read without reading beyond a matrix."""
    import torch
    from evenbits.models.headers import MANIFEST
    from evenbits.models.loading import load as load_model
    from evenbits.variants.export import dequantized, write_quantized
    from evenbits.variants.quantization.spec import parse_spec

    local = resolve(parse_model(str(tiny_llama)), store=Store(tmp_path / "store"))
    loaded = load_model(local, dtype=torch.float32)
    folder = tmp_path / "export"
    write_quantized(loaded, parse_spec("int4-g16+keep0.5%:magnitude"), folder)
    manifest = json.loads((folder / MANIFEST).read_text())

    @fuzzed
    @given(anything() | changed(manifest))
    def check(blob):
        (folder / MANIFEST).write_bytes(blob)
        with suppress(EvenbitsError):
            for _ in dequantized(folder):
                pass

    check()
