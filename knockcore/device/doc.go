// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

// Package device has what a client's devices need who knock by HTTP: a Book of them,
// each with an API key of its own, and Invites, by which a device gets one.
package device
