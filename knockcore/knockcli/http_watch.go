// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

func (a *app) httpWatchCommand() *cobra.Command {
	var flags httpFlags
	var unit bool
	var every time.Duration
	cmd := a.command(cobra.Command{
		Use:   "watch SERVER [flags]",
		Short: "Knock, and knock again before it ends and when your address changes",
		Long: `Knock, and knock again before the time is over and whenever your address changes:
an address of this machine, or the one that the server sees, which it is asked for
(at /verify). Failures are repeated, after a second and then less and less often.

With --unit, print a systemd user unit that does so from login on.`,
		Example: `
  {cmd} http watch home

  {cmd} http watch home --unit > ~/.config/systemd/user/caddy-knock-home.service
  systemctl --user enable --now caddy-knock-home`,
	}, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		if every < time.Second {
			return usagef("--every %v is less than a second", every)
		}
		if unit {
			return a.printUnit(cmd, args[0])
		}
		knocks, err := a.httpKnocks(cmd, args[0], &flags)
		if err != nil {
			return err
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		for _, k := range knocks {
			w := &watcher{knock: k, every: every}
			w.tell = func(g *knockclient.HTTPGrant, err error, next time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					warn(cmd, "%v; next try in %v", err, next)
					return
				}
				_ = printGrant(cmd, g, flags.asJSON)
			}
			all.Go(func() { w.run(cmd.Context()) })
		}
		all.Wait()
		return nil
	})
	flags.add(cmd)
	cmd.Flags().DurationVar(&every, "every", 30*time.Second, "how often to look whether your address has changed")
	cmd.Flags().BoolVar(&unit, "unit", false, "print a systemd user unit, and do nothing else")
	cmd.ValidArgsFunction = completeProfiles
	return cmd
}

// watcher keeps one knock alive.
type watcher struct {
	knock *knockclient.HTTPKnock
	every time.Duration
	tell  func(g *knockclient.HTTPGrant, err error, next time.Duration)

	failures int
	// verified says that the server told us once that we are in: only then it means
	// something if it says that we are not.
	verified bool
}

const (
	maxBackoff = time.Minute
	// refusedBackoff is how long to wait after a key was refused: each try with it
	// counts towards a ban.
	refusedBackoff = 10 * time.Minute
)

// backoff is how long to wait after a failure.
func (w *watcher) backoff(err error) time.Duration {
	var answer *knockclient.HTTPError
	if errors.As(err, &answer) && (answer.Status == 401 || answer.Status == 403) {
		return refusedBackoff
	}
	return min(maxBackoff, time.Second<<min(max(0, w.failures-1), 10))
}

func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		grant, err := w.knock.Knock(ctx)
		if ctx.Err() != nil {
			return
		}
		var wait time.Duration
		if err != nil {
			w.failures++
			wait = w.backoff(err)
		} else {
			w.failures = 0
			wait = max(time.Second, grant.For/10*9)
		}
		w.tell(grant, err, wait)
		w.wait(ctx, wait, err == nil)
	}
}

// wait returns when it is time to knock again.
func (w *watcher) wait(ctx context.Context, long time.Duration, in bool) {
	addrs := localAddrs()
	if in && w.knock.Address == "" {
		w.verified, _ = w.knock.Verify(ctx)
	}
	due := time.NewTimer(long)
	defer due.Stop()
	look := time.NewTicker(w.every)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-look.C:
		}
		if !slices.Equal(addrs, localAddrs()) {
			return
		}
		if w.verified {
			if is, known := w.knock.Verify(ctx); known && !is {
				return
			}
		}
	}
}

// localAddrs lists the addresses of this machine that reach others.
func localAddrs() (addrs []string) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			addrs = append(addrs, ip.IP.String())
		}
	}
	slices.Sort(addrs)
	return addrs
}

// printUnit prints a unit that runs this command, without --unit.
func (a *app) printUnit(cmd *cobra.Command, server string) error {
	if strings.Contains(server, "://") && !cmd.Flags().Changed("key-file") {
		return usagef("the unit needs the key: name a profile, or give --key-file FILE")
	}
	if f := cmd.Flags().Lookup("key-file"); f.Value.String() == "-" {
		return usageError(errors.New("the unit can't read the key from standard input"))
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	words := []string{program}
	if a.Name != "caddy-knock" {
		words = append(words, strings.Fields(a.Name)[1:]...)
	}
	words = append(words, "http", "watch", server)
	for _, name := range []string{"key-file", "ttl", "address", "ipv4", "ipv6", "every", insecureFileMode} {
		if f := cmd.Flags().Lookup(name); f.Changed {
			words = append(words, "--"+name+"="+f.Value.String())
		}
	}
	for i, word := range words {
		words[i] = unitWord(word)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `[Unit]
Description=Knock at %s
StartLimitIntervalSec=0

[Service]
ExecStart=%s
Restart=always
RestartSec=10
NoNewPrivileges=yes

[Install]
WantedBy=default.target
`, strings.ReplaceAll(server, "%", "%%"), strings.Join(words, " "))
	return err
}

// unitWord quotes a word of a command line for systemd.
func unitWord(word string) string {
	word = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`, "\n", `\n`).Replace(word)
	if word == "" || strings.ContainsAny(word, " \t'\"\\;") {
		return `"` + word + `"`
	}
	return word
}
