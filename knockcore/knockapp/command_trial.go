// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// keepWord is what confirms a trial.
const keepWord = "keep"

func firewallTestCommand() *cobra.Command {
	var t trial
	cmd := t.file.flags(&cobra.Command{
		Use:   "test",
		Short: "Tries a configuration with firewalls, and goes back unless you confirm",
		Long: `
Loads the configuration file into the running Caddy, so that the services are
closed and knocks open them. Try from elsewhere whether you still get in, then
type "keep" and Enter. If you don't within --for, if you interrupt it, or if the
terminal goes away, the configuration before is loaded again, and rules that were
not there before are removed.

If no Caddy runs, only the rules are loaded, and kept or removed in the same way.

It needs the right to change the firewall itself, so that it can mend things if
Caddy can't.`,
		Example: `  sudo caddy knock firewall test --for 60s --config /etc/caddy/Caddyfile`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return t.run(cmd) },
	})
	cmd.Flags().DurationVar(&t.length, "for", time.Minute, "How long to wait for the confirmation")
	cmd.Flags().StringVar(&t.address, "address", "", "Address of the admin API")
	return cmd
}

// trial loads a configuration for a while.
type trial struct {
	file    configFile
	address string
	length  time.Duration

	after  string // the address of the admin API once the file is loaded
	set    *firewallSet
	closed []string        // the services that will be
	stood  map[string]bool // by firewall: whether its rules stood before
	former []byte          // the configuration before
}

func (t *trial) run(cmd *cobra.Command) (err error) {
	if t.length <= 0 {
		return errors.New("--for takes how long to wait, such as 60s")
	}
	if err := t.prepare(cmd.Context()); err != nil {
		return err
	}
	// The terminal may be what this locks out: its end must not end us.
	signal.Ignore(hangups...)
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	begin, back := t.load, t.loadBack
	if !runs(t.address) {
		arm := &armed{trial: t}
		begin, back = arm.set, arm.unset
		fmt.Fprintf(cmd.OutOrStdout(), "No Caddy runs at %s: only the rules are tried, knocks open nothing.\n", t.address)
	} else if t.former, err = admin(t.address, http.MethodGet, "/config/", nil); err != nil {
		return err
	}
	for name, plan := range t.set.plans {
		if plan.Remove == nil && plan.OnExit != knockcore.ExitRemove && len(servicesOf(name, t.set.services)) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "Firewall %s has no rules of its own: going back does not open what commands or rules of yours close.\n", name)
		}
	}
	if err := begin(); err != nil {
		return errors.Join(err, back(false))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Closed but for those who knock: %s.\nTry from elsewhere whether you still get in, then type %q and Enter within %v. Otherwise everything is as before.\n",
		strings.Join(t.closed, ", "), keepWord, t.length)
	if confirmed(ctx, cmd.InOrStdin(), t.length) {
		fmt.Fprintln(cmd.OutOrStdout(), "Kept.")
		return back(true)
	}
	if err := back(false); err != nil {
		return fmt.Errorf("not confirmed, and going back failed: %w", err)
	}
	return errors.New("not confirmed: everything is as before")
}

// prepare finds out what there is to try, and whether it could be undone.
func (t *trial) prepare(ctx context.Context) (err error) {
	if t.set, err = t.file.firewalls(); err != nil {
		return err
	}
	var cfg struct {
		Admin struct{ Disabled bool }
	}
	if err := json.Unmarshal(t.set.json, &cfg); err != nil {
		return err
	}
	if cfg.Admin.Disabled {
		return errors.New("the configuration turns the admin API off, so that going back would not be possible; leave it on for the trial")
	}
	if t.after, err = caddycmd.DetermineAdminAPIAddress("", t.set.json, t.set.path, t.file.adapter); err != nil {
		return fmt.Errorf("finding the admin API: %w", err)
	}
	if t.address == "" {
		t.address = t.after
	}
	t.stood = make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(t.set.plans)) {
		for _, s := range servicesOf(name, t.set.services) {
			t.closed = append(t.closed, s.Name)
		}
		stands := t.set.plans[name].Stands
		if stands == nil {
			continue
		}
		if t.stood[name], err = stands(ctx); err != nil {
			return fmt.Errorf("firewall %s: it could not be undone: %w", name, err)
		}
	}
	if len(t.closed) == 0 {
		return errors.New("no service of the configuration names a firewall: there is nothing to try")
	}
	return nil
}

// confirmed waits for the word, for at most the time. What is read otherwise, and
// the end of the input, mean nothing.
func confirmed(ctx context.Context, in io.Reader, length time.Duration) bool {
	word := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			if strings.TrimSpace(lines.Text()) == keepWord {
				close(word)
				return
			}
		}
	}()
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-word:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// runs reports whether somebody may listen at the address of an admin API.
func runs(address string) bool {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return true // the request will tell what is wrong
	}
	conn, err := net.DialTimeout(parsed.Network, parsed.JoinHostPort(0), firewallTimeout)
	if err == nil {
		_ = conn.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// admin makes a request to the admin API.
func admin(address, method, path string, body []byte) ([]byte, error) {
	resp, err := caddycmd.AdminAPIRequest(address, method, path, nil, bytes.NewReader(body))
	if err != nil {
		return nil, adminError(address, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading Caddy's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("caddy refuses: %s", bytes.TrimSpace(answer))
	}
	return answer, nil
}

// load makes the running Caddy load the file.
func (t *trial) load() error {
	_, err := admin(t.address, http.MethodPost, "/load", t.set.json)
	return err
}

// loadBack goes back to the configuration before, and removes rules that were not
// there. Rules are removed even if Caddy is gone.
func (t *trial) loadBack(keep bool) error {
	if keep {
		return nil
	}
	former := t.former
	if len(bytes.TrimSpace(former)) == 0 || string(bytes.TrimSpace(former)) == "null" {
		former = []byte("{}") // Caddy ran without any
	}
	_, err := admin(t.after, http.MethodPost, "/load", former)
	return errors.Join(err, t.remove())
}

// remove takes away the rules that did not stand before.
func (t *trial) remove() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t.set.plans)) {
		plan := t.set.plans[name]
		if plan.Remove == nil || t.stood[name] {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), firewallTimeout)
		if _, err := plan.Remove(ctx); err != nil {
			errs = append(errs, fmt.Errorf("firewall %s: %w", name, err))
		}
		cancel()
	}
	return errors.Join(errs...)
}
