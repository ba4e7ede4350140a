#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Makes .venv with the libraries, and generated/ from Holdfast's .proto files. Does nothing when they are there.
set -eu
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
PROTO=../../proto

if ! cmp -s requirements.txt .venv/.installed; then
    rm -rf .venv
    "$PYTHON" -m venv .venv || { echo 'setup.sh: on Debian the package python3-venv is needed' >&2; exit 1; }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/.installed
fi
mkdir -p generated
.venv/bin/python -m grpc_tools.protoc -I "$PROTO" --python_out=generated --pyi_out=generated "$PROTO"/holdfast/v1/*.proto
