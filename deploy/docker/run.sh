#!/usr/bin/env bash
# SPDX-License-Identifier: AGPL-3.0-only
# What try.sh does in an image's file system, in a mount namespace of its own: it may write to the folder of the state
# and to /tmp only, as with `read_only` in deploy/compose.yaml. In: the file system, the binary's name.
set -euo pipefail
root=$1 name=$2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for writable in tmp var/lib/holdfast; do
    mount -t tmpfs -o size=16m,uid=65532,gid=65532,noexec tmpfs "$root/$writable"
done
mount --bind /proc "$root/proc"
enter() { chroot --userspec=65532:65532 "$root" /usr/local/bin/holdfast "$@"; }

enter --version
code=0
enter --config /none 2> /dev/null || code=$?
[ $code = 2 ] || { echo "$name: $code for settings that aren't there" >&2; exit 1; }
[ "$name" = holdfast ] || exit 0

DISCORD_TOKEN=t enter config | grep '^level = "warn"' || { echo "/holdfast.toml isn't read" >&2; exit 1; }
(
    cd "$root/var/lib/holdfast"
    export HOLDFAST__WS__LISTEN=127.0.0.1:0 HOLDFAST__ADMIN__LISTEN=127.0.0.1:0 HOLDFAST__API__LISTEN=127.0.0.1:0
    exec chroot --userspec=65532:65532 "$root" \
        /usr/local/bin/holdfast up --simulate --addresses /var/lib/holdfast/addresses > /dev/null
) &
running=$!
trap 'kill -TERM $running 2> /dev/null || true' EXIT
for _ in $(seq 300); do
    [ -e "$root/var/lib/holdfast/addresses" ] && break
    kill -0 $running
    sleep 0.1
done
admin=$(sed -n 's|.*"admin":"http://\([^"]*\)".*|\1|p' "$root/var/lib/holdfast/addresses")
exec 3<> "/dev/tcp/${admin%:*}/${admin#*:}"
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
read -r status <&3
echo "$name up --simulate: $status"
# The image's own health check.
DISCORD_TOKEN=t HOLDFAST__ADMIN__LISTEN=$admin enter up --health
kill -TERM $running
wait $running
