// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockcli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/knockclient"
)

// knockerSettings is the settings file of knocker-cli.
type knockerSettings struct {
	URL string `yaml:"api_url"`
	Key string `yaml:"api_key"`
	TTL int64  `yaml:"ttl"`
	// What our watch does by itself.
	Interval any    `yaml:"check_interval"`
	CheckURL string `yaml:"ip_check_url"`
}

// maxKnockerSettings bounds the file, in bytes.
const maxKnockerSettings = 1 << 20

func (a *app) httpImportCommand() *cobra.Command {
	var name string
	var force bool
	cmd := a.command(cobra.Command{
		Use:   "import [FILE] [flags]",
		Short: "Make a profile of the settings of knocker-cli",
		Long: `Make a profile of the settings file of knocker-cli (default: ~/.knocker.yaml), which
stays as it is. Server, key and length are taken over; an own address is watched by
"http watch" without a service elsewhere that tells it.`,
		Example: `
  {cmd} http import --name home
  {cmd} http watch home`,
	}, cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		file := ""
		if len(args) > 0 {
			file = args[0]
		} else {
			home, err := os.UserHomeDir()
			if err != nil {
				return configError(err)
			}
			file = filepath.Join(home, ".knocker.yaml")
		}
		profile, settings, err := readKnockerSettings(file)
		if err != nil {
			return configError(fmt.Errorf("reading %s: %w", file, err))
		}
		profiles, err := knockclient.DefaultProfiles()
		if err == nil {
			err = profiles.Save(name, profile, force)
		}
		if err != nil {
			f := configError(err)
			if errors.Is(err, fs.ErrExist) {
				f.hint = "Give --force to replace it, or --name for another one."
			}
			return f
		}
		if settings.CheckURL != "" {
			warn(cmd, "ip_check_url is not taken over: `%s http watch %s` asks the server whether your address is still in", a.Name, name)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Saved as %s. Try: %s http knock %s\n", profiles.Path(name), a.Name, name)
		return err
	})
	cmd.Flags().StringVar(&name, "name", "knocker", "the `NAME` of the profile")
	cmd.Flags().BoolVar(&force, "force", false, "replace a profile of this name")
	return cmd
}

func readKnockerSettings(file string) (*knockclient.Profile, *knockerSettings, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, err
	}
	if info.Size() > maxKnockerSettings {
		return nil, nil, fmt.Errorf("it has more than %d bytes", maxKnockerSettings)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	settings := new(knockerSettings)
	if err := yaml.Unmarshal(b, settings); err != nil {
		// The library's errors may quote values, of the key for example.
		return nil, nil, errors.New("it is not YAML with the settings of knocker-cli (api_url, api_key, ttl, check_interval, ip_check_url)")
	}
	if settings.TTL < 0 || settings.TTL > int64(1<<62/time.Second) {
		return nil, nil, fmt.Errorf("ttl %d is not a number of seconds", settings.TTL)
	}
	profile := &knockclient.Profile{HTTP: &knockclient.ProfileHTTP{
		URL: settings.URL, Key: knockcore.NewSecret([]byte(strings.TrimSpace(settings.Key))), TTL: time.Duration(settings.TTL) * time.Second,
	}}
	return profile, settings, profile.Validate()
}
