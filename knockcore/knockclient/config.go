// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// DefaultTimeout is how long sending the frame and reading the proof may take.
const DefaultTimeout = 3 * time.Second

// Config says who knocks and how. It is a plain value: copy it as you like.
type Config struct {
	// ClientID is the client's name, as the server knows it.
	ClientID string
	// Secret is the client's secret, of at least knockcore.MinSecretLen bytes.
	Secret knockcore.Secret
	// Method is MethodEnvelopeV2 or MethodFrameV1; MethodNone means the former.
	Method knockcore.Method
	// Port is the protected port: the port that the server expects inside the
	// frame. 0 means the port that the connection goes to, which is right unless
	// something between the two changes it (NAT, a forwarded port).
	Port uint16
	// ServerProof asks the server to prove that it knows the secret, and waits for
	// that before the connection is used. It costs one round trip and tells a
	// refusal from a connection that works.
	ServerProof bool
	// HintNone leaves the route hint out of an envelope v2. Only for servers that
	// are set to it.
	HintNone bool
	// ZeroPadding pads envelopes v2 with zeros instead of random bytes.
	ZeroPadding bool
	// Session is the ID of a knock that was sent before, at most 255 bytes; nil if
	// there was none.
	Session []byte
	// Extensions goes to the server as it stands, by convention as a list that
	// wire.AppendTLVs makes.
	Extensions []byte
	// KnockMethod is libknock's field "method", free text that decides nothing.
	KnockMethod string
	// Timeout bounds sending the frame and reading the proof; 0 means
	// DefaultTimeout, negative means no bound but the context's.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Validate reports the first thing wrong with the configuration.
func (c *Config) Validate() error {
	if err := c.check(); err != nil {
		return err
	}
	frame := c.frame(1)
	_, err := seal(&frame, c.credential())
	return err
}

// check is Validate but for the lengths, which show when a frame is sealed.
func (c *Config) check() error {
	if err := knockcore.ValidateID(c.ClientID); err != nil {
		return fmt.Errorf("checking the client ID: %w", err)
	}
	if err := c.Secret.Strong(); err != nil {
		return fmt.Errorf("checking the secret of client %s: %w", c.ClientID, err)
	}
	method := c.method()
	if !method.IsFrame() {
		return fmt.Errorf("checking the method: %q is no method of TCP frames; expect %v or %v",
			method, knockcore.MethodEnvelopeV2, knockcore.MethodFrameV1)
	}
	if c.HintNone && method != knockcore.MethodEnvelopeV2 {
		return fmt.Errorf("checking the hint mode: %v always has a hint; hint mode none is for %v only", method, knockcore.MethodEnvelopeV2)
	}
	return nil
}

func (c *Config) method() knockcore.Method {
	if c.Method == knockcore.MethodNone {
		return knockcore.MethodEnvelopeV2
	}
	return c.Method
}

func (c *Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

func (c *Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c *Config) credential() *knockcore.Credential {
	return &knockcore.Credential{Client: &knockcore.Client{ID: c.ClientID}, Secret: c.Secret}
}

// frame makes a fresh frame for the protected port.
func (c *Config) frame(port uint16) wire.TCPFrame {
	return wire.TCPFrame{
		Method: c.method(), Port: port, Time: c.now().UnixMilli(), WantProof: c.ServerProof,
		KnockMethod: c.KnockMethod, Session: c.Session, Extensions: c.Extensions,
		HintNone: c.HintNone, ZeroPadding: c.ZeroPadding,
	}
}

// seal seals the frame; its errors speak of the configuration, not of a refusal.
func seal(frame *wire.TCPFrame, cred *knockcore.Credential) ([]byte, error) {
	b, err := frame.Seal(cred)
	var refusal *knockcore.Refusal
	if errors.As(err, &refusal) {
		return nil, fmt.Errorf("making the frame: %s", refusal.Detail)
	}
	return b, err
}
