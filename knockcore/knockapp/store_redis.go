// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/redisstore"
)

func init() { caddy.RegisterModule(new(RedisStore)) }

// RedisStore keeps spent nonces, grants and bans in Redis (7 or later) or Valkey.
// All Caddys that use the same server and prefix are one fleet: a frame is accepted
// by one of them only, a grant made at one opens at all, and what is revoked at one
// is revoked at all. All of them should have the same clients and services.
//
// After the server was restarted, replaced by a failover, or emptied, it may have
// lost nonces; frames that could have been accepted before are refused then, for
// twice the time window.
type RedisStore struct {
	// Addresses are HOST:PORT of the server; with `sentinel`, of the sentinels; with
	// `cluster`, of some nodes. Default port: 6379, 26379 for sentinels.
	Addresses []string `json:"addresses,omitempty"`

	// Username is the ACL user. Default: the server's default user.
	Username string `json:"username,omitempty"`

	// Password of the user; placeholders such as {file.*} and {env.*} are replaced.
	Password string `json:"password,omitempty"`

	// Database is the number of the database. Default: 0.
	Database int `json:"database,omitempty"`

	// Sentinel says that the addresses are those of sentinels.
	Sentinel *RedisSentinel `json:"sentinel,omitempty"`

	// Cluster says that the server is a cluster. All keys of a fleet lie in one slot.
	Cluster bool `json:"cluster,omitempty"`

	// TLS encrypts connections. Default: none.
	TLS *RedisTLS `json:"tls,omitempty"`

	// Prefix begins all keys; a fleet has one of its own. Default: knock.
	Prefix string `json:"prefix,omitempty"`

	// Node is this node's name, for people; each node has another one. Default: the
	// host's name.
	Node string `json:"node,omitempty"`

	// Timeout bounds how long a knock waits for the server. Default: 500ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// OnStoreError is what happens to knocks while the server can't be reached:
	// `refuse` admits nothing new, `local` admits on what this node knows by itself.
	// With `local`, a frame that was accepted by another node meanwhile can be accepted
	// once more here. Live grants go on with both. Default: refuse.
	OnStoreError string `json:"on_store_error,omitempty"`

	// Replicas is how many replicas must confirm a spent nonce before the knock is
	// admitted: 1 or more keeps a failover, or a master that was cut off, from
	// forgetting it. Default: 0.
	Replicas int `json:"replicas,omitempty"`

	// Nonces is how many spent nonces this node remembers by itself, besides the
	// server. Default: 262144.
	Nonces int `json:"nonces,omitempty"`

	// InsecureFileMode accepts password files that others may read. Default: false.
	InsecureFileMode bool `json:"insecure_file_mode,omitempty"`

	// At is where the store stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`

	password, sentinelPassword knockcore.Secret
	tls                        *tls.Config
}

// RedisSentinel is how sentinels are asked for the master.
type RedisSentinel struct {
	// Master is the name under which they know it. Required.
	Master string `json:"master,omitempty"`

	// Username is the ACL user at the sentinels. Default: their default user.
	Username string `json:"username,omitempty"`

	// Password at the sentinels. Default: none.
	Password string `json:"password,omitempty"`
}

