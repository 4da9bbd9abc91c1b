// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// throughTLS is caddy-l4's proxy behind its TLS, which asks for a certificate of
// the client. Clients resume no session: each shows its certificate.
func throughTLS(l *lab, caddy string, upstream int) (middle, error) {
	dir, err := os.MkdirTemp(l.dir, "tls-")
	if err != nil {
		return middle{}, err
	}
	authority, err := certificate(nil, "authority")
	if err != nil {
		return middle{}, err
	}
	server, err := certificate(authority, "localhost")
	if err != nil {
		return middle{}, err
	}
	client, err := certificate(authority, "bench")
	if err != nil {
		return middle{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		return middle{}, err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":     {Type: "CERTIFICATE", Bytes: authority.Certificate[0]},
		"server.pem": {Type: "CERTIFICATE", Bytes: server.Certificate[0]},
		"server.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return middle{}, err
		}
	}
	port, err := freePort()
	if err != nil {
		return middle{}, err
	}
	m := middle{name: "caddy-l4 tls", port: port}
	m.process, err = startCaddyJSON(l, caddy, fmt.Sprintf(`{
	"admin": {"disabled": true},
	"logging": {"logs": {"default": {"level": "ERROR"}}},
	"apps": {
		"tls": {"certificates": {"load_files": [{"certificate": "%[1]s/server.pem", "key": "%[1]s/server.key"}]}},
		"layer4": {"servers": {"bench": {
			"listen": ["127.0.0.1:%[2]d"],
			"routes": [{"handle": [
				{"handler": "tls", "connection_policies": [{"client_authentication": {
					"mode": "require_and_verify",
					"ca": {"provider": "file", "pem_files": ["%[1]s/ca.pem"]}
				}}]},
				{"handler": "proxy", "upstreams": [{"dial": ["127.0.0.1:%[3]d"]}]}
			]}]
		}}}
	}
}`, dir, port, upstream))
	if err != nil {
		return middle{}, err
	}
	if err := l.awaitPort(port, m.process.log); err != nil {
		return middle{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Leaf)
	m.tls = &tls.Config{ServerName: "localhost", RootCAs: roots, Certificates: []tls.Certificate{*client}}
	return m, nil
}

// certificate makes one with an ECDSA key, of the issuer or, without one, of
// itself.
func certificate(issuer *tls.Certificate, name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, any(key)
	if issuer == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
