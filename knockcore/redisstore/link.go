// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// link is a server that was looked at, and the epoch that it is in. It never
// changes: what is found out anew is another link.
type link struct {
	client valkey.Client
	epoch  string
	base   int64  // Unix ms: when the epoch began
	sha    string // of changeScript for this epoch
}

// configError is what no waiting mends.
type configError struct{ error }

const (
	heartbeat   = time.Second
	leastPause  = 50 * time.Millisecond
	longestWait = 2 * time.Second
)

// keep looks at the server once a second, at once when somebody asks, and with
// growing pauses while it can't be reached.
func (s *Store) keep() {
	defer s.done.Done()
	pause := time.Duration(0)
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
		err := s.verify()
		if err == nil {
			pause = 0
			timer.Reset(heartbeat)
			continue
		}
		pause = min(max(2*pause, leastPause), longestWait)
		// With some chance in it, so that nodes do not come all at once.
		timer.Reset(pause/2 + mrand.N(pause/2))
		select {
		case <-time.After(leastPause): // whoever asks, not more often than this
		case <-s.ctx.Done():
			return
		}
	}
}

// verify looks at the server and makes the link; it is the only one that does.
func (s *Store) verify() (err error) {
	start := time.Now()
	s.keeperMu.Lock()
	defer s.keeperMu.Unlock()
	defer func() {
		s.opts.Observe("verify", time.Since(start), err)
		s.setLink(err)
	}()
	timeout := max(s.settings.Load().Timeout, 100*time.Millisecond)
	ctx, cancel := context.WithTimeout(s.ctx, 2*timeout)
	defer cancel()
	if s.client == nil {
		client, err := s.connect(ctx, timeout)
		if err != nil {
			return classify(err)
		}
		s.client = client
	}
	force := "0"
	if s.clockSet.Load() {
		force = "1"
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	sent := time.Now()
	keys := []string{s.key("epoch"), s.key("seq"), s.key("nodes")}
	message, err := s.eval(ctx, s.client, verifyScript, keys, hex.EncodeToString(id[:]), strconv.FormatInt(sent.UnixMilli(), 10),
		strconv.FormatUint(s.last.Load(), 10), s.opts.Node, s.self(), force)
	if err != nil {
		return classify(err)
	}
	answer, err := message.ToArray()
	if err != nil || len(answer) < 7 {
		return fmt.Errorf("looking at the server: unexpected answer (%w)", err)
	}
	text := func(i int) string { t, _ := answer[i].ToString(); return t }
	version, role := text(0), text(1)
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 7 {
		return configError{fmt.Errorf("the server is version %.20q; Redis 7 or later, or Valkey, is needed, because older ones give scripts to replicas", version)}
	}
	if role != "master" {
		return fmt.Errorf("the server is a %.20q, not the master", role)
	}
	if text(2) == "" || text(3) == "" {
		return configError{errors.New("the server tells no run ID or replication ID (INFO run_id, master_replid): without them nobody knows whether it lost nonces")}
	}
	if text(4) != "0" && text(5) != "noeviction" {
		return configError{fmt.Errorf("the server's maxmemory-policy is %.30q: it would forget spent nonces; set it to noeviction", text(5))}
	}
	if len(answer) < 11 {
		return errors.New("looking at the server: unexpected answer")
	}
	serverMS, err := strconv.ParseInt(text(6), 10, 64)
	if err != nil {
		return fmt.Errorf("looking at the server: %w", err)
	}
	base, err := strconv.ParseInt(text(8), 10, 64)
	if err != nil {
		return fmt.Errorf("looking at the server: %w", err)
	}
	seq, err := parseVersion(text(9))
	if err != nil {
		return err
	}
	received := time.Now()
	if early, late := sent.UnixMilli()-serverMS, serverMS-received.UnixMilli(); max(early, late) > s.opts.Window.Milliseconds() {
		// Keys that live until a moment may have vanished before it; when the clocks
		// agree again, nobody knows which.
		s.clockSet.Store(true)
		return fmt.Errorf("the clocks of the server and of this node differ by %v: set them", time.Duration(max(early, late))*time.Millisecond)
	}
	// The server's clock in the middle of the request.
	s.setClock(serverMS, sent.Add(received.Sub(sent)/2))
	s.head.Store(seq)
	if gone := s.setNodes(answer[10], serverMS); len(gone) > 0 {
		_, _ = s.do(ctx, s.client, s.client.B().Hdel().Key(s.key("nodes")).Field(gone...).Build())
	}
	l := &link{client: s.client, epoch: text(7), base: base}
	l.sha = sha(s.changeScript(l, text(3)))
	if old := s.link.Load(); old == nil || old.epoch != l.epoch || old.sha != l.sha {
		loaded, err := s.eval(ctx, s.client, s.changeScript(l, text(3)), s.changeKeys(), "l", s.instance, strconv.FormatInt(s.serverNow(), 10))
		if err != nil {
			return classify(err)
		}
		if answer, err := loaded.ToString(); err != nil || answer != "loaded" {
			return fmt.Errorf("%w (%v)", errLost, err)
		}
	}
	s.clockSet.Store(false)
	s.next = l
	return nil
}

// connect makes a client; while it connects, ctx counts.
func (s *Store) connect(ctx context.Context, timeout time.Duration) (valkey.Client, error) {
	type made struct {
		client valkey.Client
		err    error
	}
	done := make(chan made, 1)
	go func() {
		client, err := s.opts.client(timeout)
		done <- made{client, err}
	}()
	select {
	case m := <-done:
		return m.client, m.err
	case <-ctx.Done():
		go func() {
			if m := <-done; m.client != nil {
				m.client.Close()
			}
		}()
		return nil, fmt.Errorf("connecting: %w", ctx.Err())
	}
}

func (s *Store) changeScript(l *link, replID string) string {
	return fmt.Sprintf(changeScript, l.epoch, replID, s.opts.Window.Milliseconds(), logLength)
}

func (s *Store) changeKeys() []string {
	return []string{s.key("epoch"), s.key("epoch"), s.key("seq"), s.key("log"), s.key("index"), s.key("epoch")}
}

// classify finds the errors that no waiting mends.
func classify(err error) error {
	for _, prefix := range []string{"WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid DB", "ERR DB index", "ERR SELECT", "ERR unknown command", "ERR This instance has cluster support disabled"} {
		if strings.HasPrefix(err.Error(), prefix) {
			return configError{err}
		}
	}
	return err
}

// setLink makes what verify found known. The caller holds keeperMu.
func (s *Store) setLink(err error) {
	old := s.link.Load()
	if err != nil {
		s.link.Store(nil)
	} else if old == nil || old.epoch != s.next.epoch || old.sha != s.next.sha || old.base != s.next.base || old.client != s.next.client {
		s.link.Store(s.next)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.linkErr = err
	if err == nil {
		s.up = true
	}
	close(s.tried)
	s.tried = make(chan struct{})
	switch {
	case err != nil && !s.toldDown:
		s.toldDown = true
		s.opts.Log("error", "the server can't be used: "+s.policy(), err)
	case err == nil && s.toldDown:
		s.toldDown = false
		s.opts.Log("info", "the server can be used again", nil)
	}
	if err == nil && (old == nil || old.epoch != s.next.epoch) && s.toldEpoch != s.next.epoch {
		s.toldEpoch = s.next.epoch
		if until := s.closedUntil(s.next); time.Now().Before(until) {
			s.opts.Log("warn", "the server is new, has restarted or was replaced, and may have lost spent nonces: frames made until "+
				until.Format(time.TimeOnly)+" are refused", nil)
		}
	}
}

func (s *Store) policy() string {
	if s.settings.Load().Local {
		return "this node admits on what it knows by itself, so a frame that was spent at another node may be accepted here once more"
	}
	return "nothing new is admitted"
}

// closedUntil is until when frames with the usual time window are refused because
// of the epoch's beginning.
func (s *Store) closedUntil(l *link) time.Time {
	return time.UnixMilli(l.base).Add(2 * knockcore.DefaultWindow)
}

// lost says that a request failed in a way that casts doubt on the link, and has
// it looked at.
func (s *Store) lost(l *link) {
	s.link.CompareAndSwap(l, nil)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// await returns a link other than old, or waits for the next look at the server:
// nil if that failed, or ctx is done.
func (s *Store) await(ctx context.Context, old *link) *link {
	s.mu.Lock()
	tried := s.tried
	s.mu.Unlock()
	if l := s.link.Load(); l != nil && l != old {
		return l
	}
	s.lost(old)
	select {
	case <-tried:
		return s.link.Load()
	case <-ctx.Done():
		return nil
	}
}

// setClock remembers the server's clock. clockAt has a monotonic reading, so that
// setting this node's clock changes nothing.
func (s *Store) setClock(serverMS int64, at time.Time) {
	s.clock.Store(&serverClock{serverMS, at})
}

type serverClock struct {
	ms int64
	at time.Time
}

// serverNow is the server's clock, Unix ms; this node's own as long as the
// server's is not known.
func (s *Store) serverNow() int64 { return s.toServer(time.Now()) }

func (s *Store) toServer(t time.Time) int64 {
	c := s.clock.Load()
	if c == nil {
		return t.UnixMilli()
	}
	return c.ms + t.Sub(c.at).Milliseconds()
}

func (s *Store) fromServer(ms int64) time.Time {
	c := s.clock.Load()
	if c == nil {
		return time.UnixMilli(ms)
	}
	return c.at.Add(time.Duration(ms-c.ms) * time.Millisecond)
}

func remaining(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return DefaultTimeout
}
