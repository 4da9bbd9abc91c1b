// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// watchPause is how long watch waits before it asks again after a reload or a
// restart.
const watchPause = 500 * time.Millisecond

func watchCommand() *cobra.Command {
	var call adminCall
	var events []string
	var client, service string
	var last int
	cmd := call.flags(&cobra.Command{
		Use:   "watch",
		Short: "Shows what happens, as it happens",
		Long: `
Shows grants, refusals (one a second of a kind; the number of others is told),
expiries, revocations, bans and repairs of the firewall as they happen. Reloads and
restarts of Caddy do not end it; with --json each line is what the admin API says.
`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := make(url.Values)
			if len(events) > 0 {
				q.Set("event", strings.Join(events, ","))
			}
			if client != "" {
				q.Set("client", client)
			}
			if service != "" {
				q.Set("service", service)
			}
			if last > 0 {
				q.Set("last", strconv.Itoa(last))
			}
			return call.watch(cmd, q)
		},
	})
	cmd.Flags().StringSliceVar(&events, "event", nil, "Only these: "+strings.Join(eventNames, ", "))
	cmd.Flags().StringVar(&client, "client", "", "Only those of this client")
	cmd.Flags().StringVar(&service, "service", "", "Only those for this service")
	cmd.Flags().IntVar(&last, "last", 0, "Begin with so many that have happened")
	return cmd
}

// watch follows the stream until the command is interrupted. Only the first
// attempt must succeed.
func (a *adminCall) watch(cmd *cobra.Command, q url.Values) error {
	address, err := caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
	if err != nil {
		return fmt.Errorf("finding the admin API: %w", err)
	}
	id := ""
	for first := true; ; first = false {
		header := http.Header{}
		if id != "" {
			header.Set("Last-Event-ID", id)
			q.Del("last")
		}
		resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/knock/events?"+q.Encode(), header, nil)
		switch {
		case err == nil:
			err = a.show(cmd.OutOrStdout(), resp.Body, &id)
			_ = resp.Body.Close()
			if err != nil {
				return err
			}
		case first:
			return fmt.Errorf("asking Caddy at %s: %w", address, err)
		}
		if err := pause(cmd.Context(), watchPause); err != nil {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if ctx == nil {
		ctx = context.Background()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// show prints a stream to its end. The error is that of the output.
func (a *adminCall) show(out io.Writer, stream io.Reader, id *string) error {
	lines := bufio.NewScanner(stream)
	kind := ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			*id = value
		case "event":
			kind = value
		case "data":
			text := value
			if !a.json {
				text = describe(kind, []byte(value))
			}
			if _, err := fmt.Fprintln(out, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// describe makes a line for people of an event.
func describe(kind string, data []byte) string {
	var e eventRecord
	var lost struct{ Missed uint64 }
	if kind == "missed" && json.Unmarshal(data, &lost) == nil {
		return fmt.Sprintf("%d events are missing here: too many at once", lost.Missed)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return "an answer that is none: " + err.Error()
	}
	b := new(strings.Builder)
	fmt.Fprintf(b, "%s %-8s", e.Time.Local().Format(time.TimeOnly), e.Event)
	word := func(before, text string) {
		if text != "" {
			fmt.Fprintf(b, " %s%s", before, text)
		}
	}
	word("", e.Client)
	word("to ", e.Service)
	switch {
	case e.Prefix != nil:
		word("for ", e.Prefix.String())
	case e.Source != nil:
		word("from ", e.Source.String())
	}
	word("by ", e.Method)
	word("because of ", e.By)
	word("as ", e.Reason)
	if e.ClockAhead != 0 {
		fmt.Fprintf(b, " (its clock is %.1f s ahead)", e.ClockAhead)
	}
	switch {
	case e.Expires != nil && e.Event == "granted":
		word("until ", e.Expires.Local().Format(time.TimeOnly))
	case e.Until != nil:
		word("until ", e.Until.Local().Format(time.DateTime))
	}
	if e.Renewed {
		word("", "(renewed)")
	}
	word("", e.Firewall)
	word("found ", e.Found)
	word("on ", e.Node)
	if e.Similar > 0 {
		fmt.Fprintf(b, " and %d others like it", e.Similar)
	}
	return b.String()
}
