// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

const insecureFileMode = "insecure-file-mode"

// secretFlags are the ways to give a secret.
type secretFlags struct {
	text, file, env string
	stdin, anyMode  bool
}

func (f *secretFlags) add(cmd *cobra.Command, stdin bool) {
	fs := cmd.Flags()
	fs.StringVar(&f.file, "secret-file", "", "read the secret from `FILE`, which only you may read")
	fs.StringVar(&f.env, "secret-env", "", "read the secret from the environment variable `NAME`")
	if stdin {
		fs.BoolVar(&f.stdin, "secret-stdin", false, "read the secret from the first line of standard input")
	}
	fs.StringVar(&f.text, "secret", "", "the `secret`: base64:…, hex:…, file:PATH or text; not safe on shared machines")
}

// secret reads the secret that the flags give; zero if they give none.
func (a *app) secret(cmd *cobra.Command, f *secretFlags) (secret knockcore.Secret, err error) {
	var given []string
	for _, name := range []string{"secret-file", "secret-env", "secret-stdin", "secret"} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 1 {
		return secret, usagef("there are several secrets: %s; give one", strings.Join(given, ", "))
	}
	if len(given) == 0 {
		return secret, nil
	}
	switch given[0] {
	case "--secret-file":
		secret, err = secretFile(cmd, f.file, f.anyMode)
	case "--secret-env":
		text, ok := os.LookupEnv(f.env)
		if !ok {
			return secret, configError(fmt.Errorf("reading a secret: there is no environment variable %s", f.env))
		}
		secret, err = knockcore.ParseSecret(strings.TrimSpace(text))
	case "--secret-stdin":
		secret, err = a.askSecret(cmd)
	default:
		if path, ok := strings.CutPrefix(f.text, "file:"); ok {
			secret, err = secretFile(cmd, path, f.anyMode)
			break
		}
		warn(cmd, "--secret shows the secret to everybody who can list processes; --secret-file does not")
		secret, err = knockcore.ParseSecret(f.text)
	}
	if err == nil && secret.IsZero() {
		err = fmt.Errorf("reading a secret: %s is empty", given[0])
	}
	var known *failure
	if err != nil && !errors.As(err, &known) {
		err = configError(err)
	}
	return secret, err
}

func secretFile(cmd *cobra.Command, path string, anyMode bool) (knockcore.Secret, error) {
	secret, err := knockclient.ReadSecretFile(path, anyMode)
	var mode *knockclient.FileModeError
	if errors.As(err, &mode) && cmd.Flags().Lookup(insecureFileMode) != nil {
		f := configError(err)
		f.hint = "If it must be so (a secret mounted in a container), give --" + insecureFileMode + "."
		return secret, f
	}
	return secret, err
}

// askSecret reads a secret from standard input: without echo from a terminal,
// otherwise the first line.
func (a *app) askSecret(cmd *cobra.Command) (knockcore.Secret, error) {
	var line string
	var err error
	if f, ok := a.stdin().(*os.File); ok && isTerminal(f) {
		fmt.Fprint(cmd.ErrOrStderr(), "Secret: ")
		var b []byte
		b, err = term.ReadPassword(int(f.Fd()))
		line = string(b)
		fmt.Fprintln(cmd.ErrOrStderr())
	} else {
		line, err = bufio.NewReader(io.LimitReader(a.stdin(), 64<<10)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return knockcore.Secret{}, fmt.Errorf("reading a secret from standard input: %w", err)
	}
	return knockcore.ParseSecret(strings.TrimSpace(line))
}
