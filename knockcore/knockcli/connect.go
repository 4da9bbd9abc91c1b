// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) connectCommand() *cobra.Command {
	var flags authFlags
	cmd := a.command(cobra.Command{
		Use:   "connect " + targetUsage + " [PORT] [flags]",
		Short: "Authenticate, then connect standard input and output",
		Long: `Connect to a guarded service, authenticate, and relay standard input to it and
its answer to standard output. The end of standard input is passed on, and the
rest of the answer still comes. Made to be the ProxyCommand of ssh.

Client, secret and the rest come from a profile: with CLIENT@HOST the one named
CLIENT@HOST or CLIENT, with HOST alone the one for that server. All addresses of
HOST are tried.

It exits 0 when the stream ended well, 1 when it broke or when the server closed
it without a byte, 2 for wrong usage, 3 for a profile or secret that can't be
used, 4 if no connection could be made, 5 if the server did not prove itself.`,
		Example: `
  # with a profile made by keygen --save or profile add
  {cmd} connect alice@ssh.example.org:2222

  # in ~/.ssh/config (see also: {cmd} ssh-config)
  ProxyCommand {cmd} connect alice@%h %p

  # once, without a profile
  {cmd} connect --client alice --secret-file alice.key ssh.example.org:2222

  # a request, and its whole answer
  printf 'GET / HTTP/1.0\r\n\r\n' | {cmd} connect alice@web.example.org:8080`,
	}, cobra.RangeArgs(0, 2), func(cmd *cobra.Command, args []string) error { return a.connect(cmd, args, &flags) })
	flags.add(cmd, false)
	a.completeTargets(cmd)
	return cmd
}

func (a *app) connect(cmd *cobra.Command, args []string, flags *authFlags) error {
	var t target
	var err error
	if len(args) > 0 {
		if t, err = parseTarget(args); err != nil {
			return err
		}
	}
	s, err := a.resolve(cmd, t, flags)
	if err != nil {
		return err
	}
	conn, err := s.dialer.DialContext(cmd.Context(), s.network, s.address)
	if err != nil {
		return s.dialError(err)
	}
	defer conn.Close()
	in, out := a.stdin(), a.stdout()
	f, ok := in.(*os.File)
	err = relayStreams(conn, in, out, ok && isTerminal(f))
	var file *fs.PathError
	switch {
	case errors.Is(err, errNoAnswer):
		return s.noAnswer(err)
	case errors.As(err, &file) && errors.Is(file, syscall.EPIPE):
		// Who reads our output has enough. That is no news.
		return &failure{code: ExitFailed, err: err, silent: true}
	default:
		return err
	}
}

// dialError says what to check when there is no connection, or no proof.
func (s *session) dialError(err error) error {
	f := &failure{code: ExitFailed, err: err}
	var op *net.OpError
	switch {
	case errors.Is(err, knockclient.ErrWrongProof), errors.Is(err, knockclient.ErrNoProof):
		f.code, f.hint = ExitProof, s.refusalAdvice()+"\nA server that gives no proofs closes too: try --server-proof=false."
	case errors.Is(err, knockclient.ErrNotSent):
		f.code, f.hint = ExitUnreachable, "Is the host name right, and is there a route to it?"
	case errors.As(err, &op) && op.Op == "dial" && s.dialer.Opening != nil:
		f.code, f.hint = ExitUnreachable, s.closedAdvice()
	case errors.As(err, &op) && op.Op == "dial":
		f.code, f.hint = ExitUnreachable, "Is the host name right, is the server running, and may you reach its port?"
	}
	return f
}

// noAnswer says what to check when the server closed without a byte.
func (s *session) noAnswer(err error) error {
	f := &failure{code: ExitFailed, err: fmt.Errorf("connection to %s: %w", s.address, err)}
	if s.dialer.Config.ServerProof {
		f.hint = "The server knew the client and let it in. Does the service behind it run?"
	} else {
		f.hint = s.refusalAdvice() + "\nWith --server-proof a refusal is told from a service that says nothing."
	}
	return f
}

func (s *session) refusalAdvice() string {
	protected := "the port that you connect to"
	if port := s.dialer.Config.Port; port != 0 {
		protected = fmt.Sprint("port ", port)
	}
	return fmt.Sprintf(`If the server refused, check: that it knows client %s with this secret and method,
that the clock is right (now %s), and that it protects %s
(else give its port with --port).`, s.dialer.Config.ClientID, timeNow().UTC().Format("15:04:05 MST"), protected)
}

// closedAdvice says what to check when a knock opened nothing.
func (s *session) closedAdvice() string {
	return fmt.Sprintf(`Nobody answers to knocks. If this one opened nothing, check: that the server listens
for this method on this UDP port, that it knows the client with this secret, that the
clock is right (now %s), and that the service is running.`, timeNow().UTC().Format("15:04:05 MST"))
}

// errNoAnswer is an end of the stream without a byte while we still had
// something to say.
var errNoAnswer = errors.New("the server closed it without sending anything")

// relayStreams copies in to conn and conn to out until both have ended, passing
// on the end of either. If in is a person, the end of conn ends it all.
func relayStreams(conn net.Conn, in io.Reader, out io.Writer, person bool) error {
	sent := make(chan error, 1) // buffered: a read of in that never ends is left behind
	go func() {
		_, err := io.Copy(conn, in)
		sent <- err // before the server can know
		if err == nil {
			closeWrite(conn)
		}
	}()
	n, err := io.Copy(out, conn)
	if err != nil {
		return streamError("receiving", err, n == 0)
	}
	select {
	case err := <-sent:
		return streamError("sending", err, n == 0)
	default:
	}
	switch {
	case n == 0:
		return errNoAnswer
	case person:
		return nil
	}
	// The server has said all; what reads our output should know, and may still
	// have something to say.
	if c, ok := out.(io.Closer); ok {
		_ = c.Close()
	}
	return streamError("sending", <-sent, false)
}

// streamError tells our own files' errors from those of the connection, which
// before the first byte mean that there was no answer.
func streamError(doing string, err error, first bool) error {
	var file *fs.PathError
	switch {
	case err == nil:
		return nil
	case first && (!errors.As(err, &file) || resetByServer(err)):
		return fmt.Errorf("%w (%s: %w)", errNoAnswer, doing, err)
	case resetByServer(err):
		return fmt.Errorf("the server ended the connection (connection reset): %s: %w", doing, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// resetByServer tells a reset of the connection from one of our own files; an error of
// splice bears the name of the file that it was to write to.
func resetByServer(err error) bool {
	var file *fs.PathError
	var call *os.SyscallError
	return errors.Is(err, syscall.ECONNRESET) && (!errors.As(err, &file) || errors.As(err, &call) && call.Syscall == "splice")
}

// closeWrite passes on the end of a stream, if the connection can.
func closeWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
