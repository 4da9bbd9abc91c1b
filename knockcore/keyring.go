// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// HintLen is the length in bytes of libknock's key hints.
const HintLen = 8

// Credential is one libknock secret of one client, ready for use.
type Credential struct {
	Client *Client
	Secret Secret
	// MAC is HMAC-SHA256 under the secret.
	MAC MAC

	place int // in the keyring
}

// Keyring holds the clients of one configuration. It is immutable, but for what it
// remembers of addresses: a change of clients is a new Keyring.
type Keyring struct {
	clients map[string]*Client
	sorted  []*Client // by ID
	creds   []Credential
	macs    sync.Once // makes those of creds
	apiKeys map[[sha256.Size]byte]*Client

	familiar  *Familiar // with places of creds
	findTwins sync.Once
	twins     []bool // by place: another credential has the same secret
}

// NewKeyring checks the clients. IDs must be unique, and no two clients may share an
// API key. Clients that share a secret are told apart by the ID inside the frame, as
// libknock does.
func NewKeyring(clients []*Client) (*Keyring, error) {
	k := &Keyring{
		clients: make(map[string]*Client, len(clients)),
		sorted:  slices.Clone(clients),
		creds:   make([]Credential, 0, len(clients)),
		apiKeys: make(map[[sha256.Size]byte]*Client),
	}
	slices.SortFunc(k.sorted, func(a, b *Client) int { return cmp.Compare(a.ID, b.ID) })
	for _, c := range k.sorted {
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("client %s: %w", c.ID, err)
		}
		if k.clients[c.ID] != nil {
			return nil, fmt.Errorf("client %s is defined twice", c.ID)
		}
		k.clients[c.ID] = c
		for i, s := range c.Secrets {
			if slices.ContainsFunc(c.Secrets[:i], s.Equal) {
				return nil, fmt.Errorf("client %s has the same secret twice", c.ID)
			}
			k.creds = append(k.creds, Credential{Client: c, Secret: s, place: len(k.creds)})
		}
		for _, h := range c.APIKeyHashes {
			if other := k.apiKeys[h]; other != nil {
				return nil, fmt.Errorf("clients %s and %s have the same API key; give each its own", other.ID, c.ID)
			}
			k.apiKeys[h] = c
		}
	}
	k.familiar = NewFamiliar(len(k.creds))
	return k, nil
}

// Prepare makes the credentials' MACs. Whoever needs them first does that otherwise,
// which takes a few milliseconds for thousands.
func (k *Keyring) Prepare() { k.macs.Do(k.makeMACs) }

// makeMACs makes the credentials' MACs; all processors share in many.
func (k *Keyring) makeMACs() {
	workers := max(1, min(runtime.GOMAXPROCS(0), len(k.creds)/scanBlock))
	var all sync.WaitGroup
	for worker := range workers {
		part := k.creds[worker*len(k.creds)/workers : (worker+1)*len(k.creds)/workers]
		all.Go(func() {
			states := make([]byte, 0, macStates*len(part))
			for i := range part {
				begin := len(states)
				states = appendMAC(states, part[i].Secret.Bytes())
				part[i].MAC = MAC{states[begin:len(states):len(states)]}
			}
		})
	}
	all.Wait()
}

// NewInspectionKeyring makes a keyring of one client without checking it: for
// tools that look at single frames with secrets of any length. It is not for
// admitting anybody.
func NewInspectionKeyring(c *Client) *Keyring {
	k := &Keyring{clients: map[string]*Client{c.ID: c}, sorted: []*Client{c}}
	for _, s := range c.Secrets {
		k.creds = append(k.creds, Credential{Client: c, Secret: s})
	}
	return k
}

// Len is the number of clients.
func (k *Keyring) Len() int { return len(k.sorted) }

// Client finds a client by its ID, nil if there is none.
func (k *Keyring) Client(id string) *Client { return k.clients[id] }

// Clients lists the clients sorted by ID.
func (k *Keyring) Clients() []*Client { return slices.Clone(k.sorted) }

// Credentials are the libknock credentials of all clients, sorted by client ID.
// Callers must not change the slice.
func (k *Keyring) Credentials() []Credential {
	k.Prepare()
	return k.creds
}

// Candidates appends to dst the credentials whose HMAC over msg starts with
// hint (HintLen bytes): normally none or one. Each comparison takes constant
// time and every credential is tried, so the time says nothing about which one
// fits. It allocates only if dst must grow. Thousands of credentials are shared out
// to all processors. The candidates are in the order of Credentials.
func (k *Keyring) Candidates(s *MACScratch, msg, hint []byte, dst []*Credential) []*Credential {
	creds := k.Credentials()
	if len(creds) > scanAlone {
		return scanTogether(creds, msg, hint, dst)
	}
	for i := range creds {
		if c := &creds[i]; c.MAC.begins(s, msg, hint) {
			dst = append(dst, c)
		}
	}
	return dst
}

// APIKeys is the number of API keys.
func (k *Keyring) APIKeys() int { return len(k.apiKeys) }

// ClientByAPIKey finds the client of an API key, nil if there is none. The key
// is looked up by its SHA-256 sum, so timing says nothing about its bytes.
func (k *Keyring) ClientByAPIKey(key string) *Client { return k.apiKeys[HashAPIKey(key)] }

// ClientByAPIKeyHash is ClientByAPIKey for the SHA-256 sum of a key.
func (k *Keyring) ClientByAPIKeyHash(sum [sha256.Size]byte) *Client { return k.apiKeys[sum] }
