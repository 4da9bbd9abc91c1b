// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/filestore"
)

func init() { caddy.RegisterModule(new(FileStore)) }

// FileStore keeps spent nonces, grants and bans on disk: they survive reloads,
// restarts and `kill -9`. After a power cut, or with a damaged file, frames that
// could have been accepted before are refused for about one time window. A disk
// that is full locks nobody out: the store goes on in memory, says so in the log
// and in the health, and distrusts its files at the next start.
type FileStore struct {
	// Path is the folder that holds the files; nothing else may be in it, and no
	// two processes may use it at once. Default: `knock` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	// Nonces is how many spent nonces are remembered at most. When none of them is
	// older than the time window, further knocks are refused. Default: 262144.
	Nonces int `json:"nonces,omitempty"`

	// Volatile says that the folder vanishes now and then, as one inside a
	// container does: then an empty folder means that the state was lost, and frames
	// of one time window are refused at start. Default: false.
	Volatile bool `json:"volatile,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*FileStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "knock.stores.file", New: func() caddy.Module { return new(FileStore) }}
}

// Provision finds the folder.
func (f *FileStore) Provision(caddy.Context) error {
	path, err := caddy.NewReplacer().ReplaceOrErr(f.Path, true, true)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), "knock")
	}
	if f.Path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	return nil
}

// KnockStore implements StoreConverter.
func (f *FileStore) KnockStore(window time.Duration) (string, func() (knockcore.Store, error)) {
	return "file " + f.Path, func() (knockcore.Store, error) {
		storeErrors.WithLabelValues("file") // a counter that is there from the start shows its first step
		store, err := filestore.Open(filestore.Options{
			Dir: f.Path, Capacity: f.Nonces, Window: window, DistrustEmpty: f.Volatile, Log: logFile,
		})
		if err != nil {
			return nil, err
		}
		return store, nil
	}
}

// logFile logs for the store and counts failures of the disk.
func logFile(level, msg string, err error) {
	if level == "error" {
		storeErrors.WithLabelValues("file").Inc()
	}
	logStore("file")(level, msg, err)
}

// UnmarshalCaddyfile reads the store's options. Syntax:
//
//	file [<path>] {
//		nonces <count>
//		volatile
//	}
func (f *FileStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		f.Path = args[0]
	default:
		return d.Errf("store file takes one argument at most, the folder, got %d", len(args))
	}
	opts := NewOptions(d)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "nonces":
			err = opts.Positive(&f.Nonces)
		case "volatile":
			err = opts.Flag(&f.Volatile)
		default:
			err = opts.Unknown("nonces", "volatile")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ StoreConverter        = (*FileStore)(nil)
	_ caddy.Provisioner     = (*FileStore)(nil)
	_ caddyfile.Unmarshaler = (*FileStore)(nil)
)
