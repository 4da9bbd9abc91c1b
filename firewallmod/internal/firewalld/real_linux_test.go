// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// town is a host with firewalld, and a guest.
type town struct {
	*testing.T
	*world
	lab         *netlab.Lab
	host, guest *netlab.NS
}

func newTown(t *testing.T) *town {
	t.Helper()
	netlab.Need(t, "firewalld", "firewall-cmd", "dbus-daemon")
	lab := netlab.New(t)
	w := &town{T: t, lab: lab, host: lab.NS("host"), guest: lab.NS("guest")}
	lab.Link(w.host, []string{"192.0.2.1/24", "2001:db8::1/64"}, w.guest, []string{"192.0.2.2/24", "2001:db8::2/64"})
	for _, address := range []string{"192.0.2.1:22", "[2001:db8::1]:22"} {
		w.host.Echo("tcp", address)
		w.host.Echo("udp", address)
	}
	dir, err := os.MkdirTemp("/run", "knock-firewalld-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.world = newWorld(t, w.host, dir)
	return w
}

func (w *town) engine(c Config) *Engine {
	w.Helper()
	c.Bus, c.NetNS = w.address(), w.host.FD()
	if c.CheckInterval == 0 {
		c.CheckInterval = 300 * time.Millisecond
	}
	e, err := New(c)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = e.Stop(context.Background(), knockcore.ExitRemove) })
	return e
}

func ssh() []*knockcore.Service {
	return []*knockcore.Service{{Name: "ssh", Ports: []knockcore.PortRange{
		{Protocol: knockcore.TCP, Low: 22, High: 22}, {Protocol: knockcore.UDP, Low: 22, High: 22},
	}}}
}

func windows(length time.Duration) (list []knockcore.Window) {
	for _, p := range []string{"192.0.2.2/32", "2001:db8::/64"} {
		list = append(list, knockcore.Window{Prefix: netip.MustParsePrefix(p), Service: "ssh", Expires: time.Now().Add(length)})
	}
	return list
}

func (w *town) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// places are what the service is reached by.
var places = [][2]string{{"tcp", "192.0.2.1:22"}, {"tcp", "[2001:db8::1]:22"}, {"udp", "192.0.2.1:22"}, {"udp", "[2001:db8::1]:22"}}

func (w *town) want(state netlab.State, when string) {
	w.Helper()
	for _, p := range places {
		if got := w.guest.ProbeFor(p[0], p[1], state); got != state {
			w.Errorf("%s: %s %s is %s, want %s", when, p[0], p[1], got, state)
		}
	}
}

func (w *town) eventuallyOpen(when string) {
	w.Helper()
	// A rule takes firewalld tens of milliseconds, and there are several.
	for _, p := range places {
		w.lab.Eventually(patience, when+": "+p[0]+" "+p[1], func() bool { return w.guest.Probe(p[0], p[1]) == netlab.Open })
	}
}

// TestClosedWithoutUs: after a reload and a restart the service is closed though
// nobody is there to close it.
func TestClosedWithoutUs(t *testing.T) {
	w := newTown(t)
	e := w.engine(Config{})
	w.must(e.Setup(t.Context(), ssh()))
	w.must(e.Open(t.Context(), windows(time.Hour)...))
	w.want(netlab.Open, "after the knock")
	w.must(e.Stop(t.Context(), knockcore.ExitKeep))
	w.want(netlab.Open, "after stop with keep")
	w.firewallCmd("--reload")
	w.want(netlab.Filtered, "after a reload without us")
	w.firewalld.Kill()
	w.startFirewalld()
	w.want(netlab.Filtered, "after a restart without us")
	// A firewalld that was killed leaves its rules in the kernel beside the new ones,
	// until the next reload.
	w.firewallCmd("--reload")
	c := Config{Bus: w.address()}
	if stands, err := Look(t.Context(), c); err != nil || !stands {
		t.Errorf("standing: %v, %v", stands, err)
	}
	if removed, err := Remove(t.Context(), c); err != nil || !removed {
		t.Errorf("removed: %v, %v", removed, err)
	}
	w.want(netlab.Open, "after removing")
	w.firewallCmd("--reload")
	w.want(netlab.Open, "after removing and a reload")
}

// TestRestart kills and stops firewalld, and the bus: calls fail with a clear
// error and at once, and windows are back when firewalld is.
func TestRestart(t *testing.T) {
	w := newTown(t)
	heals := make(chan engine.Heal, 64)
	e := w.engine(Config{Options: engine.Options{CheckInterval: 100 * time.Millisecond, OnHeal: func(h engine.Heal) { heals <- h }}})
	w.must(e.Setup(t.Context(), ssh()))
	w.must(e.Open(t.Context(), windows(time.Hour)...))
	gone := func(what string) {
		t.Helper()
		w.lab.Eventually(patience, what+" is noticed", func() bool { return errors.Is(e.Check(t.Context()), ErrGone) })
		if err := e.Open(t.Context(), windows(2*time.Hour)...); !errors.Is(err, ErrGone) {
			t.Errorf("opening while %s: %v", what, err)
		}
		if _, err := e.List(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("listing while %s: %v", what, err)
		}
	}
	w.firewalld.Kill()
	gone("firewalld is killed")
	w.startFirewalld()
	w.eventuallyOpen("after firewalld was killed and started")
	w.must(w.firewalld.Process.Signal(syscall.SIGTERM)) // which flushes its rules
	<-w.firewalld.Ended
	gone("firewalld is stopped")
	w.startFirewalld()
	w.eventuallyOpen("after firewalld was stopped and started")
	w.bus.Kill() // in mid-flight
	gone("the bus is gone")
	w.firewalld.Kill()
	w.startBus()
	w.startFirewalld()
	w.eventuallyOpen("after the bus came back")
	w.must(e.Check(t.Context()))
	w.must(e.Close(t.Context(), windows(time.Hour)...))
	w.want(netlab.Filtered, "closed in the end, whatever firewalld left when it was killed")
	failures := 0
	for len(heals) > 0 {
		if h := <-heals; h.Err != nil {
			failures++
		}
	}
	if failures == 0 || failures > 20 {
		t.Errorf("%d failures told", failures)
	}
}

