// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

const (
	// DefaultLife is how long an invitation is good.
	DefaultLife = 10 * time.Minute
	// MaxLife is the longest that one may be.
	MaxLife = 24 * time.Hour
	// MaxInvites is how many there may be at a time.
	MaxInvites = 256
	// tokenLen is the length of a token before it is text, in bytes: 144 bits, and
	// whole groups of base64.
	tokenLen = 18
)

// ErrInvite says that there is no such invitation: it was used, is too old, or never
// was.
var ErrInvite = errors.New("the invitation was used already, is too old, or is not from here")

// Invites are the invitations that are out. They live in memory: a restart ends
// them. The zero value is empty and ready; it is safe for concurrent use.
type Invites struct {
	mu   sync.Mutex
	open map[[sha256.Size]byte]invite
}

type invite struct {
	client  string
	expires time.Time
}

// Add makes an invitation for a device of a client and returns its token, which is
// kept nowhere. A life of 0 means DefaultLife.
func (i *Invites) Add(client string, life time.Duration, now time.Time) (token knockcore.Secret, expires time.Time, err error) {
	if life == 0 {
		life = DefaultLife
	}
	if life < 0 || life > MaxLife {
		return token, expires, fmt.Errorf("an invitation lives for %v at most", MaxLife)
	}
	random := make([]byte, tokenLen)
	_, _ = rand.Read(random) // never fails: see crypto/rand
	text := base64.RawURLEncoding.EncodeToString(random)
	expires = now.Add(life)
	i.mu.Lock()
	defer i.mu.Unlock()
	for sum, v := range i.open {
		if !now.Before(v.expires) {
			delete(i.open, sum)
		}
	}
	if len(i.open) >= MaxInvites {
		return token, expires, fmt.Errorf("there are %d invitations out; wait until some have ended", MaxInvites)
	}
	if i.open == nil {
		i.open = make(map[[sha256.Size]byte]invite)
	}
	i.open[sha256.Sum256([]byte(text))] = invite{client, expires}
	return knockcore.NewSecret([]byte(text)), expires, nil
}

// Redeem uses an invitation up and tells whose it was. Of several calls with one
// token exactly one succeeds. The error is ErrInvite.
func (i *Invites) Redeem(token string, now time.Time) (client string, err error) {
	// Looked up by its sum, so that timing says nothing about its bytes.
	sum := sha256.Sum256([]byte(token))
	i.mu.Lock()
	defer i.mu.Unlock()
	v, ok := i.open[sum]
	delete(i.open, sum)
	if !ok || !now.Before(v.expires) {
		return "", ErrInvite
	}
	return v.client, nil
}
