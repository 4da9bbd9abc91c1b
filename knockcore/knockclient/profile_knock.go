// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/sequence"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// ProfileKnock is what a profile keeps about the knock that goes before
// connections to its server: the object "knock". All of its keys may be missing;
// then it is a libknock datagram made with the profile's client and secret:
//
//	{
//		"method": "udp",
//		"host": "knock.example.org",
//		"port": 62201,
//		"ports": ["tcp/22"],
//		"session": true,
//		"frame": true,
//		"secret": "base64:…",
//		"secret_file": "alice.psk",
//		"hmac_secret": "base64:…",
//		"hmac_secret_file": "alice.hmac",
//		"hmac": "sha256",
//		"user": "alice",
//		"open_for": "60s",
//		"address": "203.0.113.7",
//		"source": "192.0.2.1",
//		"parts": 3,
//		"interval": "80ms",
//		"copies": 1,
//		"sequence": ["tcp/7000", "udp/8000"],
//		"sequence_file": "home.sequences",
//		"raw_syn": true
//	}
type ProfileKnock struct {
	// Method, Ports, User, OpenFor, Address, Parts, Interval and Copies are those
	// of Knock, Host and Port those of Opening, Source that of Sender.
	Method          knockcore.Method
	Host            string
	Port            uint16
	Ports           []knockcore.PortRange
	User            string
	OpenFor         time.Duration
	Address, Source netip.Addr
	Parts, Copies   int
	Interval        time.Duration
	// Secret is pyknock's pre-shared key, or fwknop's encryption key; for
	// libknock's datagrams zero means the profile's secret. HMACSecret is fwknop's
	// HMAC key. If they stand in files of their own, relative to the profile's
	// folder, SecretFile and HMACSecretFile name these.
	Secret, HMACSecret         knockcore.Secret
	SecretFile, HMACSecretFile string
	// HMAC is the digest of fwknop's HMAC; "" means sha256.
	HMAC string
	// Steps, SequenceFile and RawSYN are those of Knock; the file is relative to the
	// profile's folder.
	Steps        []sequence.Step
	SequenceFile string
	RawSYN       bool
	// NoSession says that the frame does not carry the knock's session ID, NoFrame
	// that there is no frame.
	NoSession, NoFrame bool
}

// profileKnockJSON is a ProfileKnock on disk.
type profileKnockJSON struct {
	Method         knockcore.Method `json:"method,omitzero"`
	Host           string           `json:"host,omitempty"`
	Port           uint16           `json:"port,omitempty"`
	Ports          []string         `json:"ports,omitempty"`
	Session        *bool            `json:"session,omitempty"`
	Frame          *bool            `json:"frame,omitempty"`
	Secret         string           `json:"secret,omitempty"`
	SecretFile     string           `json:"secret_file,omitempty"`
	HMACSecret     string           `json:"hmac_secret,omitempty"`
	HMACSecretFile string           `json:"hmac_secret_file,omitempty"`
	HMAC           string           `json:"hmac,omitempty"`
	User           string           `json:"user,omitempty"`
	OpenFor        duration         `json:"open_for,omitzero"`
	Address        netip.Addr       `json:"address,omitzero"`
	Source         netip.Addr       `json:"source,omitzero"`
	Parts          int              `json:"parts,omitempty"`
	Interval       duration         `json:"interval,omitzero"`
	Copies         int              `json:"copies,omitempty"`
	Sequence       []string         `json:"sequence,omitempty"`
	SequenceFile   string           `json:"sequence_file,omitempty"`
	RawSYN         bool             `json:"raw_syn,omitempty"`
}

// ParseKnockSecret reads a key as text in the way of the method: a pyknock key
// that is plain text is latin-1.
func ParseKnockSecret(m knockcore.Method, text string) (knockcore.Secret, error) {
	if m == knockcore.MethodPyknock {
		return wire.ParsePyknockKey(text)
	}
	return knockcore.ParseSecret(text)
}

func (k *ProfileKnock) encode(text func(knockcore.Secret) string) *profileKnockJSON {
	raw := &profileKnockJSON{
		Method: k.Method, Host: k.Host, Port: k.Port, SecretFile: k.SecretFile, HMACSecretFile: k.HMACSecretFile, HMAC: k.HMAC,
		User: k.User, OpenFor: duration(k.OpenFor), Address: k.Address, Source: k.Source, Parts: k.Parts,
		Interval: duration(k.Interval), Copies: k.Copies, SequenceFile: k.SequenceFile, RawSYN: k.RawSYN,
	}
	for _, step := range k.Steps {
		raw.Sequence = append(raw.Sequence, step.String())
	}
	for _, port := range k.Ports {
		raw.Ports = append(raw.Ports, port.String())
	}
	if k.SecretFile == "" {
		raw.Secret = text(k.Secret)
	}
	if k.HMACSecretFile == "" {
		raw.HMACSecret = text(k.HMACSecret)
	}
	no := false
	if k.NoSession {
		raw.Session = &no
	}
	if k.NoFrame {
		raw.Frame = &no
	}
	return raw
}

