// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/device"
)

// devicesFile is the default name in Caddy's data directory. It is not in the folder
// of the store, where nothing else may be.
const devicesFile = "knock-devices.json"

// invites are the invitations that are out, over reloads.
var invites device.Invites

// devices are those who joined by invitation, and what the keyring is made of.
type devices struct {
	book *device.Book
	page atomic.Pointer[string] // where they join

	mu       sync.Mutex          // orders changes of the keyring
	fromFile []*knockcore.Client // of the clients file, as it is in use
	last     os.FileInfo         // of the version of the book that was read last
	err      error               // why it can't be used as it is
	known    atomic.Pointer[map[[sha256.Size]byte]device.Device]
}

// open finds the file and reads it. A book that can't be read opens nothing for
// anybody, and is no reason to lock out those who are not in it.
func (a *App) openDevices() error {
	path, err := caddy.NewReplacer().ReplaceOrErr(a.DevicesFile, true, true)
	if err != nil {
		return fmt.Errorf("devices_file: %w", err)
	}
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), devicesFile)
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("devices_file: %w", err)
	}
	a.devices.book = device.NewBook(path)
	a.devices.known.Store(new(map[[sha256.Size]byte]device.Device))
	a.readDevices()
	return nil
}

// readDevices reads the book; the devices stay as they are if it can't be read.
// The caller is alone or holds the lock.
func (a *App) readDevices() {
	d := &a.devices
	d.last, _ = os.Stat(d.book.Path())
	list, err := d.book.List()
	if d.err = err; err != nil {
		a.logger.Error("the devices can't be read; they stay as they were, and nobody can join", zap.Error(err))
		return
	}
	known := make(map[[sha256.Size]byte]device.Device, len(list))
	for _, dev := range list {
		known[dev.Sum()] = dev
	}
	d.known.Store(&known)
}

// withDevices gives clients the keys of their devices: those who have some are replaced,
// since clients may be in other keyrings.
func (a *App) withDevices(clients []*knockcore.Client) {
	if len(*a.devices.known.Load()) == 0 {
		return
	}
	places := make(map[string]int, len(clients))
	taken := make(map[[sha256.Size]byte]bool)
	for i, c := range clients {
		places[c.ID] = i
		for _, sum := range c.APIKeyHashes {
			taken[sum] = true
		}
	}
	for sum, dev := range *a.devices.known.Load() {
		if i, found := places[dev.Client]; found && !taken[sum] {
			c := *clients[i]
			c.APIKeyHashes = append(slices.Clip(c.APIKeyHashes), sum)
			clients[i] = &c
		}
	}
}

// rekey reads the devices again and makes their keys and no others count. Grants of
// devices that are gone are revoked. The caller holds the lock.
func (a *App) rekey(ctx context.Context) error {
	former := *a.devices.known.Load()
	a.readDevices()
	if a.devices.err != nil {
		return a.devices.err
	}
	ring, err := a.keyring(a.devices.fromFile)
	if err == nil {
		ring.Prepare()
		_, err = a.gate.SetKeyring(ctx, ring)
	}
	if err != nil {
		a.devices.err = err
		return err
	}
	a.revokeDevices(ctx, former)
	return nil
}

// revokeDevices ends the grants of devices that were known and are not any more.
// Devices that never were known are those of other nodes of a fleet.
func (a *App) revokeDevices(ctx context.Context, former map[[sha256.Size]byte]device.Device) {
	gone := make(map[string]bool)
	for sum, dev := range former {
		if _, ok := a.Device(sum); !ok {
			gone[dev.ID] = true
		}
	}
	if len(gone) == 0 {
		return
	}
	for _, g := range a.gate.State().Grants(func(g *knockcore.Grant) bool { return gone[g.Device()] }) {
		if _, err := a.gate.Revoke(ctx, g.ID, "device revoked"); err != nil {
			a.logger.Error("closing what a device opened", zap.Error(err))
		}
	}
}

// followDevices applies changes of the book that others make, until ctx is done.
func (a *App) followDevices(ctx context.Context) {
	ticker := time.NewTicker(clientsFileInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		a.lookForDevices(ctx)
	}
}

// lookForDevices applies what has changed in the book.
func (a *App) lookForDevices(ctx context.Context) {
	info, err := os.Stat(a.devices.book.Path())
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	if last := a.devices.last; err != nil && last != nil || err == nil && (last == nil || !sameVersion(last, info)) {
		_ = a.rekey(ctx) // which says so
	}
}

// devicesHealth says why the devices can't be used, nil if they can.
func (a *App) devicesHealth() error {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	return a.devices.err
}

// Invite makes an invitation for a device of the client: a token, good once and
// until it expires. A life of 0 means device.DefaultLife. The app must be running.
func (a *App) Invite(client string, life time.Duration) (token knockcore.Secret, expires time.Time, err error) {
	c := a.gate.Keyring().Client(client)
	switch {
	case c == nil:
		return token, expires, fmt.Errorf("there is no client %q", client)
	case !a.Enabled(knockcore.MethodHTTP) || !c.MayUse(knockcore.MethodHTTP):
		return token, expires, fmt.Errorf("client %s may not knock by HTTP: see `methods`", client)
	case !c.Expires.IsZero() && !a.gate.Now().Before(c.Expires):
		return token, expires, fmt.Errorf("client %s has expired", client)
	}
	if err := a.devicesHealth(); err != nil {
		return token, expires, err
	}
	return invites.Add(client, life, a.gate.Now())
}

// Redeem uses an invitation up and makes the device and its key, which counts at
// once. The error is device.ErrInvite if the invitation is no good. The app must be
// running.
func (a *App) Redeem(ctx context.Context, token, name string) (dev device.Device, key knockcore.Secret, err error) {
	client, err := invites.Redeem(token, a.gate.Now())
	if err != nil {
		return dev, key, err
	}
	if a.gate.Keyring().Client(client) == nil { // removed meanwhile
		return dev, key, device.ErrInvite
	}
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	if dev, key, err = a.devices.book.Add(client, name, a.gate.Now()); err != nil {
		return dev, key, fmt.Errorf("keeping the device: %w", err)
	}
	if err = a.rekey(ctx); err != nil {
		return dev, knockcore.Secret{}, err
	}
	a.logger.Info("device joined", zap.String("device", dev.ID), zap.String("client", client), zap.String("name", dev.Name))
	return dev, key, nil
}

// Device finds the device of an API key.
func (a *App) Device(sum [sha256.Size]byte) (dev device.Device, ok bool) {
	dev, ok = (*a.devices.known.Load())[sum]
	return dev, ok
}

// RemoveDevices takes away the keys of the devices that match, and ends what they
// opened. The app must be running.
func (a *App) RemoveDevices(ctx context.Context, match func(device.Device) bool) (removed []device.Device, err error) {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	if removed, err = a.devices.book.Remove(match); err != nil || len(removed) == 0 {
		return nil, err
	}
	for _, dev := range removed {
		a.logger.Info("device revoked", zap.String("device", dev.ID), zap.String("client", dev.Client), zap.String("name", dev.Name))
	}
	return removed, a.rekey(ctx)
}

// ServePage says at which URL the page for knocks is served, for invitations; it is
// for modules to call while they are provisioned.
func (a *App) ServePage(url string) { a.devices.page.CompareAndSwap(nil, &url) }

// errNoPage says that nobody could follow an invitation.
var errNoPage = errors.New("it is not known where the page is: say so with `page https://...` in the handler knock, or --page")
