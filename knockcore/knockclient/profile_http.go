// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockclient

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// ProfileHTTP is how a profile knocks by HTTP. On disk, under the key http:
//
//	{
//		"url": "https://knock.example.com",
//		"key": "…",
//		"key_file": "phone.key",
//		"ttl": "1h",
//		"address": "203.0.113.7"
//	}
//
// One of key and key_file must be there. A profile that has nothing but this needs
// no client and no secret.
type ProfileHTTP struct {
	// URL is where the server is.
	URL string
	// Key is the API key.
	Key knockcore.Secret
	// KeyFile names a file that holds the key; relative to the profile's folder.
	KeyFile string
	// TTL is how long to ask for; 0 leaves it to the server.
	TTL time.Duration
	// Address is the address or network to knock for; "" means the one that the server
	// sees.
	Address string
}

// profileHTTPJSON is a ProfileHTTP on disk.
type profileHTTPJSON struct {
	URL     string   `json:"url"`
	Key     string   `json:"key,omitempty"`
	KeyFile string   `json:"key_file,omitempty"`
	TTL     duration `json:"ttl,omitzero"`
	Address string   `json:"address,omitempty"`
}

func (h *ProfileHTTP) encode(text func(knockcore.Secret) string) *profileHTTPJSON {
	raw := &profileHTTPJSON{URL: h.URL, KeyFile: h.KeyFile, TTL: duration(h.TTL), Address: h.Address}
	if h.KeyFile == "" {
		raw.Key = text(h.Key)
	}
	return raw
}

func (raw *profileHTTPJSON) decode() (*ProfileHTTP, error) {
	if (raw.Key == "") == (raw.KeyFile == "") {
		return nil, errors.New("http: expect one of key and key_file")
	}
	key, err := knockcore.ParseSecret(raw.Key)
	if err != nil {
		return nil, fmt.Errorf("http: key: %w", err)
	}
	return &ProfileHTTP{raw.URL, key, raw.KeyFile, time.Duration(raw.TTL), raw.Address}, nil
}

// load reads the key if it stands in a file of its own.
func (h *ProfileHTTP) load(dir string) (err error) {
	if h.KeyFile == "" {
		return nil
	}
	path := h.KeyFile
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if h.Key, err = ReadAPIKeyFile(path, false); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("its key_file %s does not exist", path) // a missing key is not a missing profile
	}
	return err
}

// ReadAPIKeyFile reads an API key from a file that holds nothing else; see
// ReadSecretFile.
func ReadAPIKeyFile(path string, anyMode bool) (knockcore.Secret, error) {
	return ReadKeyFile(path, anyMode, func(text string) (knockcore.Secret, error) { return knockcore.NewSecret([]byte(text)), nil })
}

// HTTPKnock makes the knock of the profile, nil if it has none.
func (p *Profile) HTTPKnock() *HTTPKnock {
	if p.HTTP == nil {
		return nil
	}
	return &HTTPKnock{URL: p.HTTP.URL, Key: p.HTTP.Key, TTL: p.HTTP.TTL, Address: p.HTTP.Address}
}