// decode reads it as on disk. Without word on it, frames follow wherever the
// profile has a secret to make them with.
func (raw *profileKnockJSON) decode(secret bool) (*ProfileKnock, error) {
	k := &ProfileKnock{
		Method: raw.Method, Host: raw.Host, Port: raw.Port, SecretFile: raw.SecretFile, HMACSecretFile: raw.HMACSecretFile, HMAC: raw.HMAC,
		User: raw.User, OpenFor: time.Duration(raw.OpenFor), Address: raw.Address, Source: raw.Source, Parts: raw.Parts,
		Interval: time.Duration(raw.Interval), Copies: raw.Copies, SequenceFile: raw.SequenceFile, RawSYN: raw.RawSYN,
		NoSession: raw.Session != nil && !*raw.Session, NoFrame: !secret,
	}
	if raw.Frame != nil {
		k.NoFrame = !*raw.Frame
	}
	if raw.Secret != "" && raw.SecretFile != "" || raw.HMACSecret != "" && raw.HMACSecretFile != "" {
		return nil, errors.New("knock: there are both a secret and its file; keep one")
	}
	for _, text := range raw.Ports {
		port, err := knockcore.ParsePortRange(text)
		if err != nil {
			return nil, fmt.Errorf("knock: %w", err)
		}
		k.Ports = append(k.Ports, port)
	}
	for _, text := range raw.Sequence {
		step, err := sequence.ParseStep(text)
		if err != nil {
			return nil, fmt.Errorf("knock: %w", err)
		}
		k.Steps = append(k.Steps, step)
	}
	var err, hmacErr error
	k.Secret, err = ParseKnockSecret(k.Method, raw.Secret)
	k.HMACSecret, hmacErr = ParseKnockSecret(k.Method, raw.HMACSecret)
	if err = errors.Join(err, hmacErr); err != nil {
		return nil, fmt.Errorf("knock: %w", err)
	}
	return k, nil
}

// load reads the secrets that stand in files of their own.
func (k *ProfileKnock) load(dir string) error {
	if k.SequenceFile != "" && !filepath.IsAbs(k.SequenceFile) {
		k.SequenceFile = filepath.Join(dir, k.SequenceFile)
	}
	parse := func(text string) (knockcore.Secret, error) { return ParseKnockSecret(k.Method, text) }
	for path, secret := range map[string]*knockcore.Secret{k.SecretFile: &k.Secret, k.HMACSecretFile: &k.HMACSecret} {
		if path == "" {
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		var err error
		if *secret, err = ReadKeyFile(path, false, parse); err != nil {
			if errors.Is(err, fs.ErrNotExist) { // A missing secret is not a missing profile.
				err = fmt.Errorf("the file of its knock's secret, %s, does not exist", path)
			}
			return err
		}
	}
	return nil
}

// Opening makes the Opening of the profile, nil if it has none. The secrets must
// be there, as after Profiles.Load.
func (p *Profile) Opening() *Opening {
	k := p.Knock
	if k == nil {
		return nil
	}
	o := &Opening{
		Knock: Knock{
			Method: k.Method, ClientID: p.Client, Secret: k.Secret, Ports: k.Ports, Address: k.Address,
			User: k.User, OpenFor: k.OpenFor, Parts: k.Parts, Interval: k.Interval, Copies: k.Copies,
			Steps: k.Steps, SequenceFile: k.SequenceFile, RawSYN: k.RawSYN,
		},
		Sender: Sender{Source: k.Source}, Host: k.Host, Port: k.Port, NoSession: k.NoSession, NoFrame: k.NoFrame,
		Timeout: p.ConnectTimeout,
	}
	switch m := o.Knock.method(); {
	case m == knockcore.MethodFwknop:
		o.Knock.Secret = knockcore.Secret{}
		o.Knock.Fwknop = knockcore.FwknopKeys{Encryption: k.Secret, HMAC: k.HMACSecret, HMACType: k.HMAC}
	case UsesSecret(m) && k.Secret.IsZero():
		o.Knock.Secret = p.Secret
	}
	return o
}

// Validate reports the first thing wrong with the profile, whose secrets must be
// there.
func (p *Profile) Validate() error {
	cfg, opening := p.Config(), p.Opening()
	if byHTTP := p.HTTPKnock(); byHTTP != nil {
		if err := byHTTP.Validate(); err != nil {
			return fmt.Errorf("http: %w", err)
		}
		if opening == nil && p.Client == "" && p.Secret.IsZero() {
			return nil // it is all there is
		}
	}
	if opening == nil || !opening.NoFrame {
		if err := cfg.Validate(); err != nil {
			return err
		}
	}
	if opening == nil {
		return nil
	}
	knock := opening.Knock.forTarget(&cfg, 1) // whatever the port will be
	return knock.Validate()
}
