// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// clientsFileInterval is how often the clients file is looked at.
const clientsFileInterval = 500 * time.Millisecond

// maxClientsFile bounds the clients file, in bytes.
const maxClientsFile = 64 << 20

// ClientsFile is the content of a clients file: clients as in the configuration.
// Secrets may stand in it as they are, or as {file.*} and {env.*} placeholders.
type ClientsFile struct {
	// Clients are added to those of the configuration; no ID may occur twice.
	Clients []*Client `json:"clients"`
}

// clientsFile follows a file. A change is noticed by the identity, size and times
// of the file that is opened, so rewriting, renaming over it and swapping a
// symbolic link all count.
type clientsFile struct {
	path string

	mu   sync.Mutex
	last os.FileInfo // of the version that was read last, good or bad
	err  error       // why the file can't be used as it is now
}

func (f *clientsFile) health() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// read opens the file and reads it for the app if it changed since the last call. The
// information is that of the opened file, not of whatever bears its name later.
func (f *clientsFile) read(a *App) (clients []*knockcore.Client, changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.Open(f.path)
	if err != nil {
		changed = f.last != nil || f.err == nil
		f.last, f.err = nil, err
		return nil, changed, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		f.last, f.err = nil, err
		return nil, true, err
	}
	if f.last != nil && sameVersion(f.last, info) {
		return nil, false, f.err
	}
	f.last = info
	clients, f.err = a.readClients(file, f.path, info.Size())
	return clients, true, f.err
}

func sameVersion(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changeTime(a) == changeTime(b)
}

// usualClient is about how many bytes a client takes in a file.
const usualClient = 100

// readClients reads and converts the clients of a file of about this size.
func (a *App) readClients(file io.ReadSeeker, path string, size int64) ([]*knockcore.Client, error) {
	if err := checkKeyFile(path, a.InsecureFileMode); err != nil {
		return nil, err
	}
	if size > maxClientsFile {
		return nil, fmt.Errorf("clients file is larger than %d bytes", maxClientsFile)
	}
	clients := newConverter(a, caddy.NewReplacer(), int(size/usualClient))
	if readQuickly(io.LimitReader(file, maxClientsFile), func(c *Client) bool { return clients.add(c) == nil }) {
		return clients.list, nil
	}
	clients.list = clients.list[:0]
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxClientsFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxClientsFile {
		return nil, fmt.Errorf("clients file is larger than %d bytes", maxClientsFile)
	}
	content, err := decodeClients(b, path)
	if err != nil {
		return nil, err
	}
	for i, c := range content.Clients {
		if c == nil {
			return nil, fmt.Errorf("%s: client %d is null", path, i+1)
		}
		c.At = path
		if err := clients.add(c); err != nil {
			return nil, err
		}
	}
	return clients.list, nil
}

// failed records why the content of the file can't be used.
func (f *clientsFile) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// keyring makes the keyring of the configured clients and those of the clients file,
// with the keys of their devices.
func (a *App) keyring(fromFile []*knockcore.Client) (*knockcore.Keyring, error) {
	configured, err := a.convertClients(caddy.NewReplacer())
	if err != nil {
		return nil, err
	}
	clients := slices.Concat(configured, fromFile)
	a.withDevices(clients)
	ring, err := knockcore.NewKeyring(clients)
	if err != nil {
		if twice := a.definedTwice(fromFile); twice != nil {
			return nil, twice
		}
		return nil, err
	}
	return ring, checkShared(clients)
}

// definedTwice finds an ID that occurs twice.
func (a *App) definedTwice(fromFile []*knockcore.Client) error {
	places := make(map[string]string, len(a.Clients)+len(fromFile))
	define := func(id, at string) error {
		first, found := places[id]
		places[id] = at
		if !found {
			return nil
		}
		if first != "" {
			first = " (first at " + first + ")"
		}
		return Placed(at, fmt.Errorf("client %s is defined twice%s; put all its secrets into one block", id, first))
	}
	for _, c := range a.Clients {
		if err := define(c.ID, c.At); err != nil {
			return err
		}
	}
	for _, c := range fromFile {
		if err := define(c.ID, a.ClientsFile); err != nil {
			return err
		}
	}
	return nil
}

// followClients applies changes of the clients file until ctx is done. A file
// that is missing or bad changes nothing but the app's health.
func (a *App) followClients(ctx context.Context) {
	ticker := time.NewTicker(clientsFileInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		fromFile, changed, err := a.file.read(a)
		if !changed {
			continue
		}
		clients, revoked := 0, 0
		if err == nil {
			clients, revoked, err = a.useClients(ctx, fromFile)
		}
		if err != nil {
			a.file.failed(err)
			a.logger.Error("clients file can't be used; the clients stay as they were", zap.String("file", a.file.path), zap.Error(err))
			continue
		}
		a.logger.Info("clients file was read again", zap.String("file", a.file.path), zap.Int("clients", clients), zap.Int("grants_revoked", revoked))
	}
}

// useClients makes the clients of the file count.
func (a *App) useClients(ctx context.Context, fromFile []*knockcore.Client) (clients, revoked int, err error) {
	a.devices.mu.Lock()
	defer a.devices.mu.Unlock()
	ring, err := a.keyring(fromFile)
	if err != nil {
		return 0, 0, err
	}
	ring.Prepare()
	if revoked, err = a.gate.SetKeyring(ctx, ring); err != nil {
		return 0, 0, err
	}
	a.devices.fromFile = fromFile
	return ring.Len(), revoked, nil
}
