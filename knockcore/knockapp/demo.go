// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/examples"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Shows what strangers and clients see, on loopback",
		Long: `
Runs the Caddyfile of examples/quickstart on loopback, with free ports, a
temporary folder and a stand-in for the guarded service, and tries it: as a
stranger, as somebody who replays a captured frame, as somebody who says nothing,
and as the client. The exit status is 0 only if each saw what it should.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runDemo(ctx, cmd.OutOrStdout(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "Leave it running and print what to type next")
	return cmd
}

// The stand-ins' words.
const (
	demoGreeting = "SSH-2.0-guarded-service\r\n"
	demoCover    = "It works!"
)

// demo is a running demonstration.
type demo struct {
	dir, keyFile   string
	listen, cover  string
	secret         knockcore.Secret
	service        net.Listener
	client         knockclient.Dialer
	lastClientSees string
}

func runDemo(ctx context.Context, out io.Writer, keep bool) error {
	d, err := startDemo()
	if err != nil {
		return err
	}
	defer d.stop()
	fmt.Fprintf(out, "Caddy guards a service on %s, from examples/quickstart/Caddyfile.\n\n", d.listen)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO COMES\tWHAT THEY SEE\tAS IT SHOULD BE")
	var failed []string
	for _, visit := range []struct {
		who  string
		goes func(context.Context) (saw string, right bool, err error)
	}{
		{"a stranger with a web browser", d.stranger},
		{"a scanner that sends garbage", d.garbage},
		{"a client, alice", d.alice},
		{"an eavesdropper who replays alice's frame", d.replay},
		{"somebody who says nothing for 3 seconds", d.silence},
	} {
		saw, right, err := visit.goes(ctx)
		mark := "yes"
		if err != nil {
			saw, right = err.Error(), false
		}
		if !right {
			mark = "NO"
			failed = append(failed, visit.who)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", visit.who, saw, mark)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(failed, "; "))
	}
	fmt.Fprintln(out, "\nAll as it should be.")
	if keep {
		d.explain(out)
		<-ctx.Done()
	}
	return nil
}

// startDemo runs Caddy and the guarded service.
func startDemo() (d *demo, err error) {
	d = new(demo)
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "caddy-knock-demo-"); err != nil {
		return d, err
	}
	// The store and whatever else Caddy keeps go there too.
	if err := os.Setenv("XDG_DATA_HOME", d.dir); err != nil {
		return d, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	d.secret = knockcore.NewSecret(key)
	d.keyFile = filepath.Join(d.dir, "alice.key")
	if err := os.WriteFile(d.keyFile, []byte("base64:"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		return d, err
	}
	if d.service, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return d, err
	}
	go serveDemo(d.service)
	admin, err := freeAddress()
	if err != nil {
		return d, err
	}
	if d.listen, err = freeAddress(); err != nil {
		return d, err
	}
	if d.cover, err = freeAddress(); err != nil {
		return d, err
	}
	d.client = knockclient.Dialer{Config: knockclient.Config{ClientID: "alice", Secret: d.secret, ServerProof: true}}
	return d, loadQuickstart(map[string]string{
		"localhost:2019":             admin,
		"/etc/caddy/knock/alice.key": filepath.ToSlash(d.keyFile),
		"tcp/2222":                   "tcp/" + portText(d.listen),
		"\t\t:2222 {":                "\t\t" + d.listen + " {",
		"127.0.0.1:22\n":             d.service.Addr().String() + "\n",
		"proxy 127.0.0.1:8080":       "proxy " + d.cover,
		"http://:8080 {":             "http://:" + portText(d.cover) + " {",
		"{\n\tadmin":                 "{\n\tauto_https off\n\tpersist_config off\n\tlog {\n\t\tlevel PANIC\n\t}\n\tadmin",
	})
}

// loadQuickstart runs the example with other addresses: each of the texts to
// replace stands in it exactly once.
func loadQuickstart(replace map[string]string) error {
	text := examples.Quickstart
	for from, to := range replace {
		if strings.Count(text, from) != 1 {
			return fmt.Errorf("%q does not stand exactly once in the example", from)
		}
		text = strings.Replace(text, from, to, 1)
	}
	cfg, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "examples/quickstart/Caddyfile"})
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

func (d *demo) stop() {
	_ = caddy.Stop()
	if d.service != nil {
		_ = d.service.Close()
	}
	if d.dir != "" {
		_ = os.RemoveAll(d.dir)
	}
}

// serveDemo is the guarded service: it greets and echoes.
func serveDemo(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, demoGreeting)
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// visit connects as somebody without a key, sends something and reports what
// comes back.
func (d *demo) visit(ctx context.Context, send []byte, halfClose bool) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write(send); err != nil {
		return "", err
	}
	if halfClose {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return "", err
		}
	}
	answer, err := io.ReadAll(conn)
	if len(answer) > 0 {
		err = nil // a cover may reset what it does not like
	}
	return string(answer), err
}

// judge tells the cover's answer from the service's.
func judge(answer string, err error) (string, bool, error) {
	switch {
	case err != nil:
		return "", false, err
	case strings.Contains(answer, "guarded-service"):
		return "the service!", false, nil
	case strings.HasSuffix(answer, demoCover):
		return "the cover: " + demoCover, true, nil
	case strings.HasPrefix(answer, "HTTP/1.1 400"):
		return "the cover: 400 Bad Request", true, nil
	default:
		return fmt.Sprintf("%.40q", answer), false, nil
	}
}

func (d *demo) stranger(ctx context.Context) (string, bool, error) {
	return judge(d.visit(ctx, []byte("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"), false))
}

func (d *demo) garbage(ctx context.Context) (string, bool, error) {
	return judge(d.visit(ctx, []byte(strings.Repeat("\x13\x37 let me in\r\n", 10)+"\r\n"), false))
}

// recorder keeps what a connection sent: the eavesdropper.
type recorder struct {
	net.Conn
	sent []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.sent = append(r.sent, b...)
	return r.Conn.Write(b)
}

func (r *recorder) CloseWrite() error { return r.Conn.(*net.TCPConn).CloseWrite() }

type recordingDialer struct{ last *recorder }

func (r *recordingDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	r.last = &recorder{Conn: conn}
	return r.last, nil
}

func (d *demo) alice(ctx context.Context) (string, bool, error) {
	eavesdropper := new(recordingDialer)
	d.client.Base = eavesdropper
	conn, err := d.client.DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	d.lastClientSees = string(eavesdropper.last.sent)
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", false, err
	}
	greeting := make([]byte, len(demoGreeting))
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return "", false, err
	}
	who, err := demoClient()
	if err != nil {
		return "", false, err
	}
	saw := fmt.Sprintf("the service: %s, admitted as %s", strings.TrimSpace(string(greeting)), who)
	return saw, string(greeting) == demoGreeting && who == "alice", nil
}

func demoApp() (*App, error) {
	mod, err := caddy.ActiveContext().AppIfConfigured("knock")
	if err != nil {
		return nil, err
	}
	return mod.(*App), nil
}

// demoClient asks the gatekeeper whom it admitted.
func demoClient() (string, error) {
	app, err := demoApp()
	if err != nil {
		return "", err
	}
	for _, grant := range app.Running().State().Grants(nil) {
		return grant.Client, nil
	}
	return "", errors.New("nobody is admitted")
}

func (d *demo) replay(ctx context.Context) (string, bool, error) {
	return judge(d.visit(ctx, []byte(d.lastClientSees+"\r\n\r\n"), true))
}

// silence says nothing until the handler has given up waiting for a frame, and
// then turns out to be a browser.
func (d *demo) silence(ctx context.Context) (string, bool, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	deadline := time.Now().Add(20 * time.Second)
	if err := conn.SetDeadline(deadline); err != nil {
		return "", false, err
	}
	app, err := demoApp()
	if err != nil {
		return "", false, err
	}
	for seen := false; ; { // first undecided, then decided
		undecided := app.Pending().Len() > 0
		if seen && !undecided {
			break
		}
		seen = seen || undecided
		select {
		case <-ctx.Done():
			return "", false, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return "", false, errors.New("nothing happened in 20 seconds")
		}
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", false, err
	}
	answer, err := io.ReadAll(conn)
	return judge(string(answer), err)
}

func (d *demo) explain(out io.Writer) {
	_, port, _ := net.SplitHostPort(d.listen)
	fmt.Fprintf(out, `
It is running. Try, in another terminal:

  curl http://%s/
      the cover, as everybody sees it
  caddy-knock connect --client alice --secret-file %s 127.0.0.1:%s
      the service; type a line and it comes back (`+"`go run ./knockcore/cmd/caddy-knock connect …`"+` from the source)

Ctrl-C ends it and removes %s.
`, d.listen, d.keyFile, port, d.dir)
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func portText(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
