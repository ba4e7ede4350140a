#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Installs the client libraries into e2e/node_modules and e2e/.venv, as the lock files say, and sets up the workers of
# examples/ in their own folders. Installs nothing that is there already.
set -eu
cd "$(dirname "$0")"

need() {
    command -v "$1" >/dev/null 2>&1 || { echo "e2e/setup.sh: $1 is missing: $2" >&2; exit 1; }
}
need node 'install Node.js 20.14 or newer'
need npm 'it comes with Node.js'
need cargo 'install stable Rust'
PYTHON=${PYTHON:-python3}
need "$PYTHON" 'install Python 3.10 or newer, or set PYTHON'

# Into the workspace's own folder, which CI keeps. Without debug information: that is a third of the time.
rust() {
    cd ..
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
    CARGO_PROFILE_DEV_DEBUG=0
    export CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG
    cargo build --quiet --locked --manifest-path examples/rust-worker/Cargo.toml
    cargo build --quiet --locked --manifest-path e2e/bots/rust/Cargo.toml
    cargo test --quiet --locked --lib --manifest-path examples/rust-worker/Cargo.toml
}
# The first time it takes a minute or two, beside the others, which mostly wait for what they fetch.
rust &
rust=$!
trap wait EXIT

# Up to date: the lock file that was installed is the one that is here.
if ! cmp -s package-lock.json node_modules/.installed; then
    # zlib-sync is compiled here; without a compiler discord.js runs without it and those scenarios fail.
    npm ci --no-fund --no-audit
    cp package-lock.json node_modules/.installed
fi

if ! cmp -s requirements.txt .venv/.installed; then
    rm -rf .venv
    "$PYTHON" -m venv .venv || { echo 'e2e/setup.sh: on Debian the package python3-venv is needed' >&2; exit 1; }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/.installed
fi

# Their generated code follows proto/, so it is made each time.
PYTHON=$PYTHON ../examples/python-worker/setup.sh
../examples/go-worker/build.sh
../examples/go-worker/build.sh test
cd ../examples/typescript-worker
if ! cmp -s package.json node_modules/.installed; then
    npm install
    cp package.json node_modules/.installed
fi
npm run --silent build
wait "$rust"
