#!/bin/sh
# Installs the reference SDK and what it needs into a virtual environment, from the
# package index by name. Running it again is harmless.
#   interop/setup.sh FOLDER            PYTHON=python3.12 chooses an interpreter
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=$1
python=${PYTHON:-python3}
[ -f "$venv/ready" ] && exit 0
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
# The SDK's own metadata asks for versions that do not work, and for a test runner.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps mplane-sdk==0.9.0
"$venv/bin/python" "$here/shim/peer_launch.py" --self-test
touch "$venv/ready"
