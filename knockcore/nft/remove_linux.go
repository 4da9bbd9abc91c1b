// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package nft

import (
	"context"
	"errors"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Look says whether a table of the configuration's name stands, whoever made or
// keeps it. It needs no engine and changes nothing.
func Look(ctx context.Context, cfg Config) (found bool, err error) {
	err = withState(ctx, cfg, func(_ *gate, _ uint32, st *state) error {
		found = st.table != nil
		return nil
	})
	return found, err
}

// Remove takes the table away, if it is ours, and says whether there was one.
// Services are open afterwards. It needs no engine, and refuses while another
// process keeps the table.
func Remove(ctx context.Context, cfg Config) (removed bool, err error) {
	err = withState(ctx, cfg, func(g *gate, genID uint32, st *state) error {
		if st.table == nil {
			return nil
		}
		if err := g.mayChange(st); err != nil {
			return err
		}
		err := g.k.commit(genID, func(c *nftables.Conn) error { c.DelTable(st.table); return nil })
		removed = err == nil
		return err
	})
	return removed, err
}

// withState reads our table, which may not be there, for fn. If fn's commit fails
// because others changed the rule set meanwhile, it starts over.
func withState(ctx context.Context, cfg Config, fn func(g *gate, genID uint32, st *state) error) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	g := newGate(cfg)
	g.cfg = cfg
	defer g.close()
	for range installTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		var st *state
		genID, err := g.k.steady(func() (err error) { st, err = g.k.readState(g.name); return err })
		if err != nil {
			return err
		}
		if err := fn(g, genID, st); !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return errors.New("others change the rule set all the time")
}
