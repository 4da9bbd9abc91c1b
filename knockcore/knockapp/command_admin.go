// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// adminCall is what the commands that ask a running Caddy have in common.
type adminCall struct {
	address, config, adapter string
	json                     bool
}

func (a *adminCall) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.address, "address", "", "Address of the admin API")
	cmd.Flags().StringVarP(&a.config, "config", "c", "", "Configuration file to find that address in")
	cmd.Flags().StringVarP(&a.adapter, "adapter", "a", "", "Adapter of that file")
	cmd.Flags().BoolVar(&a.json, "json", false, "Print what the admin API answers")
	return cmd
}

// do makes a request and parses the answer; if JSON is wanted, it prints that and is
// done.
func (a *adminCall) do(cmd *cobra.Command, method, path string, body any, into any) (done bool, err error) {
	address, err := caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
	if err != nil {
		return false, fmt.Errorf("finding the admin API: %w", err)
	}
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return false, err
		}
		reader = bytes.NewReader(b)
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, path, nil, reader)
	if err != nil {
		return false, adminError(address, err)
	}
	defer resp.Body.Close()
	if a.json {
		shown := io.TeeReader(resp.Body, cmd.OutOrStdout())
		if err := json.NewDecoder(shown).Decode(into); err != nil {
			return true, err
		}
		_, err := io.Copy(io.Discard, shown)
		return true, err
	}
	return false, json.NewDecoder(resp.Body).Decode(into)
}

var adminAnswer = regexp.MustCompile(`HTTP \d+: (\{.*\})`)

// adminError says in plain words why Caddy did not do what was asked.
func adminError(address string, err error) error {
	var answer struct{ Error string }
	if m := adminAnswer.FindStringSubmatch(err.Error()); m != nil && json.Unmarshal([]byte(m[1]), &answer) == nil && answer.Error != "" {
		return errors.New(answer.Error)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no Caddy answers at %s: is it running, and is its admin endpoint there? Else name it with --address", address)
	}
	return fmt.Errorf("asking Caddy at %s: %w", address, err)
}

func table(cmd *cobra.Command, head ...string) *tabwriter.Writer {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	return w
}

// adminCommands are the commands that ask a running Caddy.
func adminCommands() []*cobra.Command {
	return []*cobra.Command{statusCommand(), grantsCommand(), grantCommand(), revokeCommand(), clientsCommand(), bansCommand(), inviteCommand(), devicesCommand(), watchCommand(), topCommand()}
}

func statusCommand() *cobra.Command {
	var call adminCall
	return call.flags(&cobra.Command{
		Use:   "status",
		Short: "Tells how the knock app of a running Caddy is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s struct {
				Healthy  bool
				Problems []string
				Clients  int
				Grants   int
				Nonces   int    `json:"replay_nonces"`
				Pending  int    `json:"streams_pending"`
				Window   string `json:"time_window"`
				Store    string
				Fleet    *fleetJSON
				Services []struct {
					Name     string
					Ports    []string
					Firewall string
					Grants   int
				}
			}
			if done, err := call.do(cmd, http.MethodGet, "/knock/status", nil, &s); done || err != nil {
				return err
			}
			health := "well"
			if !s.Healthy {
				health = "NOT WELL: " + strings.Join(s.Problems, "; ")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "health   %s\nclients  %d\ngrants   %d live\nstore    %s, %d nonces remembered\nstreams  %d undecided\nclocks   may differ by %s\n\n",
				health, s.Clients, s.Grants, s.Store, s.Nonces, s.Pending, s.Window)
			if s.Fleet != nil {
				if err := printFleet(cmd, s.Fleet); err != nil {
					return err
				}
			}
			w := table(cmd, "SERVICE", "PORTS", "FIREWALL", "GRANTS")
			for _, v := range s.Services {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", v.Name, strings.Join(v.Ports, " "), dash(v.Firewall), v.Grants)
			}
			return w.Flush()
		},
	})
}

