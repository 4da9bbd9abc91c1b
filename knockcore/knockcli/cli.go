// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Options are what a host of the command tree decides. The zero value is that of
// the standalone client.
type Options struct {
	// Name is how users call the tree, as in examples and advice; "" means
	// caddy-knock.
	Name string
	// Version is what `version` tells; "" means that of the build.
	Version string
	// In, Out and Err are the standard streams; nil means those of the process.
	In       io.Reader
	Out, Err io.Writer
	// Commands are the host's own, such as `demo` and `status` of Caddy's. Their
	// errors are handled as those of the others, with exit code 1.
	Commands []*cobra.Command
	// Exit, if set, turns a failure into the error that the command returns, for
	// hosts with exit codes of their own. The error was printed already and is
	// never nil; it may be returned as it is.
	Exit func(cmd *cobra.Command, code int, err error) error
}

// app is one command tree.
type app struct {
	Options
	top *cobra.Command // caddy-knock, or the command that AddTo was given
}

// New makes the whole command tree. For running it, see Run.
func New(opts Options) *cobra.Command {
	root := &cobra.Command{
		Use:           "caddy-knock",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	AddTo(root, opts)
	return root
}

// AddTo makes parent the top of the command tree: it gets the commands, and
// descriptions where it has none.
func AddTo(parent *cobra.Command, opts Options) {
	if opts.Name == "" {
		opts.Name = "caddy-knock"
	}
	a := &app{opts, parent}
	if opts.In != nil {
		parent.SetIn(opts.In)
	}
	if opts.Out != nil {
		parent.SetOut(opts.Out)
	}
	if opts.Err != nil {
		parent.SetErr(opts.Err)
	}
	if parent.Short == "" {
		parent.Short = "Reach services that stay closed until you knock"
	}
	if parent.Long == "" {
		parent.Long = a.text(topLong)
	}
	if parent.Example == "" {
		parent.Example = a.text(topExample)
	}
	a.group(parent)
	parent.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return a.fail(cmd, usageError(err)) })
	for _, cmd := range opts.Commands {
		if run := cmd.RunE; run != nil {
			cmd.RunE = a.run(run)
		}
	}
	parent.AddCommand(
		a.connectCommand(), a.forwardCommand(), a.sendCommand(), a.openCommand(), a.closeCommand(),
		a.httpCommand(), a.joinCommand(), a.sshConfigCommand(), a.profileCommand(),
		a.keygenCommand(), a.hashKeyCommand(), a.inspectCommand(), a.manCommand(), a.versionCommand(),
	)
	parent.AddCommand(opts.Commands...)
}

const topLong = `Reach services that stay closed and silent until a client has proved itself.

A client has a name and a secret that the server knows too. The commands here
prove that at the head of a TCP connection and leave the connection to you.
Client, secret and server can be kept in a profile, so that

  {cmd} connect alice@ssh.example.org:2222

needs no flags.

Exit codes:
  0  done
  1  failed: the connection broke, or what was looked at is not good
  2  wrong usage
  3  profile or secret is missing or not usable
  4  server can't be reached
  5  server did not prove itself: it refused, or it is somebody else`

const topExample = `  # on the server: a secret, and the lines for the Caddyfile
  {cmd} keygen --client alice --server ssh.example.org:2222

  # on the client: keep what keygen made, the secret is asked for
  {cmd} profile add alice --server ssh.example.org:2222

  # ssh that knocks by itself
  {cmd} ssh-config alice@ssh.example.org:2222 >> ~/.ssh/config`

// Run executes the command tree of the standalone client and returns the exit
// code.
func Run(ctx context.Context, args []string, opts Options) int {
	root := New(opts)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	var failure *failure
	if !errors.As(err, &failure) { // what cobra finds itself is about usage
		failure = usageError(err)
		printFailure(root, failure)
	}
	return failure.code
}

// text puts the name of the tree in a text.
func (a *app) text(s string) string { return strings.ReplaceAll(s, "{cmd}", a.Name) }

// command makes a command of the tree.
func (a *app) command(cmd cobra.Command, args cobra.PositionalArgs, run func(*cobra.Command, []string) error) *cobra.Command {
	cmd.Long, cmd.Example = a.text(cmd.Long), a.text(strings.Trim(cmd.Example, "\n"))
	cmd.DisableFlagsInUseLine = true
	cmd.Args = func(cmd *cobra.Command, list []string) error {
		if err := args(cmd, list); err != nil {
			return a.fail(cmd, usageError(err))
		}
		return nil
	}
	cmd.RunE = a.run(run)
	return &cmd
}

// group makes a command that only has subcommands answer to wrong ones.
func (a *app) group(cmd *cobra.Command) {
	if cmd.Runnable() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.DisableFlagsInUseLine = true
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := usagef("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err.hint = "Did you mean " + strings.Join(near, " or ") + "?"
		}
		return a.fail(cmd, err)
	}
}

// run makes errors failures: printed, with an exit code.
func (a *app) run(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return a.fail(cmd, asFailure(err))
		}
		return nil
	}
}

func (a *app) fail(cmd *cobra.Command, f *failure) error {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	printFailure(cmd, f)
	if a.Exit != nil {
		return a.Exit(cmd, f.code, f)
	}
	return f
}

// stdin returns standard input as what it is, so that copying can take short
// cuts.
func (a *app) stdin() io.Reader {
	if a.In != nil {
		return a.In
	}
	return os.Stdin
}

func (a *app) stdout() io.Writer {
	if a.Out != nil {
		return a.Out
	}
	return os.Stdout
}
