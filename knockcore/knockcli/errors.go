// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// The exit codes of all commands.
const (
	// ExitOK means that what was asked for was done.
	ExitOK = 0
	// ExitFailed means that a connection broke, or that what was looked at is not
	// good.
	ExitFailed = 1
	// ExitUsage means a wrong command line.
	ExitUsage = 2
	// ExitConfig means that a profile or secret is missing or not usable.
	ExitConfig = 3
	// ExitUnreachable means that no connection to the server could be made.
	ExitUnreachable = 4
	// ExitProof means that the server did not prove itself: it refused the frame,
	// or it is not the server.
	ExitProof = 5
)

// failure is an error with an exit code, and with advice on what to do.
type failure struct {
	code int
	err  error
	hint string
	// silent failures have said what they had to say on standard output.
	silent bool
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func usageError(err error) *failure { return &failure{code: ExitUsage, err: err} }

func usagef(format string, args ...any) *failure { return usageError(fmt.Errorf(format, args...)) }

func configError(err error) *failure { return &failure{code: ExitConfig, err: err} }

// asFailure gives errors that have none the exit code of a failure.
func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{code: ExitFailed, err: err}
}

var errRefused = errors.New("refused")

// printFailure prints a failure on the command's standard error.
func printFailure(cmd *cobra.Command, f *failure) {
	if f.silent {
		return
	}
	w := cmd.ErrOrStderr()
	fmt.Fprintln(w, prefix(w, cmd, "31")+f.Error())
	for line := range strings.Lines(f.hint) {
		fmt.Fprintln(w, "  "+strings.TrimSuffix(line, "\n"))
	}
	if f.code == ExitUsage {
		fmt.Fprintf(w, "  See: %s --help\n", cmd.CommandPath())
	}
}

// warn prints a warning on the command's standard error.
func warn(cmd *cobra.Command, format string, args ...any) {
	w := cmd.ErrOrStderr()
	fmt.Fprintln(w, prefix(w, cmd, "33")+"warning: "+fmt.Sprintf(format, args...))
}

// prefix is the name of the program, in an ANSI colour on terminals.
func prefix(w io.Writer, cmd *cobra.Command, colour string) string {
	name := cmd.Root().Name() + ":"
	if f, ok := w.(*os.File); ok && isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		name = "\x1b[" + colour + "m" + name + "\x1b[0m"
	}
	return name + " "
}

// isTerminal asks without changing the mode of the file, as File.Fd may.
func isTerminal(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	terminal := false
	_ = raw.Control(func(fd uintptr) { terminal = term.IsTerminal(int(fd)) })
	return terminal
}