// TestBusStopsAnswering bounds the wait for a firewalld that hangs.
func TestBusStopsAnswering(t *testing.T) {
	w := newTown(t)
	e := w.engine(Config{Options: engine.Options{CheckInterval: time.Hour}})
	w.must(e.Setup(t.Context(), ssh()))
	w.must(w.signal("STOP"))
	err := e.Open(t.Context(), windows(time.Hour)...)
	if !errors.Is(err, ErrGone) {
		t.Errorf("while firewalld hangs: %v", err)
	}
	w.must(w.signal("CONT"))
	w.lab.Eventually(patience, "it opens again", func() bool { return e.Open(t.Context(), windows(time.Hour)...) == nil })
	w.want(netlab.Open, "after it goes on")
}

// signal sends a signal to firewalld, which ip has become.
func (w *world) signal(name string) error {
	return exec.Command("kill", "-"+name, strconv.Itoa(w.firewalld.Process.Pid)).Run()
}

// TestZone checks what a configuration says of the zone.
func TestZone(t *testing.T) {
	w := newTown(t)
	for want, c := range map[string]Config{
		"there is no zone nowhere":    {Zone: "nowhere"},
		"has target ACCEPT, not DROP": {Target: "DROP"},
	} {
		if err := w.engine(c).Setup(t.Context(), ssh()); !errors.Is(err, ErrZone) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// A zone that gets the guest's traffic by its source.
	e := w.engine(Config{Zone: "work", Reject: true, Priority: -5, Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	w.must(e.Setup(t.Context(), ssh()))
	if got := w.guest.ProbeFor("tcp", "192.0.2.1:22", netlab.Closed); got == netlab.Open || got == netlab.Filtered {
		t.Errorf("with default_action reject the port is %s", got)
	}
	w.must(e.Open(t.Context(), windows(time.Hour)...))
	w.want(netlab.Open, "after the knock")
	w.must(e.Stop(t.Context(), knockcore.ExitRemove))
	w.want(netlab.Open, "in the zone of others again")
	if out := w.host.Run("env", "DBUS_SYSTEM_BUS_ADDRESS="+w.address(), "firewall-cmd", "--zone=work", "--list-all"); strings.Contains(out, "caddy-knock") || strings.Contains(out, "192.0.2.0") {
		t.Errorf("left: %s", out)
	}
}

// TestRefusals are what firewalld can't do.
func TestRefusals(t *testing.T) {
	cut, routed := ssh(), ssh()
	cut[0].CutOnExpire = true
	routed[0].Destinations = []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}
	for what, services := range map[string][]*knockcore.Service{"on_expire cut": cut, "destinations": routed} {
		if err := (Config{}).Accepts(services); !errors.Is(err, engine.ErrUnsupported) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// polkitRule is the rule of the manual, by which a Caddy that is not root may
// change rules.
func polkitRule(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../firewalld/50-caddy-knock.rules")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestNotRoot changes rules as another user: refused without the polkit rule that
// we ship, done with it.
func TestNotRoot(t *testing.T) {
	w := newTown(t)
	polkitd := "/usr/lib/polkit-1/polkitd"
	if _, err := os.Stat(polkitd); err != nil {
		program.Missing(t, "polkitd is not installed: %v", err)
	}
	self, err := os.Executable()
	w.must(err)
	copied := filepath.Join(w.dir, "self")
	w.must(exec.Command("install", "-m", "755", self, copied).Run())
	try := func() string {
		cmd := w.host.Command(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copied, "-test.run=^TestAsNobody$", "-test.v")
		cmd.Env = append(os.Environ(), busEnv+"="+w.address(), nobodyEnv+"=1")
		cmd.Dir = w.dir
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := try(); !strings.Contains(out, ErrPermission.Error()) || !strings.Contains(out, "polkit rule") {
		t.Errorf("without polkit: %s", out)
	}
	// polkitd reads its rules from /etc: it gets a mount namespace with ours.
	rules := filepath.Join(w.dir, "rules.d")
	w.must(os.MkdirAll(rules, 0o755))
	rule := strings.ReplaceAll(polkitRule(t), `"caddy"`, `"nobody"`)
	w.must(os.WriteFile(filepath.Join(rules, "50-caddy-knock.rules"), []byte(rule), 0o644))
	cmd := w.host.Command(t.Context(), "unshare", "-m", "sh", "-c", "mount --bind "+rules+" /etc/polkit-1/rules.d && exec "+polkitd+" --no-debug")
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+w.address())
	program.Start(t, cmd).Await(t, "polkit to answer", func() bool { return strings.Contains(try(), "--- PASS") })
	w.want(netlab.Open, "a window that nobody opened")
}

const nobodyEnv = "KNOCK_FIREWALLD_NOBODY"

func TestAsNobody(t *testing.T) {
	if os.Getenv(nobodyEnv) == "" {
		t.Skip("part of TestNotRoot")
	}
	e, err := New(Config{Bus: os.Getenv(busEnv)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Setup(t.Context(), ssh()); err != nil {
		t.Fatal(err)
	}
	if err := e.Open(t.Context(), windows(time.Hour)...); err != nil {
		t.Fatal(err)
	}
}
