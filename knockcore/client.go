// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Client is who may knock. It is immutable once it is in a Keyring.
type Client struct {
	// ID names the client: see ValidateID. It is part of what libknock frames
	// authenticate.
	ID string
	// Secrets are the libknock secrets, several during a rotation: a frame made
	// with any of them is accepted.
	Secrets []Secret
	// Services lists the names of the services that the client may reach.
	Services []string
	// AllServices allows every service.
	AllServices bool
	// TTL is how long a grant lasts if the knock does not ask for a length; 0
	// means the service's own.
	TTL time.Duration
	// MaxTTL caps what a knock may ask for; 0 means no cap of the client's.
	MaxTTL time.Duration
	// Expires is when the client stops being one; zero means never.
	Expires time.Time
	// From lists where the client may knock from; empty means anywhere.
	From []netip.Prefix
	// Methods are the methods that the client may use; empty means all enabled.
	Methods MethodSet
	// APIKeyHashes are the SHA-256 sums of the client's API keys for HTTP knocks.
	APIKeyHashes [][sha256.Size]byte
	// Fwknop are the client's fwknop key pairs.
	Fwknop []FwknopKeys
	// Pyknock are the client's pyknock pre-shared keys.
	Pyknock []Secret
	// RemoteBits4 and RemoteBits6 say whether the client may knock for an address
	// other than its own, and for how wide a prefix: the least prefix length, 0
	// if it may not.
	RemoteBits4, RemoteBits6 int
	// MaxGrants is how many live grants the client may hold, those of streams not
	// counted; 0 means DefaultClientGrants.
	MaxGrants int
}

// DefaultClientGrants is how many live grants a client may hold where nobody says: a
// small part of DefaultMaxGrants, so that one client can't take all of them.
const DefaultClientGrants = 4096

func (c *Client) maxGrants() int {
	if c.MaxGrants > 0 {
		return c.MaxGrants
	}
	return DefaultClientGrants
}

// FwknopKeys is a pair of keys of the fwknop protocol (fwknop-spa.md section 1.4).
type FwknopKeys struct {
	// Encryption is the Rijndael key: 1 to 32 bytes.
	Encryption Secret
	// HMAC is the HMAC key: 1 to 128 bytes, different from Encryption.
	HMAC Secret
	// HMACType is the digest of the HMAC: md5, sha1, sha256, sha384, sha512,
	// sha3_256 or sha3_512; "" means sha256.
	HMACType string
}

// Validate reports the first thing wrong with the client.
func (c *Client) Validate() error {
	if err := ValidateID(c.ID); err != nil {
		return fmt.Errorf("ID %q: %w", c.ID, err)
	}
	for i, s := range c.Secrets {
		if err := s.Strong(); err != nil {
			return fmt.Errorf("secret %d: %w", i+1, err)
		}
	}
	if c.MaxTTL > 0 && c.TTL > c.MaxTTL {
		return fmt.Errorf("ttl %v is longer than max_ttl %v", c.TTL, c.MaxTTL)
	}
	return nil
}

// maxIDLen is the greatest client ID of libknock (libknock.md section 1).
const maxIDLen = 65535

// ValidateID checks the ID of a client or the name of a service: 1 to 65,535
// bytes of UTF-8 without blanks and control characters.
func ValidateID(id string) error {
	if id == "" || len(id) > maxIDLen {
		return fmt.Errorf("a name has 1 to %d bytes, this one has %d", maxIDLen, len(id))
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\ufffd' }); i >= 0 {
		return fmt.Errorf("name has a blank or control character at byte %d", i)
	}
	return nil
}

// MayReach reports whether the client may reach the service of this name.
func (c *Client) MayReach(service string) bool {
	return c.AllServices || slices.Contains(c.Services, service)
}

// MayUse reports whether the client may knock by this method.
func (c *Client) MayUse(m Method) bool { return c.Methods == 0 || c.Methods.Has(m) }

// MayKnockFrom reports whether the client may knock from this address.
func (c *Client) MayKnockFrom(addr netip.Addr) bool {
	if len(c.From) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(c.From, func(p netip.Prefix) bool { return p.Contains(addr) })
}
