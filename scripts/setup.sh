#!/bin/sh
# Makes .venv: every package is of a version of constraints.txt, and its file one whose sha256 is in requirements.lock (scripts/lock.py).
# On a machine without an NVIDIA GPU without CUDA packages.
set -eu
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Flatcoat wants Python 3.11 or later" >&2; exit 2; }
"${PYTHON:-python3}" -m venv .venv
pip=".venv/bin/python -m pip install -q --disable-pip-version-check"
locked="$pip --no-deps --require-hashes"
cpu="--retries 0 --timeout 20 --extra-index-url https://download.pytorch.org/whl/cpu"

if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # A CPU build has a local version. Where its hash is not known (another Python), its version must do; where there is none, the
    # plain build is taken below.
    sed -n '/^torch==/,/[^\\]$/p' requirements.lock | sed '1s/^torch==[^ ]*/&+cpu/' > .venv/torch.lock
    $locked $cpu -r .venv/torch.lock 2>/dev/null ||
        { echo "no CPU build of torch that requirements.lock knows: taking one by its version" >&2
          $pip --no-deps $cpu "$(sed -n '1s/ .*//p' .venv/torch.lock)" 2>/dev/null; } || true
fi
$locked -r requirements.lock
if [ "$(uname -sm)" = "Linux x86_64" ] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    $locked -r requirements-cuda.lock  # the libraries of the plain build
fi
# Nothing is fetched here; where another Python or system wants more than the lock holds, that comes by its version.
editable="$pip --no-build-isolation -c constraints.txt -e .[dev]"
$editable --no-index 2>.venv/missing.log || { cat .venv/missing.log >&2; echo "fetching what requirements.lock lacks here" >&2; $editable; }
