// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
	"github.com/caddy-knock/caddy-knock/knockcore/knockcli"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { program.Main(m) }

const secretText = "base64:c29tZXRoaW5nIG9mIDMyIGJ5dGVzIGJ5IGtleWdlbiE="

var testSecret, _ = knockcore.ParseSecret(secretText)

// ownProfiles gives the test a folder of profiles of its own, also in the
// programs that it runs.
func ownProfiles(t *testing.T) knockclient.Profiles {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, dir)
	}
	profiles, err := knockclient.DefaultProfiles()
	if err != nil {
		t.Fatal(err)
	}
	return profiles
}

func saveProfile(t *testing.T, profiles knockclient.Profiles, name string, p knockclient.Profile) {
	t.Helper()
	if p.Client == "" {
		p.Client = "alice"
	}
	if p.Secret.IsZero() {
		p.Secret = testSecret
	}
	if err := profiles.Save(name, &p, true); err != nil {
		t.Fatal(err)
	}
}

// result is what a run of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// runIn runs the command tree in this process.
func runIn(t *testing.T, in string, args ...string) result {
	t.Helper()
	return runTree(t, strings.NewReader(in), args...)
}

// runTree is runProgram in this process, where the race detector sees it.
func runTree(t *testing.T, in io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := knockcli.Run(t.Context(), args, knockcli.Options{In: in, Out: &stdout, Err: &stderr})
	return result{code, stdout.String(), stderr.String()}
}

// runProgram runs the built program.
func runProgram(t *testing.T, in io.Reader, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program.Client(t), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want fails the test unless the run ended with the code, and each text stands
// in what it printed on standard error.
func (r result) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("Got exit code %d, want %d; standard error:\n%s", r.code, code, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("Standard error is\n%swithout %q", r.stderr, text)
		}
	}
	if strings.Contains(r.stderr, "c29tZXRoaW5n") || strings.Contains(r.stderr, "something of 32") {
		t.Errorf("Standard error tells the secret:\n%s", r.stderr)
	}
}

