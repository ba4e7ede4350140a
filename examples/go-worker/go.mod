// SPDX-License-Identifier: AGPL-3.0-only
module holdfast-worker

go 1.19

// The versions that Debian 12 has, with which it is tried.
require (
	github.com/rabbitmq/amqp091-go v1.5.0
	google.golang.org/protobuf v1.28.1
)
