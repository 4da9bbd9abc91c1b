// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// timeNow is the clock where no flag sets one.
var timeNow = time.Now

// inspection is what an inspector gets.
type inspection struct {
	method   knockcore.Method
	client   *knockcore.Client
	port     uint16
	at       int64 // Unix milliseconds
	window   time.Duration
	hintNone bool
	frame    []byte
}

// inspectors decode and verify one frame of their methods. The result is printed
// as JSON; the error wraps a knockcore.Reason.
var inspectors = map[knockcore.Method]func(*inspection) (any, error){
	knockcore.MethodFrameV1:    inspectTCP,
	knockcore.MethodEnvelopeV2: inspectTCP,
}

// inspectFlags are the flags of the command.
type inspectFlags struct {
	method, client, hint string
	port                 uint16
	at                   int64
	window               time.Duration
	verbose              bool
	secret               string
}

func (a *app) inspectCommand() *cobra.Command {
	var flags inspectFlags
	cmd := a.command(cobra.Command{
		Use:   "inspect --client ID --secret SECRET --port PORT [flags] HEX...",
		Short: "Decode and verify one recorded frame",
		Long: `Decode and verify one frame, given in hexadecimal (blanks do not matter; - means
standard input), and print one line of JSON:

  {"ok":true,"method":"tcp-auth-envelope-v2","client":"alice","port":2222,
   "timestamp_ms":1767225600000,"flags":0,"knock_method":"","session":"",
   "extensions":"","nonce":"06df…"}

and exit 0, or {"ok":false,"reason":"auth_failed"} and exit 1. Session,
extensions and nonce are hexadecimal; flag 1 asks for a server proof. Bytes behind
the frame belong to the application; they follow as "trailing". Replays can't be
known here.

Reasons are those of the server's log and metrics: malformed, unsupported,
unknown_client (the frame fits no secret of this client and port), auth_failed
(its hint does, but nothing else), wrong_port, stale, future.`,
		Example: `
  {cmd} inspect --client alice --secret file:alice.key --port 2222 06dfc57e9a72…

  # as of the time when it was recorded
  {cmd} inspect --method tcp-auth-frame-v1 --client alice --secret hex:25025e2c… \
      --port 9000 --at 1767225600000 - < frame.hex`,
	}, cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.inspect(cmd, args, &flags) })
	fs := cmd.Flags()
	fs.StringVar(&flags.method, "method", knockcore.MethodEnvelopeV2.String(), "the frame's `method`: "+strings.Join(inspectorNames(), " or "))
	fs.StringVar(&flags.client, "client", "", "the client's `ID` (required)")
	fs.StringVar(&flags.secret, "secret", "", "the client's `secret`, of any length: hex:…, base64:…, file:PATH or text (required)")
	fs.Uint16Var(&flags.port, "port", 0, "the protected `port` (required)")
	fs.Int64Var(&flags.at, "at", 0, "the server's clock in `UNIX_MS` (default now)")
	fs.DurationVar(&flags.window, "window", knockcore.DefaultWindow, "by how much the frame's time may differ, both ends included")
	fs.StringVar(&flags.hint, "hint", knockclient.HintModeRoute, "hint `mode` of envelopes v2: route-hint or none")
	fs.BoolVarP(&flags.verbose, "verbose", "v", false, "tell more of a refusal on standard error")
	return cmd
}

func inspectorNames() []string {
	var names []string
	for _, m := range knockcore.AllMethods.Methods() {
		if inspectors[m] != nil {
			names = append(names, m.String())
		}
	}
	return names
}

func (a *app) inspect(cmd *cobra.Command, args []string, flags *inspectFlags) error {
	for _, name := range []string{"client", "secret", "port"} {
		if !cmd.Flags().Changed(name) {
			return usagef("--%s is missing", name)
		}
	}
	method, err := knockcore.ParseMethod(flags.method)
	if err != nil || inspectors[method] == nil {
		return usagef("inspect does not know method %q; expect %s", flags.method, strings.Join(inspectorNames(), " or "))
	}
	hintNone, err := knockclient.ParseHint(flags.hint)
	if err != nil {
		return usageError(err)
	}
	if flags.window < 0 {
		return usagef("--window can't be negative")
	}
	secret, err := inspectSecret(flags.secret)
	if err != nil {
		return configError(err)
	}
	text := strings.Join(args, " ")
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
		if err != nil {
			return fmt.Errorf("reading the frame from standard input: %w", err)
		}
		text = string(b)
	}
	in := inspection{
		method: method, port: flags.port, at: flags.at, window: flags.window, hintNone: hintNone,
		client: &knockcore.Client{ID: flags.client, Secrets: []knockcore.Secret{secret}},
	}
	if !cmd.Flags().Changed("at") {
		in.at = timeNow().UnixMilli()
	}
	result, err := in.run(text)
	if err == nil {
		return printJSON(cmd, result)
	}
	if flags.verbose {
		fmt.Fprintln(cmd.ErrOrStderr(), err)
	}
	if err := printJSON(cmd, refused{Reason: knockcore.ReasonOf(err).String()}); err != nil {
		return err
	}
	return &failure{code: ExitFailed, err: errRefused, silent: true}
}

// inspectSecret reads a secret of any length, from files of any mode: nothing is
// opened with it.
func inspectSecret(text string) (knockcore.Secret, error) {
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		return knockclient.ReadSecretFile(path, true)
	}
	return knockcore.ParseSecret(text)
}

func (in *inspection) run(text string) (result any, err error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	if in.frame, err = hex.DecodeString(text); err != nil {
		return nil, &knockcore.Refusal{Reason: knockcore.ReasonMalformed, Detail: "the frame is not hexadecimal"}
	}
	return inspectors[in.method](in)
}

// refused is printed for a frame that is not good.
type refused struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
}

// printJSON prints one line.
func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// inTime compares the frame's time with the clock, window included.
func (in *inspection) inTime(timestamp int64) error {
	window := uint64(in.window.Milliseconds())
	switch { // the differences are right as unsigned numbers, whatever overflows
	case timestamp < in.at && uint64(in.at)-uint64(timestamp) > window:
		return &knockcore.Refusal{Reason: knockcore.ReasonStale, Client: in.client.ID, Detail: fmt.Sprintf("made %d ms ago", uint64(in.at)-uint64(timestamp))}
	case timestamp > in.at && uint64(timestamp)-uint64(in.at) > window:
		return &knockcore.Refusal{Reason: knockcore.ReasonFuture, Client: in.client.ID, Detail: fmt.Sprintf("made in %d ms", uint64(timestamp)-uint64(in.at))}
	default:
		return nil
	}
}
