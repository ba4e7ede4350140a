#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# The workspace without its code: manifests, lock file and cargo's settings, and empty targets where the crates have
# theirs. It is what the layer of compiled dependencies is made from. In: the project, a folder to be. The same
# manifests give the same folder.
set -eu
from=$1 to=$2
mkdir -p "$to"

# All files of one time: a layer is known again by its content alone.
put() { mkdir -p "$(dirname "$to/$1")"; cat > "$to/$1"; touch -d '2000-01-01 00:00:00' "$to/$1"; }

cd "$from"
for file in Cargo.lock .cargo/config.toml $(find . -name Cargo.toml -not -path './target/*' | sort); do
    put "${file#./}" < "$file"
done
for manifest in $(find . -name Cargo.toml -not -path './target/*' | sort); do
    crate=$(dirname "${manifest#./}")
    for target in src/lib.rs src/main.rs build.rs; do
        [ -e "$crate/$target" ] || continue
        case $target in
            src/lib.rs) : | put "$crate/$target" ;;
            *) echo 'fn main() {}' | put "$crate/$target" ;;
        esac
    done
done
