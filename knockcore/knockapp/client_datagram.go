// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// FwknopKeys is a pair of fwknop keys. Both are `base64:…` (what fwknop calls
// KEY_BASE64 and HMAC_KEY_BASE64), `hex:…` or text (KEY and HMAC_KEY), and
// placeholders in them are replaced as in secrets. Packets without an HMAC are
// never accepted.
type FwknopKeys struct {
	// Encryption is the Rijndael key: 1 to 32 bytes.
	Encryption string `json:"encryption"`

	// HMAC is the HMAC key: 1 to 128 bytes.
	HMAC string `json:"hmac"`

	// HMACType is md5, sha1, sha256, sha384, sha512, sha3_256 or sha3_512, as the
	// client's --hmac-digest-type. Default: sha256.
	HMACType string `json:"hmac_type,omitempty"`
}

// AllowRemote says for how wide a prefix a client may knock that is not its own
// address: the least length of a prefix. 0 means that it may not.
type AllowRemote struct {
	// IPv4 is 1 to 32; 32 means single addresses.
	IPv4 int `json:"ipv4,omitempty"`

	// IPv6 is 1 to 128; 128 means single addresses.
	IPv6 int `json:"ipv6,omitempty"`
}

// hasLiterals reports whether a secret of the client stands in the configuration
// itself.
func (c *Client) hasLiterals() bool {
	return slices.ContainsFunc(c.Secrets, isLiteral) || slices.ContainsFunc(c.Pyknock, isLiteral) || slices.ContainsFunc(c.APIKeys, isLiteral) ||
		slices.ContainsFunc(c.Fwknop, func(k *FwknopKeys) bool { return k != nil && (isLiteral(k.Encryption) || isLiteral(k.HMAC)) })
}

// convertDatagrams expands and checks what pyknock and fwknop need.
func (c *Client) convertDatagrams(client *knockcore.Client, repl *caddy.Replacer, insecureFiles bool) error {
	for i, text := range c.Pyknock {
		key, err := expandKey(repl, text, insecureFiles, wire.ParsePyknockKey)
		if err == nil {
			err = checkPyknockKey(key, c.AllowWeak)
		}
		if err != nil {
			return fmt.Errorf("pyknock key %d: %w", i+1, err)
		}
		client.Pyknock = append(client.Pyknock, key)
	}
	for i, pair := range c.Fwknop {
		if pair == nil {
			return fmt.Errorf("fwknop key pair %d is null", i+1)
		}
		keys := knockcore.FwknopKeys{HMACType: pair.HMACType}
		var err error
		if keys.Encryption, err = expandKey(repl, pair.Encryption, insecureFiles, wire.ParseFwknopKey); err == nil {
			keys.HMAC, err = expandKey(repl, pair.HMAC, insecureFiles, wire.ParseFwknopKey)
		}
		if err == nil {
			err = checkFwknopKeys(keys, c.AllowWeak)
		}
		if err != nil {
			return fmt.Errorf("fwknop key pair %d: %w", i+1, err)
		}
		client.Fwknop = append(client.Fwknop, keys)
	}
	if r := c.AllowRemote; r != nil {
		if r.IPv4 < 0 || r.IPv4 > 32 || r.IPv6 < 0 || r.IPv6 > 128 {
			return errors.New("allow_remote: a prefix has a length of up to 32 (IPv4) and 128 (IPv6)")
		}
		client.RemoteBits4, client.RemoteBits6 = r.IPv4, r.IPv6
	}
	return nil
}

func checkPyknockKey(key knockcore.Secret, allowWeak bool) error {
	switch {
	case key.IsZero():
		return errors.New("the key is empty")
	case !allowWeak && key.Strong() != nil:
		return fmt.Errorf("the key has %d bytes, at least %d are needed, or `allow_weak`: one captured datagram is enough to guess a short one", key.Len(), knockcore.MinSecretLen)
	}
	return nil
}

func checkFwknopKeys(keys knockcore.FwknopKeys, allowWeak bool) error {
	if err := wire.ValidateFwknopKeys(keys); err != nil {
		return err
	}
	if !allowWeak && wire.WeakFwknopKeys(keys) {
		return fmt.Errorf("the encryption key has %d bytes and the HMAC key %d, at least %d each are needed, or `allow_weak`: one captured packet is enough to guess short ones",
			keys.Encryption.Len(), keys.HMAC.Len(), knockcore.MinSecretLen)
	}
	return nil
}