func TestHelp(t *testing.T) {
	commands := []string{
		"", "connect", "forward", "send", "open", "close", "ssh-config", "profile", "profile list", "profile show", "profile add", "profile remove",
		"keygen", "hash-key", "http", "http knock", "http watch", "http import", "join", "inspect", "man", "version",
	}
	for _, command := range commands {
		t.Run("help "+command, func(t *testing.T) {
			got := runIn(t, "", append(strings.Fields(command), "--help")...)
			got.want(t, knockcli.ExitOK)
			path := filepath.Join("testdata", "help", strings.ReplaceAll("caddy-knock "+command, " ", "-")+".txt")
			path = strings.Replace(path, "-.txt", ".txt", 1)
			if *update {
				if err := os.WriteFile(path, []byte(got.stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got.stdout != string(want) {
				t.Errorf("Help is\n%s\nwant (rewrite it with go test -update)\n%s", got.stdout, want)
			}
			for line := range strings.Lines(got.stdout) {
				if n := len([]rune(line)); n > 121 {
					t.Errorf("Line has %d characters: %s", n, line)
				}
			}
		})
	}
}

func TestUsage(t *testing.T) {
	ownProfiles(t)
	tests := []struct {
		args string
		code int
		text string
	}{
		{"", 0, ""},
		{"help connect", 0, ""},
		{"profile", 0, ""},
		{"completion bash", 0, ""},
		{"no-such-command", 2, `unknown command "no-such-command"`},
		{"conect", 2, "Did you mean connect?"},
		{"profile lst", 2, "See: caddy-knock profile --help"},
		{"connect --no-such-flag", 2, "unknown flag: --no-such-flag"},
		{"connect a b c", 2, "accepts between 0 and 2 arg(s)"},
		{"connect", 2, "nothing says where to connect to"},
		{"connect -4 -6 alice@h:1", 2, "exclude each other"},
		{"connect @h:1", 2, "no client stands before the @"},
		{"connect alice@h:0", 2, `"0" is not a port`},
		{"connect alice@h:1 2", 2, "two ports: 1 and 2"},
		{"connect alice@2001:db8::1:22", 2, "can't be told apart"},
		{"connect --secret-env A --secret-file B alice@h:1", 2, "several secrets: --secret-file, --secret-env"},
		{"connect --secret-env NO_SUCH_VARIABLE alice@h:1", 3, "no environment variable NO_SUCH_VARIABLE"},
		{"connect --secret-file /no/such/file alice@h:1", 3, "/no/such/file"},
		{"connect --secret 0123456789abcdef h:1", 2, "no client is named"},
		{"connect --secret hunter2 alice@h:1", 3, "has 7 bytes"},
		{"connect --secret hex:xyz alice@h:1", 3, "not hexadecimal"},
		{"connect --secret 0123456789abcdef alice@h", 2, "give HOST:PORT"},
		{"connect --secret 0123456789abcdef --method udp alice@h:1", 2, "no method of TCP frames"},
		{"connect --secret 0123456789abcdef --method v3 alice@h:1", 2, "unknown method"},
		{"connect --secret 0123456789abcdef --hint some alice@h:1", 2, "unknown hint mode"},
		{"connect --secret 0123456789abcdef --timeout -1s alice@h:1", 2, "negative"},
		{"connect --secret 0123456789abcdef --method tcp-auth-frame-v1 --hint none alice@h:1", 3, "always has a hint"},
		{"connect alice@h:1", 3, "caddy-knock profile add alice --server HOST:PORT"},
		{"connect h:1", 3, "there is none for server h"},
		{"connect --profile nobody", 3, "reading profile nobody"},
		{"connect --secret-stdin alice@h:1", 2, "unknown flag: --secret-stdin"},
		{"forward alice@h:1", 2, "--listen is missing"},
		{"forward --listen a:b:c alice@h:1", 2, "not [ADDRESS:]PORT"},
		{"forward --listen 0 --max-connections 0 alice@h:1", 2, "no room"},
		{"keygen --force", 2, "--force goes with --save"},
		{"keygen --client {x}", 2, "Caddyfile"},
		{"keygen --server @h", 2, "no client stands before"},
		{"profile add", 2, "accepts 1 arg(s)"},
		{"profile add alice --server bob@h:1", 2, "has a client in it"},
		{"profile show nobody", 3, "reading profile nobody"},
		{"profile remove nobody", 3, "removing profile nobody"},
		{"ssh-config", 2, "arg(s)"},
		{"ssh-config --user a,b alice@h:1", 2, "can't stand in ssh's configuration"},
		{"inspect 00", 2, "--client is missing"},
		{"version x", 2, "unknown command"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			got := runIn(t, "", strings.Fields(test.args)...)
			got.want(t, test.code, test.text)
			if test.code != 0 && got.stdout != "" {
				t.Errorf("Standard output is %q, want nothing", got.stdout)
			}
			if strings.Contains(got.stderr, "hunter2") || strings.Contains(got.stderr, "\x1b") {
				t.Errorf("Standard error tells the secret or has colours: %q", got.stderr)
			}
		})
	}
}

// TestExitCodes checks those of the built program that need no server.
func TestExitCodes(t *testing.T) {
	ownProfiles(t)
	for code, args := range map[int]string{
		knockcli.ExitOK:          "version",
		knockcli.ExitFailed:      "inspect --client a --secret b --port 1 00",
		knockcli.ExitUsage:       "connect --nonsense",
		knockcli.ExitConfig:      "connect alice@127.0.0.1:1",
		knockcli.ExitUnreachable: "connect --secret 0123456789abcdef alice@" + program.FreeAddress(t),
	} {
		runProgram(t, nil, strings.Fields(args)...).want(t, code)
	}
}

// TestHost runs the tree as a host does that has a command tree of its own.
func TestHost(t *testing.T) {
	var stdout, stderr bytes.Buffer
	var codes []int
	root := &cobra.Command{Use: "caddy"}
	knock := &cobra.Command{Use: "knock", Long: "the host's words"}
	root.AddCommand(knock)
	broken := errors.New("the demo broke")
	knockcli.AddTo(knock, knockcli.Options{
		Name: "caddy knock", Version: "v1.2.3", Out: &stdout, Err: &stderr,
		Commands: []*cobra.Command{{Use: "demo", RunE: func(*cobra.Command, []string) error { return broken }}},
		Exit: func(_ *cobra.Command, code int, err error) error {
			codes = append(codes, code)
			return err
		},
	})
	run := func(args ...string) error {
		root.SetArgs(args)
		root.SetErr(&stderr)
		return root.Execute()
	}
	if err := run("knock", "version"); err != nil || stdout.String() != "caddy-knock v1.2.3\n" {
		t.Errorf("Got %q, %v", stdout.String(), err)
	}
	if err := run("knock", "demo"); !errors.Is(err, broken) {
		t.Errorf("Got %v, want the command's error", err)
	}
	if err := run("knock", "connect", "--bad"); err == nil {
		t.Error("Got no error for a wrong flag")
	}
	if err := run("knock", "nonsense"); err == nil {
		t.Error("Got no error for a wrong command")
	}
	if want := []int{1, 2, 2}; !slices.Equal(codes, want) {
		t.Errorf("Got exit codes %v, want %v", codes, want)
	}
	want := "caddy: the demo broke\n" +
		"caddy: unknown flag: --bad\n  See: caddy knock connect --help\n" +
		"caddy: unknown command \"nonsense\"\n  See: caddy knock --help\n"
	if stderr.String() != want {
		t.Errorf("Standard error is\n%swant\n%s", stderr.String(), want)
	}
	stdout.Reset()
	if err := run("knock", "connect", "--help"); err != nil || !strings.Contains(stdout.String(), "ProxyCommand caddy knock connect alice@%h %p") {
		t.Errorf("Got %v and help\n%s", err, stdout.String())
	}
}

// TestDependencies holds the standalone client free of what belongs to Caddy.
func TestDependencies(t *testing.T) {
	deps := strings.Fields(program.Run(t, "go", "list", "-deps", "../cmd/caddy-knock"))
	for _, dep := range deps {
		for _, forbidden := range []string{"caddyserver", "mholt", "go.uber.org/zap", "prometheus"} {
			if strings.Contains(dep, forbidden) {
				t.Errorf("The client pulls in %s", dep)
			}
		}
	}
	if !slices.Contains(deps, "github.com/caddy-knock/caddy-knock/knockcore/knockcli") {
		t.Error("The list of dependencies lacks knockcli: the check checks nothing")
	}
}
