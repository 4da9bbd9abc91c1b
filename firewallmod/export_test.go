// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewallmod

// In makes the engines of the module work in a network namespace.
func (n *NFTables) In(netns int) { n.config.NetNS = netns }
