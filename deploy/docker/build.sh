#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Builds one binary for an image. In: its package, a processor or nothing, and where to: a folder, which gets `binary`
# and an empty `state`; or the word `dependencies`, which compiles what the crates need, and keeps it in target/.
set -eu
package=$1 cpu=$2 out=$3
host=$(rustc -vV | sed -n 's/^host: //p')

if [ -n "$cpu" ]; then
    # Build scripts run on this machine and stay as they are: with --target, only what is built for it gets the flags.
    export RUSTFLAGS="-C target-cpu=$cpu"
    case $host in
        x86_64-*) flag=-march=$cpu ;;
        *) flag=-mcpu=$cpu ;;
    esac
    export "CFLAGS_$(echo "$host" | tr - _)=$flag"
fi
# Lines of the code are of no use without the code; names stay, for what a crash says.
export CARGO_PROFILE_RELEASE_STRIP=debuginfo CARGO_INCREMENTAL=0
# The sources are older than the empty ones that stood in for them.
find . -name '*.rs' -not -path './target/*' -exec touch {} +
cargo build --locked --release --target "$host" --package "$package" --bin "$package"
if [ "$out" != dependencies ]; then
    mkdir -p "$out/state"
    cp "target/$host/release/$package" "$out/binary"
fi
