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
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
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
	hmac     knockcore.Secret // of fwknop
	hmacType string
	// Of crafted SYNs: the slot's length, part (-1 for any) and number of parts.
	slot         time.Duration
	index, total int
	legacy       bool
	frame        []byte
}

// inspector is how frames of a method are looked into.
type inspector struct {
	// run decodes and verifies one frame. The result is printed as JSON; the error
	// wraps a knockcore.Reason.
	run func(*inspection) (any, error)
	// secret reads the secret's text.
	secret func(string) (knockcore.Secret, error)
	// needs are the flags that must be given.
	needs []string
	// window is the default of --window.
	window time.Duration
}

var (
	inspectTCPFrames = inspector{inspectTCP, knockcore.ParseSecret, []string{"client", "secret", "port"}, knockcore.DefaultWindow}
	inspectDatagrams = inspector{inspectDatagram, knockcore.ParseSecret, []string{"client", "secret", "port"}, knockcore.DefaultWindow}
	inspectSYNs      = inspector{inspectSYN, knockcore.ParseSecret, []string{"client", "secret", "port"}, knockcore.DefaultWindow}

	inspectors = map[knockcore.Method]inspector{
		knockcore.MethodFrameV1:       inspectTCPFrames,
		knockcore.MethodEnvelopeV2:    inspectTCPFrames,
		knockcore.MethodUDP:           inspectDatagrams,
		knockcore.MethodUDPSeq:        inspectDatagrams,
		knockcore.MethodUDPPassive:    inspectDatagrams,
		knockcore.MethodUDPPassiveSeq: inspectDatagrams,
		knockcore.MethodTCPSYN:        inspectSYNs,
		knockcore.MethodTCPSYNSeq:     inspectSYNs,
		knockcore.MethodPyknock:       {inspectPyknock, wire.ParsePyknockKey, []string{"secret"}, wire.DefaultPyknockWindow},
		knockcore.MethodFwknop:        {inspectFwknop, wire.ParseFwknopKey, []string{"secret"}, fwknopWindow},
	}
)

// fwknopWindow is fwknopd's own.
const fwknopWindow = 2 * time.Minute

// inspectFlags are the flags of the command.
type inspectFlags struct {
	method, client, hint string
	port                 uint16
	at                   int64
	window               time.Duration
	verbose              bool
	secret               string
	hmacSecret, hmac     string
	slot                 time.Duration
	index, total         int
	legacy               bool
}

