// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/source"
)

// The live parts of sources: packets that arrive during a reload are read by the
// same source as before and after, and parts of sequences that arrive before and
// after one make one knock. Each configuration that has started holds references.
var (
	openSources   = caddy.NewUsagePool() // *sharedSource by SourceInput.Key
	openSequences = caddy.NewUsagePool() // *wire.UDPSequences by sequenceKey
)

// sourceLimits are process-lived, because what they know of addresses is.
var sourceLimits = sync.OnceValue(func() *knockcore.Limiter { return knockcore.NewLimiter(knockcore.LimitConfig{}) })

// sharedSource is an open source and what its packets go through.
type sharedSource struct {
	key      string
	source   source.Source
	packets  *source.Switch
	stats    *sourceStats
	starting sync.Once
	cancel   context.CancelFunc
	done     chan struct{} // nil if it was never served
	failed   atomic.Pointer[error]
}

// acquireSource opens the input, or finds it open.
func acquireSource(in SourceInput) (*sharedSource, error) {
	var others []source.Source
	openSources.Range(func(_, value any) bool {
		others = append(others, value.(*sharedSource).source)
		return true
	})
	value, _, err := openSources.LoadOrNew(in.Key, func() (caddy.Destructor, error) {
		opened, err := in.Open(others)
		if err != nil {
			return nil, err
		}
		s := &sharedSource{key: in.Key, source: opened, stats: statsOf(in.Label)}
		s.packets = source.NewSwitch(&s.stats.Stats)
		s.stats.add(opened)
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*sharedSource), nil
}

// serve starts reading, once in the life of the source. The switch is attached by
// then.
func (s *sharedSource) serve() {
	s.starting.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		s.cancel, s.done = cancel, make(chan struct{})
		go func() {
			defer close(s.done)
			if err := s.source.Serve(ctx, s.packets.Sink); err != nil {
				s.failed.Store(&err)
				caddy.Log().Named("knock").Error("source has failed and reads no more", zap.String("source", s.key), zap.Error(err))
			}
		}()
	})
}

// health reports why nothing is read any more.
func (s *sharedSource) health() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	if c, ok := s.source.(interface{ Check(context.Context) error }); ok {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return c.Check(ctx)
	}
	return nil
}

// Destruct ends reading, after what has arrived was read, and closes the source.
func (s *sharedSource) Destruct() error {
	if s.done != nil {
		s.cancel()
		select {
		case <-s.done:
		case <-time.After(stopTimeout):
		}
	}
	s.stats.remove(s.source)
	return s.source.Close()
}
