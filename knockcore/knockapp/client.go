// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Client is who may knock.
type Client struct {
	// ID names the client: 1 to 65,535 bytes without blanks. libknock clients send
	// it, in hashed form, inside each frame.
	ID string `json:"id"`

	// Secrets are the client's libknock secrets: `base64:…`, `hex:…` or text, at
	// least 16 bytes each. Placeholders such as `{file./run/credentials/alice}`
	// and `{env.ALICE}` are replaced when the configuration is loaded; an empty
	// one is an error. Name several during a rotation: each is accepted.
	Secrets []string `json:"secrets,omitempty"`

	// Services lists the services that the client may reach. Default: none.
	Services []string `json:"services,omitempty"`

	// AllServices lets the client reach every service, also those added later.
	AllServices bool `json:"all_services,omitempty"`

	// TTL is how long a grant lasts if the knock does not ask for a length.
	// Default: the service's `open_for`.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// MaxTTL caps the length that a knock may ask for. Default: the service's
	// `max_open` alone.
	MaxTTL caddy.Duration `json:"max_ttl,omitempty"`

	// Expires is when the client stops being one: a date (2027-01-01, which means
	// its first moment in UTC) or a time in RFC 3339. Default: never.
	Expires string `json:"expires,omitempty"`

	// From lists the addresses and prefixes that the client may knock from.
	// Default: anywhere.
	From []string `json:"from,omitempty"`

	// Methods lists the methods that the client may use. Default: all that are
	// enabled.
	Methods []string `json:"methods,omitempty"`

	// Pyknock are the client's pyknock pre-shared keys: `base64:…`, `hex:…` or text,
	// of which pyknock takes one byte for each character (latin-1). Placeholders are
	// replaced as in secrets. The datagram names nobody, so no two clients may share
	// a key.
	Pyknock []string `json:"pyknock,omitempty"`

	// Fwknop are the client's fwknop key pairs.
	Fwknop []*FwknopKeys `json:"fwknop,omitempty"`

	// APIKeys are the client's keys for the HTTP knock, as they travel in the header
	// X-Api-Key: at least 16 bytes of printable ASCII each. Placeholders are replaced
	// as in secrets. No two clients may share a key.
	APIKeys []string `json:"api_keys,omitempty"`

	// APIKeyHashes are such keys as `caddy-knock hash-key` prints them: `sha256:` and
	// the SHA-256 sum in hexadecimal. Only for keys of at least 128 random bits.
	APIKeyHashes []string `json:"api_key_hashes,omitempty"`

	// AllowRemote lets the client knock for an address other than the one that it
	// knocks from (pyknock and fwknop packets name one, HTTP knocks may). Default: it may not.
	AllowRemote *AllowRemote `json:"allow_remote,omitempty"`

	// MaxGrants bounds the client's live grants, one for each address and service, so
	// that it can't take all of them from others. Default: 4096.
	MaxGrants int `json:"max_grants,omitempty"`

	// AllowWeak accepts pyknock and fwknop keys of fewer than 16 bytes. One captured
	// packet is enough to guess such a key. Default: false.
	AllowWeak bool `json:"allow_weak,omitempty"`

	// At is where the client stands in the Caddyfile, as `file:line`. The Caddyfile
	// adapter sets it; it only appears in error messages.
	At string `json:"at,omitempty"`
}

// convertClients expands and checks the clients of the configuration.
func (a *App) convertClients(repl *caddy.Replacer) ([]*knockcore.Client, error) {
	clients := newConverter(a, repl, len(a.Clients))
	var literal []string // have a secret in the configuration itself
	for _, c := range a.Clients {
		if err := clients.add(c); err != nil {
			return nil, err
		}
		if c.hasLiterals() {
			literal = append(literal, c.ID)
		}
	}
	if n := len(literal); n > 0 {
		a.logger.Warn("secrets stand in the configuration itself, where `caddy adapt`, the admin API's /config/ and autosave.json show them; put them in files and write {file./path}, or {env.NAME}",
			zap.Strings("clients", literal[:min(n, 10)]), zap.Int("count", n))
	}
	return clients.list, nil
}