func (a *app) inspectCommand() *cobra.Command {
	var flags inspectFlags
	cmd := a.command(cobra.Command{
		Use:   "inspect [--method METHOD] [--client ID --port PORT] --secret SECRET [flags] HEX...",
		Short: "Decode and verify one recorded frame or datagram",
		Long: `Decode and verify one frame or datagram, given in hexadecimal (blanks do not
matter; - means standard input), and print one line of JSON:

  {"ok":true,"method":"tcp-auth-envelope-v2","client":"alice","port":2222,
   "timestamp_ms":1767225600000,"flags":0,"knock_method":"","session":"",
   "extensions":"","nonce":"06df…"}

and exit 0, or {"ok":false,"reason":"auth_failed"} and exit 1. Session,
extensions and nonce are hexadecimal. Flag 1 of a TCP frame asks for a server
proof; bytes behind it belong to the application and follow as "trailing". Parts
of a datagram sequence have "sequence_id", "index" and "total".

A pyknock datagram has "action" (open or close), "address" and "family"; a fwknop
packet "address", "ports", "timeout_s", "user", "message_type" and "nat". They
name no client and no protected port, so that only --secret is needed, which is
the pre-shared key, or fwknop's encryption key beside --hmac-secret.

Of tcp-syn and tcp-syn-seq, HEX is the IP packet of one SYN. It is looked for in
the slot of --at and the ones before and after; there are "slot", "source" and the
fields of TCP, and of a sequence "index" and "total".

Methods are tcp-auth-frame-v1, tcp-auth-envelope-v2, udp, udp-seq, udp-passive,
udp-passive-seq, tcp-syn, tcp-syn-seq, pyknock and fwknop; a frame made for another one is refused.
Reasons are those of the server's log and metrics: malformed, unsupported,
unknown_client (the frame fits no secret of this client and port), auth_failed
(its hint does, but nothing else), wrong_port, wrong_method, stale, future.
Replays, and what the server's policy allows, can't be known here.`,
		Example: `
  {cmd} inspect --client alice --secret file:alice.key --port 2222 06dfc57e9a72…

  # as of the time when it was recorded
  {cmd} inspect --method udp --client alice --secret hex:25025e2c… \
      --port 9000 --at 1767225600000 - < frame.hex

  # a packet of fwknop's client
  {cmd} inspect --method fwknop --secret base64:KLO5… --hmac-secret base64:4hin… \
      "$(printf %s "$packet" | xxd -p)"`,
	}, cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.inspect(cmd, args, &flags) })
	fs := cmd.Flags()
	fs.StringVar(&flags.method, "method", knockcore.MethodEnvelopeV2.String(), "the frame's `method`, as above")
	fs.StringVar(&flags.client, "client", "", "the client's `ID` (required but for pyknock and fwknop)")
	fs.StringVar(&flags.secret, "secret", "", "the client's `secret`, of any length: hex:…, base64:…, file:PATH or text (required)")
	fs.StringVar(&flags.hmacSecret, "hmac-secret", "", "fwknop: the HMAC `key`, written as --secret is")
	fs.StringVar(&flags.hmac, "hmac", "sha256", "fwknop: the `digest` of the HMAC")
	fs.Uint16Var(&flags.port, "port", 0, "the protected `port` (required but for pyknock and fwknop)")
	fs.Int64Var(&flags.at, "at", 0, "the server's clock in `UNIX_MS` (default now)")
	fs.DurationVar(&flags.window, "window", knockcore.DefaultWindow, "by how much the frame's time may differ, both ends\nincluded; 1m for pyknock and 2m for fwknop if not given")
	fs.StringVar(&flags.hint, "hint", knockclient.HintModeRoute, "hint `mode` of envelopes v2: route-hint or none")
	fs.DurationVar(&flags.slot, "slot", knockclient.DefaultSlot, "tcp-syn, tcp-syn-seq: how long a knock is the same")
	fs.IntVar(&flags.index, "index", -1, "tcp-syn-seq: refuse all but this `part`, counted from 0")
	fs.IntVar(&flags.total, "total", wire.DefaultSequenceLength, "tcp-syn-seq: the `number` of parts, 2 to 5")
	fs.BoolVar(&flags.legacy, "legacy", false, "tcp-syn-seq: know also the parts that libknock's predecessor sends")
	fs.BoolVarP(&flags.verbose, "verbose", "v", false, "tell more of a refusal on standard error")
	return cmd
}

func inspectorNames() []string {
	var names []string
	for _, m := range knockcore.AllMethods.Methods() {
		if inspectors[m].run != nil {
			names = append(names, m.String())
		}
	}
	return names
}

func (a *app) inspect(cmd *cobra.Command, args []string, flags *inspectFlags) error {
	method, err := knockcore.ParseMethod(flags.method)
	inspector := inspectors[method]
	if err != nil || inspector.run == nil {
		return usagef("inspect does not know method %q; expect one of %s", flags.method, strings.Join(inspectorNames(), ", "))
	}
	for _, name := range inspector.needs {
		if !cmd.Flags().Changed(name) {
			return usagef("--%s is missing", name)
		}
	}
	hintNone, err := knockclient.ParseHint(flags.hint)
	if err != nil {
		return usageError(err)
	}
	if flags.hmac != "" && wire.ValidateFwknopKeys(fwknopKeysOf(flags.hmac)) != nil {
		return usagef("fwknop has no HMAC digest %q; expect md5, sha1, sha256, sha384, sha512, sha3_256 or sha3_512", flags.hmac)
	}
	switch {
	case flags.slot < time.Second || flags.slot%time.Second != 0:
		return usagef("--slot has whole seconds")
	case flags.total < wire.MinSYNSequence || flags.total > wire.MaxSYNSequence:
		return usagef("--total is %d to %d", wire.MinSYNSequence, wire.MaxSYNSequence)
	}
	if flags.window < 0 {
		return usagef("--window can't be negative")
	}
	if !cmd.Flags().Changed("window") {
		flags.window = inspector.window
	}
	secret, err := inspectSecret(flags.secret, inspector.secret)
	if err != nil {
		return configError(err)
	}
	hmacSecret, err := inspectSecret(flags.hmacSecret, inspector.secret)
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
		hmac: hmacSecret, hmacType: flags.hmac,
		slot: flags.slot, index: flags.index, total: flags.total, legacy: flags.legacy,
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
func inspectSecret(text string, parse func(string) (knockcore.Secret, error)) (knockcore.Secret, error) {
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		return knockclient.ReadKeyFile(path, true, parse)
	}
	return parse(text)
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
	return inspectors[in.method].run(in)
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
