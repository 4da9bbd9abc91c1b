// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// The names of firewalld on the bus.
const (
	busName     = "org.fedoraproject.FirewallD1"
	zoneMethods = busName + ".zone."
	configPath  = "/org/fedoraproject/FirewallD1/config"
	configName  = busName + ".config"
	configZone  = configName + ".zone."
)

const (
	// callTimeout bounds a call: firewalld does one after the other, and a reload
	// takes a second.
	callTimeout = 5 * time.Second
	// The pause after a failure doubles from firstPause to lastPause. Meanwhile calls
	// fail at once with the error before.
	firstPause = 250 * time.Millisecond
	lastPause  = 15 * time.Second
)

// bus is the connection to firewalld. One goroutine calls it.
type bus struct {
	address string
	conn    *dbus.Conn
	wake    chan struct{}
	// failed is why firewalld can't be reached, until when and for how long that is
	// believed.
	failed error
	until  time.Time
	pause  time.Duration
	// news says that something happened meanwhile.
	news atomic.Bool
}

// connect makes the connection unless it stands.
func (b *bus) connect(ctx context.Context) error {
	if b.conn != nil && b.conn.Connected() {
		return nil
	}
	b.close()
	if time.Now().Before(b.until) {
		return b.failed
	}
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() { // neither connecting nor the greeting takes a context
		conn, err := dial(b.address)
		done <- result{conn, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case r := <-done:
		if r.err != nil {
			return b.gone(fmt.Errorf("connecting to D-Bus: %w: %w", ErrGone, r.err))
		}
		b.conn = r.conn
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				_ = r.conn.Close()
			}
		}()
		return b.gone(fmt.Errorf("connecting to D-Bus: %w: %w", ErrGone, ctx.Err()))
	}
	b.listen(ctx)
	return nil
}

func dial(address string) (*dbus.Conn, error) {
	if address == "" {
		return dbus.ConnectSystemBus()
	}
	return dbus.Connect(address)
}

// listen makes wake ready when firewalld was reloaded, came or went, or when the
// bus is gone. Without it checks find out later.
func (b *bus) listen(ctx context.Context) {
	signals := make(chan *dbus.Signal, 16)
	b.conn.Signal(signals)
	_ = b.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(busName), dbus.WithMatchMember("Reloaded"))
	_ = b.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName))
	conn := b.conn
	go func() {
		for {
			select {
			case _, ok := <-signals:
				if !ok {
					signals = nil
				}
			case <-conn.Context().Done():
				return
			}
			b.news.Store(true)
			select {
			case b.wake <- struct{}{}:
			default:
			}
		}
	}()
}

// gone remembers that firewalld can't be reached.
func (b *bus) gone(err error) error {
	b.pause = min(max(firstPause, 2*b.pause), lastPause)
	b.failed, b.until = err, time.Now().Add(b.pause)
	return err
}

func (b *bus) close() {
	if b.conn != nil {
		_ = b.conn.Close()
		b.conn = nil
	}
}

// call calls a method of firewalld and stores what it returns.
func (b *bus) call(ctx context.Context, path dbus.ObjectPath, method string, results []any, args ...any) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	if !b.news.Swap(false) && time.Now().Before(b.until) {
		return b.failed
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// Not to be started: whether firewalld runs is the operator's decision.
	answer := b.conn.Object(busName, path).CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	err := answer.Err
	if err == nil {
		b.failed, b.until, b.pause = nil, time.Time{}, 0
		if len(results) > 0 {
			err = answer.Store(results...)
		}
		return err
	}
	name := method[strings.LastIndex(method, ".")+1:]
	var refused dbus.Error
	switch {
	case !errors.As(err, &refused):
		return b.gone(fmt.Errorf("%s: %w: %w", name, ErrGone, err))
	case strings.Contains(refused.Name, "NotAuthorized") || strings.HasSuffix(refused.Name, ".AccessDenied"):
		return fmt.Errorf("%s: %w; unless Caddy runs as root, install the polkit rule of its manual: %s", name, ErrPermission, refused.Name)
	case strings.HasPrefix(refused.Name, "org.freedesktop.DBus.Error."):
		return b.gone(fmt.Errorf("%s: %w: %w", name, ErrGone, refused))
	default:
		return &Refusal{name, fmt.Sprint(refused.Body...)}
	}
}

// Refusal is an error that firewalld answered with.
type Refusal struct {
	Method string
	// Message begins with the code, such as ALREADY_ENABLED.
	Message string
}

// Error returns the method and what firewalld said.
func (r *Refusal) Error() string { return fmt.Sprintf("firewalld refuses %s: %s", r.Method, r.Message) }

// refusedWith reports whether firewalld answered with the code.
func refusedWith(err error, code string) bool {
	var r *Refusal
	return errors.As(err, &r) && strings.Contains(r.Message, code)
}
