// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/redislab"
)

// The rights that the documentation names are enough, and without them, or with a
// wrong password, opening says so.
func TestACLUser(t *testing.T) {
	server := redislab.Start(t)
	server.Do(append([]string{"ACL", "SETUSER", "fleet", "on", ">the password", "resetkeys", "~{fleet}:*", "-@all"}, strings.Fields(ACLCommands)...)...)
	with := func(user, password string) func(*Options) {
		return func(o *Options) { o.Credentials = func() (string, string) { return user, password } }
	}
	nodes := []*testNode{newNode(t, "a", server.Address, with("fleet", "the password")), newNode(t, "b", server.Address, with("fleet", "the password"))}
	nodes[0].awaitOpen()
	k := nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	nodes[1].replayed(k)
	if _, errs := nodes[1].RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test"); errs != nil {
		t.Fatal(errs)
	}
	everywhere(t, nodes, "192.0.2.1", false)

	server.Do("ACL", "SETUSER", "poor", "on", ">the password", "~*", "+ping", "+hello", "+auth", "+client")
	for user, password := range map[string]string{"fleet": "another password", "poor": "the password"} {
		opts := testOptions(t, "c", testPrefix, server.Address)
		with(user, password)(&opts)
		if _, err := Open(opts); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("user %s with %s: %v", user, password, err)
		} else {
			t.Log(err)
		}
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"redis"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	lab := redislab.New(t)
	certFile := lab.Config("cert.pem", string(certPEM))
	keyFile := lab.Config("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	address := redislab.Address(t)
	_, port, _ := net.SplitHostPort(address)
	lab.Add("--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-ca-cert-file", certFile)
	lab.Run()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	certificate, err := tls.X509KeyPair(certPEM, lab.Read("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "a", address, func(o *Options) {
		o.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, ServerName: "redis", MinVersion: tls.VersionTLS12}
	})
	n.awaitOpen()
	n.knock("192.0.2.1", knockcore.ReasonNone)
	// A server that can't show who it is gets nothing.
	other := newNode(t, "b", address, func(o *Options) { o.TLS = &tls.Config{ServerName: "redis", MinVersion: tls.VersionTLS12} })
	other.knock("192.0.2.2", knockcore.ReasonStoreError)
	program.Await(t, "what is wrong with the certificate", func() bool {
		err := other.store.Health()
		return err != nil && strings.Contains(err.Error(), "certificate")
	})
}

func TestCluster(t *testing.T) {
	program.Need(t, "redis-cli")
	var servers []*redislab.Server
	args := []string{"--cluster", "create"}
	for range 3 {
		// Of its own choice the port between the servers may be one of a connection.
		_, bus, _ := net.SplitHostPort(redislab.Address(t))
		s := redislab.Start(t, "--cluster-enabled", "yes", "--cluster-port", bus)
		servers, args = append(servers, s), append(args, s.Address)
	}
	program.Run(t, "redis-cli", append(args, "--cluster-yes")...)
	for _, s := range servers { // each finds out by itself
		program.Await(t, "the cluster at "+s.Address, func() bool { return strings.Contains(s.Do("CLUSTER", "INFO"), "cluster_state:ok") })
	}
	change := func(o *Options) {
		o.Cluster = true
		o.Addresses = []string{servers[0].Address, servers[1].Address}
	}
	nodes := []*testNode{newNode(t, "a", servers[0].Address, change), newNode(t, "b", servers[0].Address, change)}
	nodes[0].awaitOpen()
	k := nodes[0].knock("192.0.2.1", knockcore.ReasonNone)
	everywhere(t, nodes, "192.0.2.1", true)
	nodes[1].replayed(k)
	if _, errs := nodes[1].RevokeAll(t.Context(), knockcore.Selection{Client: "alice"}, "test"); errs != nil {
		t.Fatal(errs)
	}
	everywhere(t, nodes, "192.0.2.1", false)
}

// A nonce that no replica has confirmed does not count where confirmation is asked
// for: then no failover loses one.
func TestReplicas(t *testing.T) {
	master := redislab.Start(t)
	master.Forgive(testPrefix)
	n := newNode(t, "a", master.Address, func(o *Options) { o.Replicas, o.Timeout = 1, 300*time.Millisecond })
	n.knock("192.0.2.1", knockcore.ReasonStoreError)
	host, port, _ := net.SplitHostPort(master.Address)
	replica := redislab.Start(t, "--replicaof", host, port)
	program.Await(t, "replication", func() bool { return replica.Info("master_link_status") == "up" })
	program.Await(t, "the knock", func() bool {
		_, err := n.Admit(t.Context(), frame(n.Gatekeeper, knockcore.MethodUDP, "192.0.2.1", "ssh"))
		return err == nil
	})
}

func TestOptions(t *testing.T) {
	for want, opts := range map[string]Options{
		"no address":        {Node: "a"},
		"no name":           {Addresses: []string{"x:1"}},
		"several addresses": {Node: "a", Addresses: []string{"x:1", "y:1"}},
		"no sentinels":      {Node: "a", Addresses: []string{"x:1"}, Sentinel: "m", Cluster: true},
		"only database 0":   {Node: "a", Addresses: []string{"x:1"}, Cluster: true, Database: 1},
		"braces":            {Node: "a", Addresses: []string{"x:1"}, Prefix: "a{b}"},
		"white space":       {Node: "a b", Addresses: []string{"x:1"}},
	} {
		if err := opts.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
