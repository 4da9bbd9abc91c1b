// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// knockerGrant is an entry of whitelist.json.
type knockerGrant struct {
	prefix netip.Prefix
	ttl    time.Duration
}

// knockerGrants reads whitelist.json: entries and when they end, in Unix seconds.
// What has ended is left out.
func knockerGrants(p *problems, b []byte, now time.Time) (grants []knockerGrant) {
	if b == nil {
		return nil
	}
	var entries map[string]json.Number
	if err := json.Unmarshal(b, &entries); err != nil || len(b) > MaxInput {
		p.add(0, "the whitelist is not what Knocker writes: a JSON object of entries and Unix seconds, %d bytes at most", MaxInput)
		return nil
	}
	for _, entry := range slices.Sorted(maps.Keys(entries)) {
		prefixes := knockerPrefixes(p, "whitelist", []string{entry})
		end, err := strconv.ParseFloat(entries[entry].String(), 64)
		if len(prefixes) == 0 || err != nil || !(end > 0 && end < 1e12) {
			if len(prefixes) > 0 {
				p.add(0, "whitelist: %q ends at no time", entry)
			}
			continue
		}
		ttl := time.Unix(int64(end), 0).Sub(now).Truncate(time.Second)
		if ttl <= 0 {
			continue
		}
		prefix, err := netip.ParsePrefix(prefixes[0])
		if err != nil {
			prefix = knockcore.AddrPrefix(netip.MustParseAddr(prefixes[0]))
		}
		grants = append(grants, knockerGrant{prefix, min(ttl, knockerMaxTTL*time.Second)})
	}
	return grants
}