// checkShared finds pyknock keys and fwknop key pairs that occur twice: packets
// name nobody, so they would all be the first client's.
func checkShared(clients []*knockcore.Client) error {
	owners := make(map[[sha256.Size]byte]string)
	claim := func(kind, id string, parts ...[]byte) error {
		h := sha256.New()
		h.Write([]byte(kind))
		for _, part := range parts {
			sum := sha256.Sum256(part)
			h.Write(sum[:])
		}
		sum := [sha256.Size]byte(h.Sum(nil))
		owner, taken := owners[sum]
		switch {
		case taken && owner == id:
			return fmt.Errorf("client %s has the same %s twice", id, kind)
		case taken:
			return fmt.Errorf("clients %s and %s have the same %s; give each its own, since packets name nobody", owner, id, kind)
		}
		owners[sum] = id
		return nil
	}
	for _, c := range clients {
		for _, key := range c.Pyknock {
			if err := claim("pyknock key", c.ID, key.Bytes()); err != nil {
				return err
			}
		}
		for _, keys := range c.Fwknop {
			if err := claim("fwknop key pair", c.ID, keys.Encryption.Bytes(), keys.HMAC.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// datagramKeys remembers keys that stand in a client's block until the whole of it
// was read: whether weak ones are allowed may stand behind them.
type datagramKeys struct{ checks []func(allowWeak bool) error }

func (k *datagramKeys) check(allowWeak bool) error {
	for _, check := range k.checks {
		if err := check(allowWeak); err != nil {
			return err
		}
	}
	return nil
}

func (k *datagramKeys) later(d *caddyfile.Dispenser, check func(allowWeak bool) error) {
	place := Place(d)
	k.checks = append(k.checks, func(allowWeak bool) error {
		if err := check(allowWeak); err != nil {
			return Placed(place, err)
		}
		return nil
	})
}

// unmarshalPyknock reads `pyknock <key...>`.
func (k *datagramKeys) unmarshalPyknock(opts *Options, d *caddyfile.Dispenser, c *Client) error {
	first := len(c.Pyknock)
	if err := opts.List(&c.Pyknock); err != nil {
		return err
	}
	for _, text := range c.Pyknock[first:] {
		if !isLiteral(text) {
			continue
		}
		key, err := wire.ParsePyknockKey(text)
		if err != nil {
			return d.WrapErr(err)
		}
		k.later(d, func(allowWeak bool) error { return checkPyknockKey(key, allowWeak) })
	}
	return nil
}

// unmarshalFwknop reads `fwknop <encryption-key> <hmac-key> [<hmac-type>]`.
func (k *datagramKeys) unmarshalFwknop(d *caddyfile.Dispenser, c *Client) error {
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 {
		return d.Errf("fwknop takes an encryption key, an HMAC key and, if it is not sha256, the HMAC's type, got %d arguments", len(args))
	}
	pair := &FwknopKeys{Encryption: args[0], HMAC: args[1]}
	if len(args) == 3 {
		pair.HMACType = args[2]
	}
	c.Fwknop = append(c.Fwknop, pair)
	if !isLiteral(pair.Encryption) || !isLiteral(pair.HMAC) {
		// The type at least can be looked at.
		example := knockcore.FwknopKeys{Encryption: knockcore.NewSecret([]byte{1}), HMAC: knockcore.NewSecret([]byte{2}), HMACType: pair.HMACType}
		return wrapErr(d, wire.ValidateFwknopKeys(example))
	}
	keys := knockcore.FwknopKeys{HMACType: pair.HMACType}
	var err error
	if keys.Encryption, err = wire.ParseFwknopKey(pair.Encryption); err == nil {
		keys.HMAC, err = wire.ParseFwknopKey(pair.HMAC)
	}
	if err != nil {
		return d.WrapErr(err)
	}
	k.later(d, func(allowWeak bool) error { return checkFwknopKeys(keys, allowWeak) })
	return nil
}

// unmarshalAllowRemote reads `allow_remote </ipv4-length> [</ipv6-length>]`; a
// single length over 32 is IPv6's.
func unmarshalAllowRemote(opts *Options, d *caddyfile.Dispenser, c *Client) error {
	if err := opts.Once(); err != nil {
		return err
	}
	args := d.RemainingArgs()
	var lengths []int
	for _, arg := range args {
		n, err := strconv.Atoi(strings.TrimPrefix(arg, "/"))
		if err != nil || n < 1 || n > 128 || !strings.HasPrefix(arg, "/") {
			return d.Errf("allow_remote: %q is not the length of a prefix such as /24", arg)
		}
		lengths = append(lengths, n)
	}
	c.AllowRemote = new(AllowRemote)
	switch {
	case len(lengths) == 1 && lengths[0] <= 32:
		c.AllowRemote.IPv4 = lengths[0]
	case len(lengths) == 1:
		c.AllowRemote.IPv6 = lengths[0]
	case len(lengths) == 2 && lengths[0] <= 32:
		c.AllowRemote.IPv4, c.AllowRemote.IPv6 = lengths[0], lengths[1]
	default:
		return d.Errf("allow_remote takes the length of IPv4 prefixes and that of IPv6 prefixes, such as `allow_remote /24 /64`")
	}
	return nil
}
