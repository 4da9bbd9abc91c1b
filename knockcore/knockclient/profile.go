// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// Profile is what a user keeps about one client at one server, so that no flags
// are needed. On disk it is JSON; of its keys only client, and one of secret and
// secret_file, must be there:
//
//	{
//		"client": "alice",
//		"secret": "base64:…",
//		"secret_file": "alice.key",
//		"server": "ssh.example.org",
//		"port": 2222,
//		"protected_port": 22,
//		"method": "tcp-auth-envelope-v2",
//		"hint": "route-hint",
//		"server_proof": true,
//		"timeout": "3s",
//		"connect_timeout": "10s",
//		"knock": {"method": "udp"},
//		"http": {"url": "https://knock.example.com", "key_file": "phone.key"}
//	}
//
// Unknown keys are errors. A secret is not needed if the knock has its own and no
// frame follows.
type Profile struct {
	// Client is the client's name, as the server knows it.
	Client string
	// Secret is the client's secret; zero if SecretFile is set.
	Secret knockcore.Secret
	// SecretFile names a file that holds the secret as text; relative to the
	// profile's folder.
	SecretFile string
	// Server is the host that the profile is for; "" means any.
	Server string
	// Port is where to connect to if the command line doesn't say; 0 if unknown.
	Port uint16
	// ProtectedPort is the port inside the frame, if it is another than the one
	// that is connected to; 0 otherwise.
	ProtectedPort uint16
	// Method is how to knock; MethodNone means the default.
	Method knockcore.Method
	// HintNone selects hint mode none.
	HintNone bool
	// ServerProof asks the server to prove itself.
	ServerProof bool
	// Timeout bounds authenticating, ConnectTimeout connecting; 0 means the
	// defaults.
	Timeout, ConnectTimeout time.Duration
	// Knock is the knock that goes before connections; nil if there is none.
	Knock *ProfileKnock
	// HTTP is the knock by HTTP; nil if there is none.
	HTTP *ProfileHTTP
}

// Names of the hint modes, as libknock has them.
const (
	HintModeRoute = "route-hint"
	HintModeNone  = "none"
)

// ParseHint reads the name of a hint mode, "" being the default, and reports
// whether it is HintModeNone.
func ParseHint(name string) (none bool, err error) {
	switch name {
	case "", HintModeRoute:
		return false, nil
	case HintModeNone:
		return true, nil
	default:
		return false, fmt.Errorf("unknown hint mode %q; expect %s or %s", name, HintModeRoute, HintModeNone)
	}
}

// profileJSON is a Profile on disk.
type profileJSON struct {
	Client         string            `json:"client,omitempty"`
	Secret         string            `json:"secret,omitempty"`
	SecretFile     string            `json:"secret_file,omitempty"`
	Server         string            `json:"server,omitempty"`
	Port           uint16            `json:"port,omitempty"`
	ProtectedPort  uint16            `json:"protected_port,omitempty"`
	Method         knockcore.Method  `json:"method,omitzero"`
	Hint           string            `json:"hint,omitempty"`
	ServerProof    bool              `json:"server_proof,omitempty"`
	Timeout        duration          `json:"timeout,omitzero"`
	ConnectTimeout duration          `json:"connect_timeout,omitzero"`
	Knock          *profileKnockJSON `json:"knock,omitempty"`
	HTTP           *profileHTTPJSON  `json:"http,omitempty"`
}

// duration is text such as "3s" in JSON.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err == nil && parsed < 0 {
		err = fmt.Errorf("duration %v is negative", parsed)
	}
	*d = duration(parsed)
	return err
}

// SecretText writes a secret in the form that knockcore.ParseSecret, Caddyfiles
// and profiles read. Whoever calls it is about to show or to store the secret.
func SecretText(s knockcore.Secret) string {
	return "base64:" + base64.StdEncoding.EncodeToString(s.Bytes())
}

// encode writes the profile with its secrets as text tells them.
func (p *Profile) encode(text func(knockcore.Secret) string) ([]byte, error) {
	known := func(s knockcore.Secret) string {
		if s.IsZero() {
			return ""
		}
		return text(s)
	}
	raw := profileJSON{
		Client: p.Client, Secret: known(p.Secret), SecretFile: p.SecretFile, Server: p.Server, Port: p.Port,
		ProtectedPort: p.ProtectedPort, Method: p.Method, ServerProof: p.ServerProof,
		Timeout: duration(p.Timeout), ConnectTimeout: duration(p.ConnectTimeout),
	}
	if p.HintNone {
		raw.Hint = HintModeNone
	}
	if p.Knock != nil {
		raw.Knock = p.Knock.encode(known)
	}
	if p.HTTP != nil {
		raw.HTTP = p.HTTP.encode(known)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	err := enc.Encode(raw)
	return b.Bytes(), err
}

// MarshalJSON writes the profile as on disk, but for the secret, which reads
// "[secret]": for showing it.
func (p *Profile) MarshalJSON() ([]byte, error) {
	return p.encode(knockcore.Secret.String)
}

// Text returns the profile as it stands on disk, with its secret.
func (p *Profile) Text() ([]byte, error) { return p.encode(SecretText) }

// UnmarshalJSON reads the profile as on disk. Errors contain nothing of the
// secret.
func (p *Profile) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var raw profileJSON
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	if raw.Secret != "" && raw.SecretFile != "" {
		return errors.New("there are both secret and secret_file; keep one")
	}
	secret, err := knockcore.ParseSecret(raw.Secret)
	if err != nil {
		return err
	}
	none, err := ParseHint(raw.Hint)
	if err != nil {
		return err
	}
	var knock *ProfileKnock
	if raw.Knock != nil {
		if knock, err = raw.Knock.decode(raw.Secret != "" || raw.SecretFile != ""); err != nil {
			return err
		}
	}
	var byHTTP *ProfileHTTP
	if raw.HTTP != nil {
		if byHTTP, err = raw.HTTP.decode(); err != nil {
			return err
		}
	}
	*p = Profile{
		Knock: knock, HTTP: byHTTP, Client: raw.Client, Secret: secret, SecretFile: raw.SecretFile, Server: raw.Server, Port: raw.Port,
		ProtectedPort: raw.ProtectedPort, Method: raw.Method, HintNone: none, ServerProof: raw.ServerProof,
		Timeout: time.Duration(raw.Timeout), ConnectTimeout: time.Duration(raw.ConnectTimeout),
	}
	return nil
}

// Config makes the Config of the profile. If the secret stands in a file of its
// own, Profiles.Load has read it.
func (p *Profile) Config() Config {
	return Config{
		ClientID: p.Client, Secret: p.Secret, Method: p.Method, Port: p.ProtectedPort,
		ServerProof: p.ServerProof, HintNone: p.HintNone, Timeout: p.Timeout,
	}
}
