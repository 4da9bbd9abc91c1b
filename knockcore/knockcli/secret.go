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
	// prefix stands before the names of the flags: "hmac-" for fwknop's HMAC key.
	prefix string
	// parse reads the text of a secret; nil means knockcore.ParseSecret.
	parse func(text string) (knockcore.Secret, error)
}

func (f *secretFlags) read(text string) (knockcore.Secret, error) {
	if f.parse != nil {
		return f.parse(text)
	}
	return knockcore.ParseSecret(text)
}

// given lists the flags that give a secret.
func (f *secretFlags) given(cmd *cobra.Command) (names []string) {
	for _, name := range []string{"secret-file", "secret-env", "secret-stdin", "secret"} {
		if flag := cmd.Flags().Lookup(f.prefix + name); flag != nil && flag.Changed {
			names = append(names, "--"+f.prefix+name)
		}
	}
	return names
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
	given := f.given(cmd)
	if len(given) > 1 {
		return secret, usagef("there are several secrets: %s; give one", strings.Join(given, ", "))
	}
	if len(given) == 0 {
		return secret, nil
	}
	switch strings.Replace(given[0], f.prefix, "", 1) {
	case "--secret-file":
		secret, err = secretFile(cmd, f.file, f)
	case "--secret-env":
		text, ok := os.LookupEnv(f.env)
		if !ok {
			return secret, configError(fmt.Errorf("reading a secret: there is no environment variable %s", f.env))
		}
		secret, err = f.read(strings.TrimSpace(text))
	case "--secret-stdin":
		secret, err = a.askSecret(cmd)
	default:
		if path, ok := strings.CutPrefix(f.text, "file:"); ok {
			secret, err = secretFile(cmd, path, f)
			break
		}
		warn(cmd, "%s shows the secret to everybody who can list processes; --%ssecret-file does not", given[0], f.prefix)
		secret, err = f.read(f.text)
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

func secretFile(cmd *cobra.Command, path string, flags *secretFlags) (knockcore.Secret, error) {
	secret, err := knockclient.ReadKeyFile(path, flags.anyMode, flags.read)
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
	line, err := a.askLine(cmd, "Secret")
	if err != nil {
		return knockcore.Secret{}, err
	}
	return knockcore.ParseSecret(line)
}

// askKey is askSecret for API keys, whose text is the key.
func (a *app) askKey(cmd *cobra.Command) (knockcore.Secret, error) {
	line, err := a.askLine(cmd, "API key")
	return knockcore.NewSecret([]byte(line)), err
}

func (a *app) askLine(cmd *cobra.Command, what string) (string, error) {
	var line string
	var err error
	if f, ok := a.stdin().(*os.File); ok && isTerminal(f) {
		fmt.Fprint(cmd.ErrOrStderr(), what+": ")
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
		return "", fmt.Errorf("reading a secret from standard input: %w", err)
	}
	return strings.TrimSpace(line), nil
}
