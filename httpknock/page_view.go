// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package httpknock

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
)

// view is what the page shows.
type view struct {
	// Site is the name of the host.
	Site string
	// Join says that it is about an invitation.
	Join bool
	// Known says that the key is right; what follows is for such clients only.
	Known                   bool
	Client, Device, Address string
	Now                     time.Time
	// Services are those that the client may open here.
	Services []serviceView
	// Next is what ends next of what is open for the address that the client comes
	// from, nil if nothing is.
	Next *openingView
	// Elsewhere is what the client has opened for other addresses.
	Elsewhere []elsewhereView
	// Remote says that it may open for another address.
	Remote bool
	// Lengths are offered.
	Lengths []lengthView
	// Ticket opens under the names V4 and V6.
	Ticket, V4, V6 string
	// Notice says what is remarkable, Error what went wrong.
	Notice, Error string
}

// Here says that something is open for the address that the client comes from.
func (v *view) Here() bool { return v.Next != nil }

// serviceView is a service, with what is open of it for the address that the client
// comes from, nil if nothing is.
type serviceView struct {
	Name string
	Open *openingView
}

// elsewhereView is what is open for another address.
type elsewhereView struct {
	For      string
	Services string
	openingView
}

// openingView is how long something is open.
type openingView struct {
	Expires      time.Time
	left, length time.Duration
}

// Of is how long it was to last, in milliseconds.
func (o openingView) Of() int64 { return o.length.Milliseconds() }

// Left is how long it lasts yet, for people.
func (o openingView) Left() string { return spell(o.left) }

// Gone is how much of its time is over, in percent.
func (o openingView) Gone() int64 { return 100 - int64(100*o.left/max(o.length, 1)) }

// lengthView is a length to choose.
type lengthView struct {
	Seconds int64
	Text    string
}

// newView is what anybody sees.
func (h *Handler) newView(r *http.Request) *view {
	site, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		site = r.Host
	}
	v := &view{Site: site, Now: time.Now().UTC().Truncate(time.Millisecond), V4: h.Page.V4, V6: h.Page.V6}
	if addr := clientAddr(r); addr.IsValid() {
		v.Address = addr.String()
	}
	return v
}

// view is what a client sees.
func (k *knock) view() *view {
	v := k.h.newView(k.r)
	if k.client == nil {
		return v
	}
	v.Known, v.Client, v.Remote = true, k.client.ID, k.client.RemoteBits4 > 0 || k.client.RemoteBits6 > 0
	if dev, ok := k.h.app.Device(k.sum); ok {
		v.Device = dev.Name
	}
	if v.V4 != "" || v.V6 != "" {
		v.Ticket = newTicket(k.sum, time.Now())
	}
	now := k.gate.Now()
	longest := time.Duration(0)
	for _, s := range k.reachable() {
		longest = max(longest, s.Length(k.client, maxTTL*time.Second))
		v.Services = append(v.Services, serviceView{Name: s.Name})
	}
	own := k.own()
	slices.SortFunc(own, func(a, b *knockcore.Grant) int { return a.Expires.Compare(b.Expires) })
	for _, g := range own {
		o := openingView{g.Expires.UTC().Round(0).Truncate(time.Millisecond), g.Remaining(now), g.Expires.Sub(g.Made)}
		i := slices.IndexFunc(v.Services, func(s serviceView) bool { return s.Name == g.Service })
		switch {
		case i < 0:
		case !g.Prefix.Contains(k.source):
			v.elsewhere(g, o)
		default:
			v.Services[i].Open = &o // the last one to end
		}
	}
	for _, s := range v.Services {
		if s.Open != nil && (v.Next == nil || s.Open.left < v.Next.left) {
			v.Next = s.Open
		}
	}
	for _, d := range []time.Duration{15 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		if d <= longest {
			v.Lengths = append(v.Lengths, lengthView{int64(d / time.Second), spell(d)})
		}
	}
	return v
}

// elsewhere adds what is open for another address.
func (v *view) elsewhere(g *knockcore.Grant, o openingView) {
	address := addressText(g)
	for i := range v.Elsewhere {
		if e := &v.Elsewhere[i]; e.For == address {
			if !slices.Contains(strings.Split(e.Services, ", "), g.Service) {
				e.Services += ", " + g.Service
			}
			return
		}
	}
	v.Elsewhere = append(v.Elsewhere, elsewhereView{address, g.Service, o})
}

// reachable are the services that the client may open here.
func (k *knock) reachable() (services []*knockcore.Service) {
	for _, s := range k.gate.Services() {
		if k.client.MayReach(s.Name) && (slices.Contains(k.h.Services, s.Name) || len(k.h.Services) == 0 && !s.Door) {
			services = append(services, s)
		}
	}
	return services
}

// own are the live grants that the client made with this key. Those of other devices
// are theirs, but for what is open for the address that we come from.
func (k *knock) own() []*knockcore.Grant {
	return k.gate.State().Grants(func(g *knockcore.Grant) bool {
		return g.Client == k.client.ID && g.Scope != knockcore.ScopeConnection &&
			(g.Method == knockcore.MethodHTTP && g.Device() == k.device || g.Prefix == knockcore.AddrPrefix(k.source)) &&
			g.Remaining(k.gate.Now()) > 0
	})
}

// addressText is whom a grant is for, an address where it is one.
func addressText(g *knockcore.Grant) string {
	if g.Prefix.IsSingleIP() {
		return g.Prefix.Addr().String()
	}
	return g.Prefix.String()
}

// capped says which services opened for less than was asked for, "" if none did.
func (k *knock) capped(asked time.Duration) string {
	var short []string
	for _, g := range k.grants {
		if length := g.Expires.Sub(g.Made); length < asked {
			short = append(short, fmt.Sprintf("%s for %s", g.Service, spell(length)))
		}
	}
	if short == nil {
		return ""
	}
	return fmt.Sprintf("You asked for %s. More than this is not allowed: %s.", spell(asked), strings.Join(short, ", "))
}

// spell writes a length for people: 2 days, 1 h 30 min, 45 s.
func spell(d time.Duration) string {
	d = d.Round(time.Second)
	days, d := d/(24*time.Hour), d%(24*time.Hour)
	hours, d := d/time.Hour, d%time.Hour
	minutes, seconds := d/time.Minute, d%time.Minute/time.Second
	var words []string
	add := func(n time.Duration, unit string) {
		if n > 0 && len(words) < 2 {
			words = append(words, fmt.Sprintf("%d %s", n, unit))
		}
	}
	if days == 1 {
		add(1, "day")
	} else {
		add(days, "days")
	}
	add(hours, "h")
	add(minutes, "min")
	if days == 0 && hours == 0 && minutes < 10 {
		add(seconds, "s")
	}
	if words == nil {
		return "0 s"
	}
	return strings.Join(words, " ")
}