// printFleet lists the nodes.
func printFleet(cmd *cobra.Command, f *fleetJSON) error {
	w := table(cmd, "NODE", "BEHIND", "HEARD OF", "GRANTS AND BANS")
	for _, n := range f.Nodes {
		heard := "now"
		if n.Silent >= f.Silent {
			heard = (time.Duration(n.Silent) * time.Second).String() + " ago"
		}
		if n.Own {
			n.Name += " (this one)"
		}
		behind := "-"
		if n.Behind != nil {
			behind = strconv.FormatUint(*n.Behind, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", n.Name, behind, heard, n.Items)
	}
	if f.Every > 0 {
		fmt.Fprintf(w, "\nThe storage is looked at every %gs; it last was %.1fs ago.\n", f.Every, f.Looked)
	}
	if f.ClosedUntil != nil {
		fmt.Fprintf(w, "\nThe store is new, or may have lost nonces: frames made until %s are refused.\n", f.ClosedUntil.Format(time.TimeOnly))
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// selectFlags are the flags that select grants.
type selectFlags struct{ client, service, address, method, id string }

func (s *selectFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.client, "client", "", "Those of this client")
	cmd.Flags().StringVar(&s.service, "service", "", "Those for this service")
	cmd.Flags().StringVar(&s.address, "from", "", "Those that cover this address or lie in this prefix")
	cmd.Flags().StringVar(&s.method, "method", "", "Those made by this method")
	cmd.Flags().StringVar(&s.id, "id", "", "The one with this ID")
}

func (s *selectFlags) query() url.Values {
	q := make(url.Values)
	for key, value := range map[string]string{"client": s.client, "service": s.service, "address": s.address, "method": s.method, "id": s.id} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q
}

func grantsCommand() *cobra.Command {
	var call adminCall
	var sel selectFlags
	cmd := call.flags(&cobra.Command{
		Use:   "grants",
		Short: "Lists live grants: who, from where, to which service, until when",
		Long: `
Lists live grants, in the order of their IDs, a page of 10,000 at a time: columns fit
each page, and with --json each page is a line, the answer of the admin API.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := sel.query()
			q.Set("limit", strconv.Itoa(maxPage))
			var w *tabwriter.Writer
			for {
				var page struct {
					Grants []grantLine
					Next   string
				}
				done, err := call.do(cmd, http.MethodGet, "/knock/grants?"+q.Encode(), nil, &page)
				if err != nil {
					return err
				}
				if !done {
					if w == nil {
						w = table(cmd, "GRANT", "CLIENT", "SERVICE", "FOR", "SCOPE", "METHOD", "ENDS IN")
					}
					for _, g := range page.Grants {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, g.Client, g.Service, g.Prefix, g.Scope, dash(g.Method), g.ends())
					}
					if err := w.Flush(); err != nil { // page by page: there may be a million
						return err
					}
				}
				if page.Next == "" {
					return nil
				}
				q.Set("after", page.Next)
			}
		},
	})
	sel.flags(cmd)
	return cmd
}

type grantLine struct {
	ID, Client, Service, Prefix, Scope, Method string
	ExpiresIn                                  float64 `json:"expires_in_seconds"`
}

func (g grantLine) ends() string {
	if g.Scope == "connection" {
		return "with its stream"
	}
	return (time.Duration(g.ExpiresIn) * time.Second).String()
}

func grantCommand() *cobra.Command {
	var call adminCall
	var ttl time.Duration
	cmd := call.flags(&cobra.Command{
		Use:   "grant CLIENT SERVICE ADDRESS",
		Short: "Lets an address in by hand, in the name of a client",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			var g grantLine
			order := map[string]any{"client": args[0], "service": args[1], "address": args[2]}
			if ttl > 0 {
				order["ttl"] = ttl
			}
			if done, err := call.do(cmd, http.MethodPost, "/knock/grants", order, &g); done || err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s may reach %s for %s: grant %s\n", g.Prefix, g.Service, g.ends(), g.ID)
			return nil
		},
	})
	cmd.Flags().DurationVar(&ttl, "for", 0, "How long; default: as for a knock of the client")
	return cmd
}

func revokeCommand() *cobra.Command {
	var call adminCall
	var sel selectFlags
	var all bool
	cmd := call.flags(&cobra.Command{
		Use:   "revoke [GRANT]",
		Short: "Ends grants, their windows and the streams they admitted",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				sel.id = args[0]
			}
			q := sel.query()
			if all {
				q.Set("all", "true")
			}
			if len(q) == 0 {
				return errors.New("name a grant, or select some with --client, --service, --from or --method, or say --all")
			}
			var answer struct{ Revoked int }
			if done, err := call.do(cmd, http.MethodDelete, "/knock/grants?"+q.Encode(), nil, &answer); done || err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d revoked\n", answer.Revoked)
			return nil
		},
	})
	sel.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "All of them")
	return cmd
}

func clientsCommand() *cobra.Command {
	var call adminCall
	return call.flags(&cobra.Command{
		Use:   "clients",
		Short: "Lists who may knock",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Clients []struct {
					ID       string
					Services []string
					Expires  *time.Time
					Secrets  int
					Grants   int
				}
			}
			if done, err := call.do(cmd, http.MethodGet, "/knock/clients", nil, &list); done || err != nil {
				return err
			}
			w := table(cmd, "CLIENT", "SERVICES", "SECRETS", "GRANTS", "EXPIRES")
			for _, c := range list.Clients {
				expires := "-"
				if c.Expires != nil {
					expires = c.Expires.Format(time.DateTime)
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", c.ID, dash(strings.Join(c.Services, " ")), c.Secrets, c.Grants, expires)
			}
			return w.Flush()
		},
	})
}

func bansCommand() *cobra.Command {
	var call adminCall
	var lift string
	cmd := call.flags(&cobra.Command{
		Use:   "bans",
		Short: "Lists who is banned, or lifts a ban",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lift != "" {
				var answer struct{ Lifted int }
				if done, err := call.do(cmd, http.MethodDelete, "/knock/bans?prefix="+url.QueryEscape(lift), nil, &answer); done || err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d lifted\n", answer.Lifted)
				return nil
			}
			var list struct {
				Bans []struct {
					Prefix  string
					Until   time.Time
					Strikes int
				}
			}
			if done, err := call.do(cmd, http.MethodGet, "/knock/bans", nil, &list); done || err != nil {
				return err
			}
			w := table(cmd, "BANNED", "UNTIL", "TIMES")
			for _, b := range list.Bans {
				fmt.Fprintf(w, "%s\t%s\t%d\n", b.Prefix, b.Until.Format(time.DateTime), b.Strikes)
			}
			return w.Flush()
		},
	})
	cmd.Flags().StringVar(&lift, "lift", "", "Lift the bans of this address or prefix")
	return cmd
}
