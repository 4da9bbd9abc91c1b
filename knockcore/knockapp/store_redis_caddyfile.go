// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile reads the store's options. Syntax:
//
//	redis <address...> {
//		username <name>
//		password <password>
//		database <number>
//		sentinel <master> {
//			username <name>
//			password <password>
//		}
//		cluster
//		tls {
//			ca <file>
//			certificate <file>
//			key <file>
//			server_name <name>
//		}
//		prefix <text>
//		node <name>
//		timeout <duration>
//		on_store_error refuse|local
//		replicas <count>
//		nonces <count>
//		insecure_file_mode
//	}
func (r *RedisStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	r.At = Place(d)
	if r.Addresses = d.RemainingArgs(); len(r.Addresses) == 0 {
		return d.Errf("store redis needs the server's address, as in `store redis 10.0.0.5:6379`")
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "username":
			err = opts.Text(&r.Username)
		case "password":
			err = opts.Text(&r.Password)
		case "database":
			err = opts.database(&r.Database)
		case "sentinel":
			err = r.unmarshalSentinel(opts, d)
		case "cluster":
			err = opts.Flag(&r.Cluster)
		case "tls":
			err = r.unmarshalTLS(opts, d)
		case "prefix":
			err = opts.Text(&r.Prefix)
		case "node":
			err = opts.Text(&r.Node)
		case "timeout":
			err = opts.Duration(&r.Timeout)
		case "on_store_error":
			if err = opts.Text(&r.OnStoreError); err == nil && r.OnStoreError != "refuse" && r.OnStoreError != "local" {
				err = d.Errf("option on_store_error: %q is neither refuse (nothing new is admitted) nor local (this node admits by itself)", r.OnStoreError)
			}
		case "replicas":
			err = opts.Positive(&r.Replicas)
		case "nonces":
			err = opts.Positive(&r.Nonces)
		case "insecure_file_mode":
			err = opts.Flag(&r.InsecureFileMode)
		default:
			err = opts.Unknown("username", "password", "database", "sentinel", "cluster", "tls", "prefix", "node", "timeout",
				"on_store_error", "replicas", "nonces", "insecure_file_mode")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) database(to *int) error {
	var text string
	if err := o.Text(&text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return o.d.Errf("option database: %q is not the number of a database, such as 0", text)
	}
	*to = n
	return nil
}

func (r *RedisStore) unmarshalSentinel(outer *Options, d *caddyfile.Dispenser) error {
	if err := outer.Once(); err != nil {
		return err
	}
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("option sentinel takes the name under which the sentinels know the master")
	}
	r.Sentinel = &RedisSentinel{Master: args[0]}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "username":
			err = opts.Text(&r.Sentinel.Username)
		case "password":
			err = opts.Text(&r.Sentinel.Password)
		default:
			err = opts.Unknown("username", "password")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *RedisStore) unmarshalTLS(outer *Options, d *caddyfile.Dispenser) error {
	if err := outer.Once(); err != nil {
		return err
	}
	if d.CountRemainingArgs() > 0 {
		return d.Errf("option tls takes no argument; its block may name ca, certificate, key, server_name")
	}
	r.TLS = new(RedisTLS)
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "ca":
			err = opts.Text(&r.TLS.CA)
		case "certificate":
			err = opts.Text(&r.TLS.Certificate)
		case "key":
			err = opts.Text(&r.TLS.Key)
		case "server_name":
			err = opts.Text(&r.TLS.ServerName)
		default:
			err = opts.Unknown("ca", "certificate", "key", "server_name")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
