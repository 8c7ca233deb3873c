#!/usr/bin/env bash
# Checks evenbits on a machine with a GPU that reaches no network. Two steps:
#   tests/device/check.sh prepare   where there is a network, Django and pip: writes packages and text into .evenbits/device
#   tests/device/check.sh run       where the GPU is, in a copy of this checkout with that folder: prints JSON and writes
#                                   it to $OUT/device.json (else .evenbits/device/device.json); at most SECONDS_LEFT
#                                   (default 300) seconds
# The GPU's machine needs Python 3.12 (another: PYTHON=3.11 tests/device/check.sh prepare) with torch, transformers,
# accelerate, pandas, statsmodels, typer and pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=.evenbits/device

prepare() {
    rm -rf "$folder" && mkdir -p "$folder/wheels" "$folder/site"
    python -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$folder/wheels" gguf jsonschema jsonschema-specifications referencing rpds-py langcodes language-data \
        platformdirs
    for wheel in "$folder"/wheels/*.whl; do python -m zipfile -e "$wheel" "$folder/site"; done
    # Nobody looks codes up by name: the tries that would be needed are left out, and so is what reads them.
    rm -rf "$folder/site/language_data/data" "$folder/site/gguf/scripts" "$folder/site/jsonschema/benchmarks"
    : > "$folder/site/marisa_trie.py"
    rm -rf "$folder/wheels"
    python tests/device/check.py text "$folder/text"
    tar -C "$folder" -cJf "$folder/site.tar.xz" site && rm -r "$folder/site"
    du -sh "$folder"
}

run() {
    site=$(mktemp -d)
    tar -xJf "$folder/site.tar.xz" -C "$site" --strip-components 1
    # The four folders of the package as one, and its name and version for whoever asks: no build, no network.
    mkdir "$site/evenbits" "$site/evenbits-0.dist-info"
    for part in harness/evenbits/*; do ln -s "$PWD/$part" "$site/evenbits/"; done
    for part in plugins evals fixtures; do ln -s "$PWD/$part" "$site/evenbits/$part"; done
    printf 'Metadata-Version: 2.1\nName: evenbits\nVersion: 0\n' > "$site/evenbits-0.dist-info/METADATA"
    python3 - > "$site/evenbits-0.dist-info/entry_points.txt" <<'PYTHON'
import tomllib
for group, named in tomllib.load(open("pyproject.toml", "rb"))["project"].get("entry-points", {}).items():
    print(f"[{group}]", *(f"{name} = {value}" for name, value in named.items()), sep="\n")
PYTHON
    export PYTHONPATH="$site" PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8 TOKENIZERS_PARALLELISM=false
    python3 tests/device/check.py run "$folder/text" "${OUT:-$folder}/device.json" "${SECONDS_LEFT:-300}"
}

case "${1:-run}" in
    prepare) prepare ;;
    run) run ;;
    *) echo "usage: $0 prepare|run" >&2 && exit 2 ;;
esac
