#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# Tries the images where no Docker engine runs: Debian's buildah makes them, in chroots, as root. What stands before and
# behind the Dockerfile's own steps is stood in for: the base is made from the same Debian packages as the distroless
# one, and the binary is one that is there already. Each image's file system is then entered as its numeric user,
# read-only, without a shell in it.
#
#   apt-get install buildah
#   deploy/docker/try.sh target/release/holdfast target/release/holdfast-ws …
#
# Not tried so: the real bases, musl, the compiling within the image (build.sh and skeleton.sh run anywhere).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || { sed -n '3,12s/^# \?//p' "$0"; exit 2; }

work=$(mktemp -d)
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }
trap 'buildah rm --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

# The packages of distroless/cc, unpacked and not installed: no shell, no package manager.
base=$work/base
mkdir -p "$base"/{etc,tmp,proc,dev,packages}
(cd "$base/packages" && apt-get download -qq libc6 libgcc-s1 gcc-12-base libstdc++6 ca-certificates tzdata netbase base-files 2>/dev/null)
for package in "$base"/packages/*.deb; do dpkg-deb --extract "$package" "$base"; done
rm -r "$base/packages"
cat "$base"/usr/share/ca-certificates/mozilla/*.crt > "$base/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0::/:/sbin/nologin\nnonroot:x:65532:65532::/:/sbin/nologin\n' > "$base/etc/passwd"
chmod 1777 "$base/tmp"
printf 'FROM scratch\nCOPY . /\n' > "$work/base.Dockerfile"
buildah bud --quiet --tag base --file "$work/base.Dockerfile" "$base" > /dev/null

try() {
    local binary=$1 name target folder image container root
    name=$(basename "$binary")
    target=$([ "$name" = holdfast ] && echo holdfast || echo service)
    folder=$work/$name
    mkdir -p "$folder/out/state"
    cp "$binary" "$folder/out/binary"
    # The stage `build` is the folder's content, everything else the Dockerfile's.
    image=$(buildah bud --quiet --format docker --file deploy/docker/Dockerfile --target "$target" \
        --build-context "build=$folder" --build-arg RUNTIME=localhost/base --build-arg "BINARY=$name" "$folder")
    buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Healthcheck.Test}}' "$image"
    container=$(buildah from "$image")
    root=$(buildah mount "$container")
    printf '[log]\nlevel = "warn"\n[ws]\nthreads = 1\n' > "$root/holdfast.toml"
    [ ! -e "$root/bin/sh" ] || { echo "$name: there is a shell in the image" >&2; return 1; }
    unshare --mount bash -eu deploy/docker/run.sh "$root" "$name"
    echo "$name: $(du -sh "$root" | cut -f1) with its base, $(du -h "$folder/out/binary" | cut -f1) of it the binary"
    buildah umount "$container" > /dev/null
}

for binary in "$@"; do
    try "$binary"
done
