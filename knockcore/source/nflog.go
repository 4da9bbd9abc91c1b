// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"

	"github.com/caddy-knock/caddy-knock/knockcore/nft"
)

// DefaultNFLogGroup is the group of NFLOG where the configuration has none.
const DefaultNFLogGroup = 62201

// NFLogConfig describes a NFLog.
type NFLogConfig struct {
	// Group is the number of the group, which nobody else may read.
	Group uint16
	// Table is the name of our table with the log rules; "" means caddy_knock_log_
	// and the group.
	Table string
	// Protect is as in nft.Config.
	Protect bool
	// NetNS is as in nft.Config, for the table.
	NetNS int
	// OnHeal, if set, is told of every repair of the table.
	OnHeal func(nft.Heal)
}

func (c NFLogConfig) table() string {
	if c.Table != "" {
		return c.Table
	}
	return fmt.Sprintf("caddy_knock_log_%d", c.Group)
}

// Validate reports the first thing wrong with the configuration.
func (c NFLogConfig) Validate() error { return nft.Config{Table: c.table()}.Validate() }
