// SPDX-License-Identifier: AGPL-3.0-only
//! Tests of the log as a whole.
