// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

// apiKeyHashPrefix begins the text of a hash.
const apiKeyHashPrefix = "sha256:"

// MinAPIKeyBits is how many bits an API key needs whose hash is kept: the hash is
// not salted, so a key that can be guessed can be found from it.
const MinAPIKeyBits = 128

// ValidateAPIKey checks a key that clients of the HTTP knock send in a header: at
// least MinSecretLen bytes of printable ASCII, and no placeholder that somebody
// forgot to replace. Errors contain nothing of the key.
func ValidateAPIKey(key string) error {
	if strings.Trim(key, " \t") != key {
		return errors.New("API key begins or ends with a blank, which HTTP takes away")
	}
	if i := strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return fmt.Errorf("API key has a character at byte %d that is not printable ASCII; HTTP headers can't carry it", i)
	}
	if upper := strings.ToUpper(key); strings.Contains(upper, "CHANGE_ME") || strings.Contains(upper, "REPLACE_WITH") {
		return errors.New("API key is still the placeholder of an example; make one with `caddy-knock hash-key --new`")
	}
	if len(key) < MinSecretLen {
		return fmt.Errorf("API key has %d bytes, at least %d are needed; make one with `caddy-knock hash-key --new`", len(key), MinSecretLen)
	}
	return nil
}

// APIKeyBits is how many bits a key has at most if it was drawn at random from the
// kinds of characters that occur in it.
func APIKeyBits(key string) int {
	alphabet := 0
	for _, class := range []struct {
		chars string
		size  int
	}{{"0123456789", 10}, {"abcdef", 6}, {"ghijklmnopqrstuvwxyz", 20}, {"ABCDEF", 6}, {"GHIJKLMNOPQRSTUVWXYZ", 20}} {
		if strings.ContainsAny(key, class.chars) {
			alphabet += class.size
		}
	}
	if strings.ContainsFunc(key, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		alphabet += 2 // as in base64
	}
	if alphabet == 0 {
		return 0
	}
	return int(float64(len(key))*math.Log2(float64(alphabet)) + 0.5)
}

// HashAPIKey is the SHA-256 sum by which a key is looked up.
func HashAPIKey(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// APIKeyHashText writes a hash as ParseAPIKeyHash reads it: sha256: and 64
// hexadecimal digits.
func APIKeyHashText(sum [sha256.Size]byte) string {
	return apiKeyHashPrefix + hex.EncodeToString(sum[:])
}

// ParseAPIKeyHash reads the hash of an API key.
func ParseAPIKeyHash(text string) (sum [sha256.Size]byte, err error) {
	digits, ok := strings.CutPrefix(text, apiKeyHashPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(sum) {
		return sum, errors.New("the hash of an API key is sha256: and 64 hexadecimal digits; `caddy-knock hash-key` makes it")
	}
	copy(sum[:], b)
	return sum, nil
}
