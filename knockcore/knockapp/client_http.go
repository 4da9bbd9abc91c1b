// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// convertAPIKeys expands and checks what the HTTP knock needs. Of keys only the
// hashes are kept.
func (c *Client) convertAPIKeys(client *knockcore.Client, repl *caddy.Replacer, insecureFiles bool) error {
	add := func(what string, i int, sum [32]byte) error {
		if slices.Contains(client.APIKeyHashes, sum) {
			return fmt.Errorf("%s %d: the client has this API key already", what, i+1)
		}
		client.APIKeyHashes = append(client.APIKeyHashes, sum)
		return nil
	}
	for i, text := range c.APIKeys {
		key, err := expandKey(repl, text, insecureFiles, parseAPIKey)
		if err != nil {
			return fmt.Errorf("api_key %d: %w", i+1, err)
		}
		if err := add("api_key", i, knockcore.HashAPIKey(string(key.Bytes()))); err != nil {
			return err
		}
	}
	for i, text := range c.APIKeyHashes {
		expanded, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return fmt.Errorf("api_key_hash %d: %w", i+1, err)
		}
		sum, err := knockcore.ParseAPIKeyHash(expanded)
		if err != nil {
			return fmt.Errorf("api_key_hash %d: %w", i+1, err)
		}
		if err := add("api_key_hash", i, sum); err != nil {
			return err
		}
	}
	return nil
}

// parseAPIKey takes the text as it is: it travels so in the header.
func parseAPIKey(text string) (knockcore.Secret, error) {
	return knockcore.NewSecret([]byte(text)), knockcore.ValidateAPIKey(text)
}

// unmarshalAPIKeys reads `api_key <key...>`.
func unmarshalAPIKeys(opts *Options, d *caddyfile.Dispenser, c *Client) error {
	first := len(c.APIKeys)
	if err := opts.List(&c.APIKeys); err != nil {
		return err
	}
	for _, text := range c.APIKeys[first:] {
		if isLiteral(text) {
			if err := knockcore.ValidateAPIKey(text); err != nil {
				return d.WrapErr(err)
			}
		}
	}
	return nil
}

// unmarshalAPIKeyHashes reads `api_key_hash <hash...>`.
func unmarshalAPIKeyHashes(opts *Options, d *caddyfile.Dispenser, c *Client) error {
	first := len(c.APIKeyHashes)
	if err := opts.List(&c.APIKeyHashes); err != nil {
		return err
	}
	for _, text := range c.APIKeyHashes[first:] {
		if isLiteral(text) {
			if _, err := knockcore.ParseAPIKeyHash(text); err != nil {
				return d.WrapErr(err)
			}
		}
	}
	return nil
}

// Problems lists what is not well with the running app, for people; nothing in it
// is secret, but it is not for strangers. It must be running.
func (a *App) Problems() []string { return a.problems() }

// Enabled reports whether the configuration enables a method, for modules that
// need one.
func (a *App) Enabled(m knockcore.Method) bool {
	return a.config.Methods == 0 || a.config.Methods.Has(m)
}
