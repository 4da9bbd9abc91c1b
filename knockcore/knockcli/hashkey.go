// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// apiKeyLen is the number of random bytes in an API key that hash-key makes.
const apiKeyLen = 32

func (a *app) hashKeyCommand() *cobra.Command {
	var flags httpFlags
	var fresh, asJSON bool
	cmd := a.command(cobra.Command{
		Use:   "hash-key [flags]",
		Short: "Print the hash of an API key, for api_key_hash on the server",
		Long: `Print the hash of an API key, for the option api_key_hash of a client on the
server: the server then need not know the key itself. The key is read from --key-file
or from standard input; --new makes one.

The hash is not salted, so only keys that can't be guessed are accepted: at least 128
random bits, as 32 hexadecimal digits or 22 characters of base64 have.`,
		Example: `
  {cmd} hash-key --new
  {cmd} hash-key --key-file phone.key`,
	}, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		key, err := a.keyToHash(cmd, &flags, fresh)
		if err != nil {
			return err
		}
		hash := knockcore.APIKeyHashText(knockcore.HashAPIKey(key))
		shown := ""
		if fresh {
			shown = key
		}
		if asJSON {
			return printJSON(cmd, struct {
				Key  string `json:"key,omitempty"`
				Hash string `json:"hash"`
			}{shown, hash})
		}
		if fresh {
			fmt.Fprintf(cmd.OutOrStdout(), "# Client: the key, which is shown only now\n%s\n# Server, in the client's block: api_key_hash with\n", key)
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), hash)
		return err
	})
	fs := cmd.Flags()
	fs.StringVar(&flags.keyFile, "key-file", "", "read the key from `FILE`, which only you may read")
	fs.BoolVar(&flags.insecure, insecureFileMode, false, "accept a key file that others may read")
	fs.BoolVar(&fresh, "new", false, "make a key")
	fs.BoolVar(&asJSON, "json", false, "print one line of JSON")
	return cmd
}

func (a *app) keyToHash(cmd *cobra.Command, flags *httpFlags, fresh bool) (string, error) {
	if fresh {
		if flags.keyFile != "" {
			return "", usagef("--new goes without --key-file")
		}
		random := make([]byte, apiKeyLen)
		_, _ = rand.Read(random) // never fails: see crypto/rand
		return base64.RawURLEncoding.EncodeToString(random), nil
	}
	var secret knockcore.Secret
	var err error
	if flags.keyFile != "" {
		secret, err = a.apiKey(flags)
	} else {
		secret, err = a.askKey(cmd)
	}
	if err != nil {
		return "", configError(err)
	}
	key := string(secret.Bytes())
	if err := knockcore.ValidateAPIKey(key); err != nil {
		return "", configError(err)
	}
	if n := knockcore.APIKeyBits(key); n < knockcore.MinAPIKeyBits {
		err := configError(fmt.Errorf("the key has %d bits at most, and %d are needed where its hash is kept", n, knockcore.MinAPIKeyBits))
		err.hint = fmt.Sprintf("Make another one with `%s hash-key --new`, or keep the key itself on the server, in a file: api_key {file./path}.", a.Name)
		return "", err
	}
	return key, nil
}
