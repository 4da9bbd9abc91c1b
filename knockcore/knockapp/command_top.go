// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package knockapp

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// topRow is knocks of a method and what became of them.
type topRow struct{ Method, Reason string }

type topStatus struct {
	Healthy  bool
	Problems []string
	Grants   int
	Pending  int `json:"streams_pending"`
	Nonces   int `json:"replay_nonces"`
	Knocks   []struct {
		topRow
		Count uint64
	}
	Services []struct {
		Name     string
		Firewall string
		Grants   int
	}
}

func topCommand() *cobra.Command {
	var call adminCall
	var every time.Duration
	var rounds int
	cmd := call.flags(&cobra.Command{
		Use:   "top",
		Short: "Shows how many knocks come and what becomes of them, again and again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return fmt.Errorf("--every %v is too often; 100ms at least", every)
			}
			before, at := make(map[topRow]uint64), time.Time{}
			for round := 1; ; round++ {
				var s topStatus
				if done, err := call.do(cmd, http.MethodGet, "/knock/status", nil, &s); err != nil {
					return err
				} else if !done {
					now := time.Now()
					counts := make(map[topRow]uint64)
					for _, k := range s.Knocks {
						counts[k.topRow] = k.Count
					}
					if rounds != 1 {
						fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
					}
					if err := s.show(cmd, counts, before, now.Sub(at)); err != nil {
						return err
					}
					before, at = counts, now
				}
				if round == rounds {
					return nil
				}
				if pause(cmd.Context(), every) != nil {
					return nil
				}
			}
		},
	})
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "How often")
	cmd.Flags().IntVar(&rounds, "rounds", 0, "End after so many; 0: never")
	return cmd
}

func (s *topStatus) show(cmd *cobra.Command, counts, before map[topRow]uint64, since time.Duration) error {
	health := "well"
	if !s.Healthy {
		health = "NOT WELL: " + strings.Join(s.Problems, "; ")
	}
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%s  %d grants  %d streams undecided  %d nonces\n\nMETHOD\tRESULT\tALL\tA SECOND\n", health, s.Grants, s.Pending, s.Nonces)
	rows := slices.SortedFunc(maps.Keys(counts), func(a, b topRow) int {
		return cmp.Or(cmp.Compare(counts[b]-before[b], counts[a]-before[a]), cmp.Compare(a.Method, b.Method), cmp.Compare(a.Reason, b.Reason))
	})
	for _, row := range rows {
		rate := "-"
		// A count that went down is that of another process.
		if old, n := before[row], counts[row]; len(before) > 0 && n >= old {
			rate = fmt.Sprintf("%.1f", float64(n-old)/since.Seconds())
		}
		fmt.Fprintf(out, "%s\t%s\t%d\t%s\n", row.Method, row.Reason, counts[row], rate)
	}
	fmt.Fprint(out, "\nSERVICE\tFIREWALL\tGRANTS\n")
	for _, v := range s.Services {
		fmt.Fprintf(out, "%s\t%s\t%d\n", v.Name, dash(v.Firewall), v.Grants)
	}
	return out.Flush()
}
