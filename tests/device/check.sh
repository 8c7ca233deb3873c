#!/usr/bin/env bash
# Checks evenbits on a machine with a GPU that reaches no network. Two steps:
#   tests/device/check.sh prepare   where there is a network, Django and pip: writes packages and text into .evenbits/device
#   tests/device/check.sh run       where the GPU is, in a copy of this checkout with that folder: prints JSON and writes
#                                   it to $OUT/device.json (else .evenbits/device/device.json); at most SECONDS_LEFT
#                                   (default 350) seconds
# The GPU's machine needs Python 3.12 (another: PYTHON=3.11 tests/device/check.sh prepare) with torch, transformers,
# accelerate, pandas, statsmodels, typer and pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=.evenbits/device

prepare() {
    rm -rf "$folder" && mkdir -p "$folder"
    fetched site gguf jsonschema jsonschema-specifications referencing rpds-py langcodes language-data platformdirs
    # Nobody looks codes up by name: the tries that would be needed are left out, and so is what reads them.
    (cd "$folder/site" && rm -rf language_data/data gguf/scripts jsonschema/benchmarks && : > marisa_trie.py)
    # What evenbits is measured beside, apart from what it runs with: no tasks, and of kernels those for CUDA 13.
    fetched peers lm-eval dill bitsandbytes torchao
    find "$folder/peers/lm_eval/tasks" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
    find "$folder/peers" \( -name 'libbitsandbytes_*' -o -name '_C_*.so' \) ! -name '*_cpu.so' ! -name '*_cuda13*' -delete
    python tests/device/check.py text "$folder/text"
    tar -C "$folder" -cJf "$folder/packages.tar.xz" site peers && rm -r "$folder/site" "$folder/peers"
    du -sh "$folder"
}

fetched() { # folder, packages
    local into="$folder/$1" wheels
    wheels=$(mktemp -d)
    python -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --dest "$wheels" "${@:2}"
    mkdir "$into"
    for wheel in "$wheels"/*.whl; do python -m zipfile -e "$wheel" "$into"; done
    rm -r "$wheels"
}

run() {
    if [ ! -f "$folder/packages.tar.xz" ]; then
        echo "$folder is not there: run \`tests/device/check.sh prepare\` where there is a network, and bring it along" >&2
        exit 2
    fi
    packages=$(mktemp -d)
    tar -xJf "$folder/packages.tar.xz" -C "$packages"
    site=$packages/site
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
    export PYTHONPATH="$site" EVENBITS_PEERS="$packages/peers" PYTHONUNBUFFERED=1
    export CUBLAS_WORKSPACE_CONFIG=:4096:8 TOKENIZERS_PARALLELISM=false
    python3 tests/device/check.py run "$folder/text" "${OUT:-$folder}/device.json" "${SECONDS_LEFT:-350}"
}

case "${1:-run}" in
    prepare) prepare ;;
    run) run ;;
    *) echo "usage: $0 prepare|run" >&2 && exit 2 ;;
esac
