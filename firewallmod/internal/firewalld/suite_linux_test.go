// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/firewallmod/internal/engine"
	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/netlab"
	"github.com/caddy-knock/caddy-knock/knockcore/coretest/program"
)

// busEnv tells the suite's processes where D-Bus is.
const busEnv = "KNOCK_FIREWALLD_BUS"

// patience bounds the wait for programs that start.
const patience = 30 * time.Second

// world is a namespace with a D-Bus daemon and a firewalld of its own.
type world struct {
	t         *testing.T
	host      *netlab.NS
	dir       string
	bus       *program.Process
	firewalld *program.Process
}

// busConfig is that of the system bus, with all in one directory.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
	<type>system</type>
	<listen>unix:path=DIR/bus</listen>
	<auth>EXTERNAL</auth>
	<policy context="default">
		<allow user="*"/>
		<deny own="*"/>
		<deny send_type="method_call"/>
		<allow send_type="signal"/>
		<allow send_requested_reply="true" send_type="method_return"/>
		<allow send_requested_reply="true" send_type="error"/>
		<allow receive_type="method_call"/>
		<allow receive_type="method_return"/>
		<allow receive_type="error"/>
		<allow receive_type="signal"/>
		<allow send_destination="org.freedesktop.DBus"/>
	</policy>
	<includedir>/usr/share/dbus-1/system.d</includedir>
	<includedir>/etc/dbus-1/system.d</includedir>
</busconfig>
`

func newWorld(t *testing.T, host *netlab.NS, dir string) *world {
	t.Helper()
	w := &world{t: t, host: host, dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bus.conf":           strings.ReplaceAll(busConfig, "DIR", dir),
		"etc/firewalld.conf": "DefaultZone=public\nCleanupOnExit=yes\nFirewallBackend=nftables\nIPv6_rpfilter=no\n",
		// public, with the ports of the tests open: it is ours to close them.
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.RemoveAll(filepath.Join(dir, "etc/zones"))
	if err := os.MkdirAll(filepath.Join(dir, "etc/zones"), 0o755); err != nil {
		t.Fatal(err)
	}
	zone := `<?xml version="1.0" encoding="utf-8"?><zone target="ACCEPT"><short>public</short></zone>`
	if err := os.WriteFile(filepath.Join(dir, "etc/zones/public.xml"), []byte(zone), 0o644); err != nil {
		t.Fatal(err)
	}
	w.startBus()
	w.startFirewalld()
	return w
}

func (w *world) address() string { return "unix:path=" + filepath.Join(w.dir, "bus") }

func (w *world) startBus() {
	w.t.Helper()
	socket := filepath.Join(w.dir, "bus")
	_ = os.Remove(socket)
	w.bus = program.Start(w.t, exec.Command("dbus-daemon", "--config-file="+filepath.Join(w.dir, "bus.conf"), "--nofork", "--nopidfile"))
	w.bus.Await(w.t, "the bus", func() bool {
		conn, err := dial(w.address())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (w *world) startFirewalld() {
	w.t.Helper()
	cmd := w.host.Command(context.Background(), program.Need(w.t, "firewalld"), "--nofork", "--nopid", "--system-config", filepath.Join(w.dir, "etc"), "--log-target", "console", "--log-file", filepath.Join(w.dir, "log"))
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+w.address())
	w.firewalld = program.Start(w.t, cmd)
	d := &daemon{bus{address: w.address(), wake: make(chan struct{}, 1)}}
	defer d.close()
	w.firewalld.Await(w.t, "firewalld", func() bool {
		d.until = time.Time{}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := d.zone(ctx, Config{})
		return err == nil
	})
}

func (w *world) firewallCmd(args ...string) {
	w.t.Helper()
	w.host.Run(append([]string{"env", "DBUS_SYSTEM_BUS_ADDRESS=" + w.address(), "firewall-cmd"}, args...)...)
}

// suiteDir holds the bus of the suite, one world after the other: commands that
// break things need to know where it is.
const suiteDir = "/run/knock-firewalld-test"

var backend = coretest.FirewallBackend{
	New: func(netns int) (knockcore.Firewall, error) {
		return New(Config{Bus: os.Getenv(busEnv), Options: engine.Options{NetNS: netns, CheckInterval: 500 * time.Millisecond}})
	},
	Programs: []string{"firewalld", "firewall-cmd", "dbus-daemon"},
	Prepare: func(t *testing.T, host *netlab.NS) {
		w := newWorld(t, host, suiteDir)
		t.Setenv(busEnv, w.address())
	},
	Breaks: map[string][]string{
		"a reload":          {"env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + suiteDir + "/bus", "firewall-cmd", "--reload"},
		"a complete reload": {"env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + suiteDir + "/bus", "firewall-cmd", "--complete-reload"},
		"a rule removed": {
			"env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + suiteDir + "/bus", "firewall-cmd",
			`--remove-rich-rule=rule priority="-999" port port="22" protocol="tcp" nflog group="65535" prefix="caddy-knock gate ssh" drop`,
		},
	},
	Resolution: 2 * time.Second,
	Slow:       true,
}

func TestMain(m *testing.M) {
	coretest.FirewallProcess(backend)
	code := m.Run()
	_ = os.RemoveAll(suiteDir)
	os.Exit(code)
}

func TestSuite(t *testing.T) { coretest.FirewallSuite(t, backend) }
