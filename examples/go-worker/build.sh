#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# Makes holdfastv1/ from Holdfast's .proto files, and from all of it `worker`; with the argument `test`, runs the tests.
# Where Debian's packages have the libraries, those are taken, and nothing is fetched.
set -eu
cd "$(dirname "$0")"
PROTO=../../proto
DEBIAN=/usr/share/gocode

for tool in protoc protoc-gen-go; do
    command -v "$tool" > /dev/null || { echo "build.sh: $tool is missing (Debian: protobuf-compiler, protoc-gen-go)" >&2; exit 1; }
done
rm -rf holdfastv1 .proto
mkdir -p holdfastv1 .proto/holdfast/v1
# An option that compilers before 22 don't know, and that means nothing to Go.
for file in "$PROTO"/holdfast/v1/*.proto; do
    sed 's/ \[debug_redact = true\]//' "$file" > ".proto/holdfast/v1/$(basename "$file")"
done
package=holdfast-worker/holdfastv1
options=--go_opt=module=$package
for file in .proto/holdfast/v1/*.proto; do
    options="$options --go_opt=M${file#.proto/}=$package"
done
# shellcheck disable=SC2086 # Words of their own.
protoc --proto_path=.proto --go_out=holdfastv1 $options .proto/holdfast/v1/*.proto

if [ -d $DEBIAN/src/github.com/rabbitmq/amqp091-go ]; then
    # Those packages are for Go without modules: this folder has to stand in a GOPATH, too.
    mkdir -p .gopath/src
    ln -sfn ../.. .gopath/src/holdfast-worker
    export GO111MODULE=off GOPATH="$PWD/.gopath:$DEBIAN"
    cd .gopath/src/holdfast-worker
else
    go mod tidy
fi
if [ "${1:-}" = test ]; then
    exec go test ./...
fi
go vet .
exec go build -o worker .
