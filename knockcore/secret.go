// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// MinSecretLen is the least number of bytes in a client's secret or API key.
const MinSecretLen = 16

const redacted = "[secret]"

// Secret holds key material and cannot be printed: whatever formats, marshals
// or logs it says "[secret]". The bytes are held by a function, so that even a
// reflective dump of a struct with a Secret deep inside shows an address at
// most. The zero value is the empty secret. Compare secrets with Equal.
type Secret struct{ bytes func() []byte }

// NewSecret makes a Secret of a copy of b.
func NewSecret(b []byte) Secret { return secretOf(bytes.Clone(b)) }

// secretOf makes a Secret of b, which nobody else has.
func secretOf(b []byte) Secret {
	if len(b) == 0 {
		return Secret{}
	}
	return Secret{func() []byte { return b }}
}

// ParseSecret reads the text form of a secret: "hex:…", "base64:…" (standard or
// URL alphabet, padded or not), otherwise the bytes of the text itself
// (libknock.md section 17). Text with "base64:" further on is refused: somebody
// has taken more along than the secret, such as the word before it. It does not
// check the length: see Strong. Errors never contain any part of the text.
func ParseSecret(text string) (Secret, error) {
	switch {
	case strings.HasPrefix(text, "hex:"):
		b, err := hex.DecodeString(text[len("hex:"):])
		if err != nil {
			return Secret{}, errors.New("secret after hex: is not hexadecimal")
		}
		return secretOf(b), nil
	case strings.HasPrefix(text, "base64:"):
		b, err := decodeBase64(text[len("base64:"):])
		if err != nil {
			return Secret{}, errors.New("secret after base64: is not base64")
		}
		return secretOf(b), nil
	case strings.Contains(text, "base64:"):
		return Secret{}, errors.New("secret has something before base64:, which would be part of it; put base64:… alone there, without a word or a quote before it")
	default:
		return secretOf([]byte(text)), nil
	}
}

func decodeBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}

// Bytes returns the key material. Callers must not keep it where it could be
// printed, nor change it.
func (s Secret) Bytes() []byte {
	if s.bytes == nil {
		return nil
	}
	return s.bytes()
}

// Len is the number of bytes.
func (s Secret) Len() int { return len(s.Bytes()) }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Len() == 0 }

// Equal compares in constant time (for secrets of equal length).
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.Bytes(), t.Bytes()) == 1 }

// Strong returns an error if the secret has fewer than MinSecretLen bytes.
func (s Secret) Strong() error {
	if s.Len() < MinSecretLen {
		return fmt.Errorf("secret has %d bytes, at least %d are needed; make one with `caddy-knock keygen`", s.Len(), MinSecretLen)
	}
	return nil
}

// String says "[secret]".
func (Secret) String() string { return redacted }

// GoString says "[secret]".
func (Secret) GoString() string { return redacted }

// Format says "[secret]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText says "[secret]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON says "[secret]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue says "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
