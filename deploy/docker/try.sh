#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Tries the images where no Docker engine runs: Debian's buildah makes them, in chroots, as root. The bases are stood in
# for by ones made here. Each image's file system is then entered as its numeric user, read-only (run.sh).
#
#   apt-get install buildah debootstrap
#   deploy/docker/try.sh target/release/holdfast target/release/holdfast-ws …     around binaries that are there: seconds
#   deploy/docker/try.sh --compile holdfast-ws                                    through all stages: a release build
#
# With --compile the toolchain and the crates are this machine's, so nothing is fetched but Debian's packages.
# Not tried so: the real bases, musl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || { sed -n '3,12s/^# \?//p' "$0"; exit 2; }

work=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
trap 'buildah rm --all > /dev/null 2>&1 || true; rm -rf "$work"' EXIT

# A folder becomes an image.
image_of() { # folder, name, further lines
    printf 'FROM scratch\nCOPY . /\n%s\n' "${3:-}" > "$work/$2.Dockerfile"
    buildah bud --quiet --tag "$2" --file "$work/$2.Dockerfile" "$1" > /dev/null
}

# The packages of distroless/cc, unpacked and not installed: no shell, no package manager.
runtime() {
    local base=$work/runtime
    mkdir -p "$base"/{etc,tmp,proc,packages}
    (cd "$base/packages" && apt-get download -qq libc6 libgcc-s1 libstdc++6 ca-certificates tzdata netbase base-files 2> /dev/null)
    for package in "$base"/packages/*.deb; do dpkg-deb --extract "$package" "$base"; done
    rm -r "$base/packages"
    printf 'root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n' > "$base/etc/passwd"
    chmod 1777 "$base/tmp"
    image_of "$base" runtime
}

# What the image `rust` has beside the toolchain.
rust() {
    debootstrap --variant=minbase --include=gcc,libc6-dev,make bookworm "$work/rust" > "$work/debootstrap.log"
    image_of "$work/rust" rust "ENV PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/cargo CARGO_NET_OFFLINE=true"
}

build() { # name, further arguments
    local name=$1 target
    shift
    target=$([ "$name" = holdfast ] && echo holdfast || echo service)
    buildah bud --quiet --format docker --file deploy/docker/Dockerfile --target "$target" \
        --build-arg RUNTIME=localhost/runtime --build-arg "BINARY=$name" "$@"
}

around() { # binary
    local name folder
    name=$(basename "$1")
    folder=$work/around/$name
    mkdir -p "$folder/out/state"
    cp "$1" "$folder/out/binary"
    # The stage `build` is the folder's content, everything else the Dockerfile's.
    build "$name" --build-context "build=$folder" "$folder"
}

compiled() { # package
    build "$1" --build-arg RUST=localhost/rust --volume "$(rustc --print sysroot):/rust:ro" \
        --volume "${CARGO_HOME:-$HOME/.cargo}:/cargo" .
}

try() { # name, image
    local container root
    buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Healthcheck.Test}}{{"\n"}}' "$2"
    container=$(buildah from "$2")
    root=$(buildah mount "$container")
    [ ! -e "$root/bin/sh" ] || { echo "$1: there is a shell in the image" >&2; return 1; }
    printf '[log]\nlevel = "warn"\n' > "$root/holdfast.toml"
    unshare --mount bash deploy/docker/run.sh "$root" "$1"
    echo "$1: $(du -sh "$root" | cut -f1) with its base, $(du -h "$root/usr/local/bin/holdfast" | cut -f1) of it the binary"
    buildah umount "$container" > /dev/null
}

runtime
if [ "$1" = --compile ]; then
    rust
    try "$2" "$(compiled "$2")"
else
    for binary in "$@"; do try "$(basename "$binary")" "$(around "$binary")"; done
fi
