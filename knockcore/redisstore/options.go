// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// The defaults.
const (
	DefaultPrefix  = "knock"
	DefaultTimeout = 500 * time.Millisecond
	// DefaultWindow is the greatest time window of all methods.
	DefaultWindow = 2 * time.Minute
)

// Options are what a Store goes by.
type Options struct {
	// Addresses are HOST:PORT of the server; with Sentinel, of the sentinels; with
	// Cluster, of some of its nodes. One is enough, but several are found when one is
	// down.
	Addresses []string
	// Sentinel is the name under which the sentinels know the master, "" without
	// sentinels.
	Sentinel string
	// Cluster says that the server is a cluster. Everything lies in one slot of it.
	Cluster bool
	// Credentials are asked for the user and the password of each new connection;
	// nil means none. SentinelUser and SentinelPassword are for the sentinels.
	Credentials func() (user, password string)
	// SentinelCredentials are those for the sentinels.
	SentinelCredentials func() (user, password string)
	// Database is the number of the database, 0 with Cluster.
	Database int
	// TLS is how to connect, nil for no TLS.
	TLS *tls.Config
	// Prefix begins every key, inside braces. Default: DefaultPrefix.
	Prefix string

	// Window is the greatest time window that frames are checked with, and by how
	// much the clocks of two nodes may differ at most. Default: DefaultWindow.
	Window time.Duration
	// Capacity is how many nonces this node remembers by itself. Default: that of
	// knockcore.ReplayGuard.
	Capacity int
	// Node is this node's name, for people. Required.
	Node string
	// Settings may change later: see Store.Configure.
	Settings

	// Log is told what an operator should know; level is "info", "warn" or
	// "error". It must be quick. Nil means nobody is told.
	Log func(level, msg string, err error)
	// Observe is told of each request: spend, save, delete, take, order, verify,
	// sync; how long it took, and how it failed. Nil means nobody is told.
	Observe func(op string, took time.Duration, err error)
}

// Settings are what may change while a store is open.
type Settings struct {
	// Timeout bounds how long a knock waits for the server. Default: DefaultTimeout.
	Timeout time.Duration
	// Local says that this node admits on what it knows by itself while the server
	// can't be reached. Then a frame that was spent at another node meanwhile may be
	// accepted once more here. Otherwise nothing new is admitted.
	Local bool
	// Replicas is how many replicas must confirm a spent nonce before the knock is
	// admitted. With 1 or more, no failover can lose one.
	Replicas int
}

// Check reports what is wrong with the options, without connecting.
func (o Options) Check() error { return o.complete() }

func (o *Options) complete() error {
	o.Prefix = cmp.Or(o.Prefix, DefaultPrefix)
	o.Window = cmp.Or(o.Window, DefaultWindow)
	o.Settings.complete()
	switch {
	case len(o.Addresses) == 0:
		return errors.New("no address is given")
	case o.Node == "":
		return errors.New("the node has no name")
	case strings.ContainsAny(o.Node, " \n\t"):
		return fmt.Errorf("the node's name %q contains white space", o.Node)
	case strings.ContainsAny(o.Prefix, "{} \n\t"):
		return fmt.Errorf("the prefix %q contains braces or white space", o.Prefix)
	case o.Sentinel != "" && o.Cluster:
		return errors.New("a cluster has no sentinels; leave out cluster or sentinel")
	case o.Cluster && o.Database != 0:
		return errors.New("a cluster has only database 0")
	case len(o.Addresses) > 1 && !o.Cluster && o.Sentinel == "":
		return errors.New("several addresses need sentinels or a cluster, which know which of them is the master")
	}
	if o.Log == nil {
		o.Log = func(string, string, error) {}
	}
	if o.Observe == nil {
		o.Observe = func(string, time.Duration, error) {}
	}
	return nil
}

func (s *Settings) complete() { s.Timeout = cmp.Or(s.Timeout, DefaultTimeout) }

// client makes a client, which connects.
func (o *Options) client(timeout time.Duration) (valkey.Client, error) {
	dial := max(timeout, 100*time.Millisecond)
	opt := valkey.ClientOption{
		InitAddress:         o.Addresses,
		TLSConfig:           o.TLS,
		SelectDB:            o.Database,
		ClientName:          "caddy-knock",
		ForceSingleClient:   !o.Cluster && o.Sentinel == "",
		DisableCache:        true,
		DisableRetry:        true,
		AlwaysPipelining:    true,
		RingScaleEachConn:   ringScale,
		ReadBufferEachConn:  1 << 15,
		WriteBufferEachConn: 1 << 15,
		BlockingPoolSize:    64,
		ConnWriteTimeout:    max(2*dial, time.Second),
	}
	if !o.Cluster {
		opt.PipelineMultiplex = -1 // one connection: batches are larger
	}
	opt.Dialer.Timeout = dial
	if credentials := o.Credentials; credentials != nil {
		opt.AuthCredentialsFn = func(valkey.AuthCredentialsContext) (valkey.AuthCredentials, error) {
			user, password := credentials()
			return valkey.AuthCredentials{Username: user, Password: password}, nil
		}
	}
	if o.Sentinel != "" {
		opt.Sentinel = valkey.SentinelOption{MasterSet: o.Sentinel, Dialer: opt.Dialer, TLSConfig: o.TLS, TopologyRefreshInterval: time.Second}
		if o.SentinelCredentials != nil {
			opt.Sentinel.Username, opt.Sentinel.Password = o.SentinelCredentials()
		}
	}
	return valkey.NewClient(opt)
}

// ringScale is the logarithm of how many requests may wait on a connection;
// inFlight is how many this store sends at once, so that nobody waits for room in
// that ring, where waiting has no end.
const (
	ringScale = 11
	inFlight  = 1 << 10
)

// do sends a request and waits for its answer, no longer than ctx says: the client
// by itself may wait longer while it connects.
func (s *Store) do(ctx context.Context, c valkey.Client, cmd valkey.Completed) (valkey.ValkeyResult, error) {
	results, err := s.doAll(ctx, c, cmd)
	if err != nil {
		return valkey.ValkeyResult{}, err
	}
	return results[0], nil
}

// doAll is do for requests that go together over one connection.
func (s *Store) doAll(ctx context.Context, c valkey.Client, commands ...valkey.Completed) ([]valkey.ValkeyResult, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to send: %w", ctx.Err())
	}
	answer := make(chan []valkey.ValkeyResult, 1)
	go func() {
		defer func() { <-s.slots }()
		if len(commands) == 1 {
			answer <- []valkey.ValkeyResult{c.Do(ctx, commands[0])}
		} else {
			answer <- c.DoMulti(ctx, commands...)
		}
	}()
	select {
	case results := <-answer:
		return results, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
