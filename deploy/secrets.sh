#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Makes the passwords that compose.yaml needs, into deploy/secrets/: once, what is there stays. The bot's token comes
# from DISCORD_TOKEN. Containers read the files under users of their own, so the files are readable for all; the folder
# is for its owner only.
set -eu
cd "$(dirname "$0")"
: "${DISCORD_TOKEN:?set it to the token of the bot}"

umask 022
mkdir -p secrets
chmod 700 secrets

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
once() { [ -s "secrets/$1" ] || cat > "secrets/$1"; }

once holdfast.toml <<END
# What Holdfast must keep to itself. Everything else is in compose.yaml.
[discord]
token = "$DISCORD_TOKEN"
[broker]
url = "amqp://holdfast:$(password)@rabbitmq/%2f"
[cluster]
url = "redis://:$(password)@valkey"
END

# Those of the file that is there, should it be older than the others.
broker=$(sed -n 's|^url = "amqp://holdfast:\([^@]*\)@.*|\1|p' secrets/holdfast.toml)
store=$(sed -n 's|^url = "redis://:\([^@]*\)@.*|\1|p' secrets/holdfast.toml)
[ -n "$broker" ] && [ -n "$store" ] || { echo 'secrets.sh: secrets/holdfast.toml has other addresses: make the other files yourself' >&2; exit 1; }
once rabbitmq.conf <<END
default_user = holdfast
default_pass = $broker
END
once valkey.conf <<END
requirepass $store
END
password | once grafana-password