// RedisTLS is how connections are encrypted.
type RedisTLS struct {
	// CA is a PEM file with the authorities that may have signed the server's
	// certificate. Default: the system's.
	CA string `json:"ca,omitempty"`

	// Certificate and Key are PEM files by which this node shows who it is. Default:
	// none.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`

	// ServerName is the name in the server's certificate. Default: the host of the
	// address.
	ServerName string `json:"server_name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*RedisStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.stores.redis", New: func() caddy.Module { return new(RedisStore) }}
}

// Provision checks the options and reads secrets.
func (r *RedisStore) Provision(caddy.Context) error {
	if err := r.provision(); err != nil {
		return Placed(r.At, err)
	}
	return nil
}

func (r *RedisStore) provision() error {
	repl := caddy.NewReplacer()
	plain := func(what string, text *string) (err error) {
		if *text, err = repl.ReplaceOrErr(*text, true, true); err != nil {
			return fmt.Errorf("store redis: %s: %w", what, err)
		}
		return nil
	}
	secret := func(what, text string) (knockcore.Secret, error) {
		if text == "" {
			return knockcore.Secret{}, nil
		}
		expanded, err := expandSecretText(repl, text, r.InsecureFileMode)
		if err != nil {
			return knockcore.Secret{}, fmt.Errorf("store redis: %s: %w", what, err)
		}
		return knockcore.NewSecret([]byte(expanded)), nil
	}
	var err error
	port := "6379"
	texts := map[string]*string{"username": &r.Username, "node": &r.Node, "prefix": &r.Prefix}
	if r.Sentinel != nil {
		port = "26379"
		texts["sentinel username"] = &r.Sentinel.Username
		if r.Sentinel.Master == "" {
			return errors.New("store redis: sentinel needs the name of the master, as in `sentinel mymaster`")
		}
		if r.sentinelPassword, err = secret("sentinel password", r.Sentinel.Password); err != nil {
			return err
		}
	}
	if r.password, err = secret("password", r.Password); err != nil {
		return err
	}
	for what, text := range texts {
		if err := plain(what, text); err != nil {
			return err
		}
	}
	if len(r.Addresses) == 0 {
		return errors.New("store redis needs the server's address, as in `store redis 10.0.0.5:6379`")
	}
	for i := range r.Addresses {
		if err := plain("address", &r.Addresses[i]); err != nil {
			return err
		}
		if r.Addresses[i], err = withPort(r.Addresses[i], port); err != nil {
			return err
		}
	}
	if r.Node == "" {
		if r.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("store redis: finding a name for this node: %w; set `node`", err)
		}
	}
	if r.OnStoreError != "" && r.OnStoreError != "refuse" && r.OnStoreError != "local" {
		return fmt.Errorf("store redis: on_store_error %q is neither refuse nor local", r.OnStoreError)
	}
	if r.Timeout < 0 || r.Replicas < 0 || r.Database < 0 || r.Nonces < 0 {
		return errors.New("store redis: timeout, replicas, database and nonces must not be negative")
	}
	if err := r.TLS.provision(r); err != nil {
		return fmt.Errorf("store redis: tls: %w", err)
	}
	opts := r.options(redisstore.DefaultWindow)
	if err := opts.Check(); err != nil {
		return fmt.Errorf("store redis: %w", err)
	}
	return nil
}

func withPort(address, port string) (string, error) {
	host, given, err := net.SplitHostPort(address)
	if err != nil {
		host, given = strings.Trim(address, "[]"), port
	}
	if _, err := strconv.ParseUint(given, 10, 16); err != nil || host == "" || strings.ContainsAny(host, "/ ") {
		return "", fmt.Errorf("store redis: %q is not an address such as 10.0.0.5:6379", address)
	}
	return net.JoinHostPort(host, given), nil
}

func (t *RedisTLS) provision(r *RedisStore) error {
	if t == nil {
		return nil
	}
	r.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.ServerName == "" && len(r.Addresses) == 1 {
		r.tls.ServerName, _, _ = net.SplitHostPort(r.Addresses[0])
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		r.tls.RootCAs = x509.NewCertPool()
		if !r.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca: there is no PEM certificate in %s", t.CA)
		}
	}
	if (t.Certificate == "") != (t.Key == "") {
		return errors.New("certificate and key go together; name both or neither")
	}
	if t.Certificate != "" {
		if err := checkKeyFile(t.Key, r.InsecureFileMode); err != nil {
			return err
		}
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return err
		}
		r.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func (r *RedisStore) options(window time.Duration) redisstore.Options {
	opts := redisstore.Options{
		Addresses: r.Addresses, Cluster: r.Cluster, Database: r.Database, TLS: r.tls, Prefix: r.Prefix, Window: window,
		Capacity: r.Nonces, Node: r.Node, Log: logStore("redis"), Observe: observeStore,
		Settings: redisstore.Settings{Timeout: time.Duration(r.Timeout), Local: r.OnStoreError == "local", Replicas: r.Replicas},
	}
	if r.Username != "" || !r.password.IsZero() {
		opts.Credentials = func() (string, string) { return r.Username, string(r.password.Bytes()) }
	}
	if r.Sentinel != nil {
		opts.Sentinel = r.Sentinel.Master
		opts.SentinelCredentials = func() (string, string) { return r.Sentinel.Username, string(r.sentinelPassword.Bytes()) }
	}
	return opts
}

// accessKey makes what identities tell of credentials worthless to others.
var accessKey = func() (key [32]byte) {
	_, _ = rand.Read(key[:])
	return key
}()

// KnockStore implements StoreConverter. What is not part of the key may change
// with a reload.
func (r *RedisStore) KnockStore(window time.Duration) (string, func() (knockcore.Store, error)) {
	kind := ""
	if r.Sentinel != nil {
		kind = " sentinel " + r.Sentinel.Master
	}
	if r.Cluster {
		kind = " cluster"
	}
	prefix := r.Prefix
	if prefix == "" {
		prefix = redisstore.DefaultPrefix
	}
	// How to get in is part of the identity, but must not be seen in it.
	access := hmac.New(sha256.New, accessKey[:])
	_ = json.NewEncoder(access).Encode([]any{r.Username, r.password.Bytes(), r.Sentinel, r.sentinelPassword.Bytes(), r.TLS, r.Nonces})
	key := fmt.Sprintf("redis %s%s/%d %s as %s (%x)", strings.Join(r.Addresses, ","), kind, r.Database, prefix, r.Node, access.Sum(nil)[:4])
	return key, func() (knockcore.Store, error) {
		store, err := redisstore.Open(r.options(window))
		if err != nil {
			return nil, err
		}
		return store, nil
	}
}

// Reconfigure changes what may change in a store that is open.
func (r *RedisStore) Reconfigure(store knockcore.Store) {
	if s, ok := store.(*redisstore.Store); ok {
		s.Configure(r.options(0).Settings)
	}
}

// Interface guards
var (
	_ StoreConverter        = (*RedisStore)(nil)
	_ storeReconfigurer     = (*RedisStore)(nil)
	_ caddy.Provisioner     = (*RedisStore)(nil)
	_ caddyfile.Unmarshaler = (*RedisStore)(nil)
)
