// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp"
	"github.com/caddy-knock/caddy-knock/knockcore/knockapp/apptest"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

func init() { caddy.RegisterModule(brokenSource{}) }

// brokenSource is a module whose source fails as soon as it is read.
type brokenSource struct{}

func (brokenSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.sources.broken", New: func() caddy.Module { return new(brokenSource) }}
}

func (*brokenSource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { d.Next(); return nil }

func (brokenSource) KnockSource() (*knockapp.SourceConfig, error) {
	return &knockapp.SourceConfig{
		Methods: knockcore.NewMethodSet(knockcore.MethodUDP),
		Inputs: []knockapp.SourceInput{{
			Key: "broken", Label: "broken",
			Open: func([]source.Source) (source.Source, error) { return failing{}, nil },
		}},
	}, nil
}

type failing struct{}

func (failing) Serve(context.Context, source.Sink) error { return errors.New("the cable is cut") }
func (failing) Dropped() uint64                          { return 0 }
func (failing) Close() error                             { return nil }

func TestFailedSourceIsNotHealthy(t *testing.T) {
	a := startAdmin(t, "store memory\nsource broken")
	apptest.Await(t, "bad health", func() bool {
		status, answer := a.call(http.MethodGet, "/knock/health", "")
		return status == http.StatusServiceUnavailable && strings.Contains(answer, "source broken: the cable is cut")
	})
}
