#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Runs check.py with the libraries that it needs, which it puts into .venv if they aren't there.
set -eu
cd "$(dirname "$0")"
if ! cmp -s requirements.txt .venv/.installed; then
    rm -rf .venv
    python3 -m venv .venv || { echo 'check.sh: on Debian the package python3-venv is needed' >&2; exit 1; }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/.installed
fi
exec .venv/bin/python check.py "$@"
