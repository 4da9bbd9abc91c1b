// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// firewallCommand are the commands about firewalls, which need no running Caddy.
func firewallCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "firewall",
		Short: "Prints, removes and tries the rules that keep services closed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(firewallPrintCommand(), firewallRemoveCommand(), firewallTestCommand())
	return cmd
}

func firewallPrintCommand() *cobra.Command {
	var file configFile
	var output string
	cmd := file.flags(&cobra.Command{
		Use:   "print [FIREWALL]",
		Short: "Prints the rules that keep the services closed, for a boot unit",
		Long: `
Prints the rules of the configuration without any window: with nftables for "nft -f",
with iptables, ipset and firewalld as a script for "sh". Loaded before the network
comes up, they keep the services closed until Caddy has started, which then takes
them over.
Keys of clients are not read. FIREWALL is needed only if there are several.`,
		Example: `  caddy knock firewall print --config /etc/caddy/Caddyfile --output /etc/caddy/knock/closed.nft`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := file.firewalls()
			if err != nil {
				return err
			}
			name, plan, err := set.one(args, func(p FirewallPlan) bool { return p.Print != nil }, "has rules to print")
			if err != nil {
				return err
			}
			text, err := plan.Print(servicesOf(name, set.services))
			if err != nil {
				return fmt.Errorf("firewall %s: %w", name, err)
			}
			if output != "" {
				return replaceFile(output, text)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "File to write, whole or not at all, instead of standard output")
	return cmd
}

// replaceFile writes a file so that there is either the old one or the new one.
func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once it is renamed, there is none
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func firewallRemoveCommand() *cobra.Command {
	var file configFile
	return file.flags(&cobra.Command{
		Use:   "remove [FIREWALL]",
		Short: "Takes the rules away that Caddy left behind, which opens the services",
		Long: `
Takes away the rules that stay when Caddy stops or crashes, which keep the
services closed. It needs no running Caddy, and refuses while one keeps the rules.
Without a configuration file, FIREWALL stands for one without options.`,
		Example: `  caddy knock firewall remove --config /etc/caddy/Caddyfile

  caddy knock firewall remove nftables`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := file.firewallsOr(args)
			if err != nil {
				return err
			}
			name, plan, err := set.one(args, func(p FirewallPlan) bool { return p.Remove != nil }, "has rules to remove")
			if err != nil {
				return err
			}
			removed, err := plan.Remove(cmd.Context())
			switch {
			case err != nil:
				return fmt.Errorf("firewall %s: %w", name, err)
			case !removed:
				fmt.Fprintf(cmd.OutOrStdout(), "firewall %s: there are no rules\n", name)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "firewall %s: the rules are gone, the services are open\n", name)
			}
			return nil
		},
	})
}

// configFile is the configuration that a command looks at without running it.
type configFile struct{ path, adapter string }

func (f *configFile) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&f.path, "config", "c", "", "Configuration file (default: Caddyfile in the current directory)")
	cmd.Flags().StringVarP(&f.adapter, "adapter", "a", "", "Adapter of that file")
	return cmd
}

// firewallSet is what a configuration says of firewalls.
type firewallSet struct {
	json     []byte
	path     string
	services []*knockcore.Service
	plans    map[string]FirewallPlan
}

// firewalls reads the knock app of the file, as far as it concerns firewalls:
// other apps and the clients' keys are left alone.
func (f *configFile) firewalls() (*firewallSet, error) {
	text, path, _, err := caddycmd.LoadConfig(f.path, f.adapter)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, errors.New("there is no Caddyfile in this directory: name the configuration file with --config")
	}
	var cfg struct {
		Apps map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(caddy.RemoveMetaFields(text), &cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if cfg.Apps["knock"] == nil {
		return nil, fmt.Errorf("%s has no knock app: add a `knock` block to the global options", path)
	}
	app := new(App)
	if err := caddy.StrictUnmarshalJSON(cfg.Apps["knock"], app); err != nil {
		return nil, fmt.Errorf("%s: knock: %w", path, err)
	}
	set, err := app.firewallSet()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	set.json, set.path = text, path
	return set, nil
}

// firewallsOr is firewalls, or, if there is no configuration file, the firewall
// that the arguments name, without options.
func (f *configFile) firewallsOr(args []string) (*firewallSet, error) {
	if _, err := os.Stat("Caddyfile"); f.path == "" && f.adapter == "" && len(args) == 1 && errors.Is(err, fs.ErrNotExist) {
		app := &App{FirewallsRaw: caddy.ModuleMap{args[0]: json.RawMessage("{}")}}
		return app.firewallSet()
	}
	return f.firewalls()
}

func (a *App) firewallSet() (*firewallSet, error) {
	set := new(firewallSet)
	for _, s := range a.Services {
		service, err := s.convert()
		if err != nil {
			return nil, Placed(s.At, err)
		}
		set.services = append(set.services, service)
	}
	// The modules are only asked what they would do: this context loads them, and
	// ends with the process.
	ctx, _ := caddy.NewContext(caddy.Context{Context: context.Background()})
	var err error
	set.plans, err = loadPlans(ctx, a, set.services)
	return set, err
}

// one finds the firewall that the arguments name, or the only one that fits.
func (s *firewallSet) one(args []string, fits func(FirewallPlan) bool, does string) (string, FirewallPlan, error) {
	names := slices.Sorted(maps.Keys(s.plans))
	if len(args) == 1 {
		plan, ok := s.plans[args[0]]
		switch {
		case !ok:
			return "", plan, fmt.Errorf("there is no firewall %q in the configuration; it has %s", args[0], listOr(names, "none"))
		case !fits(plan):
			return "", plan, fmt.Errorf("firewall %s: it has no rules of its own", args[0])
		}
		return args[0], plan, nil
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !fits(s.plans[name]) })
	switch len(names) {
	case 0:
		return "", FirewallPlan{}, fmt.Errorf("no firewall of the configuration %s; add for example `firewall nftables`", does)
	case 1:
		return names[0], s.plans[names[0]], nil
	default:
		return "", FirewallPlan{}, fmt.Errorf("name one of the firewalls %s", strings.Join(names, ", "))
	}
}

func listOr(names []string, otherwise string) string {
	if len(names) == 0 {
		return otherwise
	}
	return strings.Join(names, ", ")
}