// converter expands and checks clients.
type converter struct {
	app      *App
	repl     *caddy.Replacer
	services map[string]bool
	list     []*knockcore.Client
	block    []knockcore.Client // has room for the next ones
}

// newConverter makes a converter for about so many clients.
func newConverter(a *App, repl *caddy.Replacer, about int) *converter {
	v := &converter{app: a, repl: repl, services: make(map[string]bool, len(a.Services)), list: make([]*knockcore.Client, 0, about)}
	for _, s := range a.Services {
		v.services[s.Name] = true
	}
	return v
}

// clientBlock is how many clients are allocated at once.
const clientBlock = 64

// add converts one more client, of which it keeps nothing but texts and the services.
func (v *converter) add(c *Client) error {
	if len(v.block) == cap(v.block) {
		v.block = make([]knockcore.Client, 0, clientBlock)
	}
	v.block = append(v.block, knockcore.Client{})
	client := &v.block[len(v.block)-1]
	if err := c.convert(client, v.repl, v.app.InsecureFileMode); err != nil {
		return Placed(c.At, fmt.Errorf("client %s: %w", c.ID, err))
	}
	for _, name := range c.Services {
		if !v.services[name] {
			return Placed(c.At, fmt.Errorf("client %s: %w", c.ID, noService(name)))
		}
	}
	if more := v.app.doorServicesOf(c.ID); len(more) > 0 {
		client.Services = slices.Concat(client.Services, more)
	}
	v.list = append(v.list, client)
	return nil
}

func (c *Client) convert(client *knockcore.Client, repl *caddy.Replacer, insecureFiles bool) error {
	*client = knockcore.Client{
		ID: c.ID, Services: c.Services, AllServices: c.AllServices,
		TTL: time.Duration(c.TTL), MaxTTL: time.Duration(c.MaxTTL), MaxGrants: c.MaxGrants,
	}
	if c.TTL < 0 || c.MaxTTL < 0 || c.MaxGrants < 0 {
		return fmt.Errorf("ttl, max_ttl and max_grants must not be negative")
	}
	for i, text := range c.Secrets {
		secret, err := expandSecret(repl, text, insecureFiles)
		if err == nil {
			err = secret.Strong()
		}
		if err != nil {
			if len(c.Secrets) > 1 {
				return fmt.Errorf("secret %d: %w", i+1, err)
			}
			return fmt.Errorf("secret: %w", err)
		}
		client.Secrets = append(client.Secrets, secret)
	}
	var err error
	if client.Expires, err = parseExpires(c.Expires); err != nil {
		return err
	}
	if client.From, err = ParsePrefixes(c.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if client.Methods, err = parseMethods(c.Methods); err != nil {
		return fmt.Errorf("methods: %w", err)
	}
	if err := c.convertDatagrams(client, repl, insecureFiles); err != nil {
		return err
	}
	if err := c.convertAPIKeys(client, repl, insecureFiles); err != nil {
		return err
	}
	return client.Validate()
}

func parseExpires(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("expires %q is neither a date such as 2027-01-31 nor a time such as 2027-01-31T18:00:00Z", s)
	}
	return t, nil
}

// ParsePrefixes reads addresses, prefixes and private_ranges; host bits are refused, because
// they are usually a slip.
func ParsePrefixes(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range list {
		if s == "private_ranges" {
			for _, p := range privateRanges {
				prefixes = append(prefixes, netip.MustParsePrefix(p))
			}
			continue
		}
		if addr, err := netip.ParseAddr(s); err == nil {
			prefixes = append(prefixes, knockcore.AddrPrefix(addr))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			if strings.Contains(s, ",") {
				return nil, fmt.Errorf("%q: addresses are separated by blanks, not by commas", s)
			}
			return nil, fmt.Errorf("%q is neither an address, nor a prefix such as 203.0.113.0/24, nor private_ranges", s)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has bits behind the prefix; did you mean %v?", s, p.Masked())
		}
		prefixes = append(prefixes, knockcore.NormalPrefix(p))
	}
	return prefixes, nil
}

// privateRanges are what Caddy means by private_ranges.
var privateRanges = []string{
	"192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "::1/128",
}
