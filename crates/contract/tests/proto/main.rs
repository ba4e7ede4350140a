// SPDX-License-Identifier: AGPL-3.0-only
//! What the contract promises to those who read and write it: numbers stay, versions mix, everything is
//! documented, and what is confidential isn't shown.

#![cfg(test)]

mod confidential;
mod descriptors;
mod documented;
mod evolution;
mod numbers;
