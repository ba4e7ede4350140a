// SPDX-License-Identifier: AGPL-3.0-only
//! What only RabbitMQ and the way to it can do: refuse, go silent, be cut, take nothing for a while.

mod alarm;
mod cuts;
mod nacks;
mod proxy;
mod refusals;
mod silence;
mod tls;
