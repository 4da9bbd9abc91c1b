// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// contestant opens port 22 of a host for the address that knocks.
type contestant struct {
	name string
	// serve sets it up on the host.
	serve func(l *lab, host string) error
	// knock is the command of its client.
	knock []string
}

// latency measures how long it takes from knocking until a connection stands.
func latency(ctx context.Context, o options, out io.Writer) error {
	if err := need("ip", "nft", "iptables", "knockd", "knock", "fwknopd", "fwknop"); err != nil {
		return err
	}
	tools, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer tools.close()
	caddy, err := tools.build(o.caddy, "xcaddy")
	if err != nil {
		return err
	}
	client, err := tools.build(o.client, "knockcore/cmd/caddy-knock")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "\tfrom starting the client program: median\tworst\tfrom its end: median\tworst")
	for _, c := range []contestant{withCaddy(caddy, client), withKnockd(), withFwknop()} {
		total, rest, err := c.measure(ctx, o.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Fprintf(out, "%s\t%v\t%v\t%v\t%v\n", c.name, median(total), slices.Max(total), median(rest), slices.Max(rest))
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// measure knocks again and again, each time from another address. rest is the
// time after the client program had ended, 0 if the connection stood before.
func (c contestant) measure(ctx context.Context, rounds int) (total, rest []time.Duration, err error) {
	l, err := newLab(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer l.close()
	host, err := l.space("host")
	if err != nil {
		return nil, nil, err
	}
	client, err := l.space("client")
	if err != nil {
		return nil, nil, err
	}
	if err := l.link(host, "eth0", "192.0.2.1/24", client, "eth0", "192.0.2.2/24"); err != nil {
		return nil, nil, err
	}
	err = inside(host, func() error {
		ln, err := net.Listen("tcp", "192.0.2.1:22")
		if err == nil {
			l.ends = append(l.ends, func() { _ = ln.Close() })
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := c.serve(l, host); err != nil {
		return nil, nil, err
	}
	for i := range rounds {
		if err := l.in(client, "ip", "addr", "flush", "dev", "eth0", "scope", "global"); err != nil {
			return nil, nil, err
		}
		if err := l.in(client, "ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", 10+i%240), "dev", "eth0"); err != nil {
			return nil, nil, err
		}
		var t, r time.Duration
		if err := inside(client, func() (err error) { t, r, err = once(ctx, c.knock); return err }); err != nil {
			return nil, nil, err
		}
		total, rest = append(total, t.Round(10*time.Microsecond)), append(rest, r.Round(10*time.Microsecond))
	}
	return total, rest, nil
}

// probes is how often a connection is tried, and for how long at most.
const (
	probes  = 500 * time.Microsecond
	patient = 10 * time.Second
)

// once runs the client program and tries to connect all the time, each time anew:
// TCP itself would repeat a lost SYN after a second only.
func once(ctx context.Context, knock []string) (total, rest time.Duration, err error) {
	begin := time.Now()
	ended := make(chan error, 1)
	cmd := exec.CommandContext(ctx, knock[0], knock[1:]...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil { // on this thread, so in this namespace
		return 0, 0, err
	}
	go func() { ended <- cmd.Wait() }()
	var end time.Time
	var tries []unix.PollFd
	defer func() {
		for _, p := range tries {
			_ = unix.Close(int(p.Fd))
		}
	}()
	for ctx.Err() == nil {
		select {
		case err := <-ended:
			if end = time.Now(); err != nil {
				return 0, 0, fmt.Errorf("%s: %w: %s", strings.Join(knock, " "), err, said.String())
			}
		default:
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, 0, err
		}
		tries = append(tries, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{192, 0, 2, 1}}); err != nil && err != unix.EINPROGRESS {
			return 0, 0, err
		}
		wait := unix.NsecToTimespec(int64(probes))
		if _, err := unix.Ppoll(tries, &wait, nil); err != nil && err != unix.EINTR {
			return 0, 0, err
		}
		for _, p := range tries {
			if p.Revents&unix.POLLOUT == 0 {
				continue
			}
			if code, err := unix.GetsockoptInt(int(p.Fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
				return 0, 0, fmt.Errorf("connecting: %w", unix.Errno(code))
			}
			now := time.Now()
			if end.IsZero() { // it stood before the client program had ended
				if err := <-ended; err != nil {
					return 0, 0, err
				}
				return now.Sub(begin), 0, nil
			}
			return now.Sub(begin), now.Sub(end), nil
		}
		if time.Since(begin) > patient {
			return 0, 0, fmt.Errorf("the port does not open within %v; the client said %s", patient, said.String())
		}
		if len(tries) > 200 {
			_ = unix.Close(int(tries[0].Fd))
			tries = tries[1:]
		}
	}
	return 0, 0, ctx.Err()
}

func withCaddy(caddy, client string) contestant {
	const secret = "the secret of the benchmark"
	return contestant{
		name: "caddy-knock, nftables",
		serve: func(l *lab, host string) error {
			file := filepath.Join(l.dir, "Caddyfile")
			if err := os.WriteFile(file, []byte(`{
	admin off
	knock {
		client bench {
			secret "`+secret+`"
			services ssh
		}
		service ssh tcp/22 {
			firewall nftables
		}
		source udp :62201 {
			methods udp
		}
		firewall nftables
	}
}
`), 0o600); err != nil {
				return err
			}
			log, err := l.start(host, caddy, "run", "--config", file)
			if err != nil {
				return err
			}
			return l.await(log, "serving initial configuration")
		},
		knock: []string{client, "send", "--client", "bench", "--secret", secret, "192.0.2.1", "22"},
	}
}

func withKnockd() contestant {
	return contestant{
		name: "knockd, nft command",
		serve: func(l *lab, host string) error {
			if err := l.feed(`table inet k {
	set ok { type ipv4_addr; flags timeout; }
	chain c { type filter hook input priority 0; tcp dport 22 ip saddr != @ok drop; }
}`, "ip", "netns", "exec", host, "nft", "-f", "-"); err != nil {
				return err
			}
			file := filepath.Join(l.dir, "knockd.conf")
			if err := os.WriteFile(file, []byte(`[options]
	logfile = /dev/stdout
	interface = eth0
[open]
	sequence = 7000,8000,9000
	seq_timeout = 5
	tcpflags = syn
	command = /usr/sbin/nft add element inet k ok { %IP% timeout 60s }
`), 0o600); err != nil {
				return err
			}
			log, err := l.start(host, "knockd", "-v", "-c", file, "-p", filepath.Join(l.dir, "knockd.pid"))
			if err != nil {
				return err
			}
			return l.await(log, "listening on eth0")
		},
		knock: []string{"knock", "192.0.2.1", "7000", "8000", "9000"},
	}
}

func withFwknop() contestant {
	key := base64.StdEncoding.EncodeToString([]byte("an encryption key of 32 bytes!!!"))
	mac := base64.StdEncoding.EncodeToString([]byte("and a key for the HMAC of 64 bytes, as fwknop --key-gen makes it"))
	return contestant{
		name: "fwknopd, iptables",
		serve: func(l *lab, host string) error {
			if err := l.in(host, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"); err != nil {
				return err
			}
			conf, access := filepath.Join(l.dir, "fwknopd.conf"), filepath.Join(l.dir, "access.conf")
			for file, text := range map[string]string{
				conf:   "PCAP_INTF eth0;\nENABLE_IPT_FORWARDING N;\n",
				access: "SOURCE ANY\nKEY_BASE64 " + key + "\nHMAC_KEY_BASE64 " + mac + "\nFW_ACCESS_TIMEOUT 60\n",
			} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					return err
				}
			}
			log, err := l.start(host, "fwknopd", "-f", "-c", conf, "-a", access, "-r", filepath.Join(l.dir, "run"))
			if err != nil {
				return err
			}
			return l.await(log, "Starting fwknopd main event loop")
		},
		knock: []string{
			"fwknop", "-A", "tcp/22", "-s", "-D", "192.0.2.1", "--use-hmac", "--no-rc-file", "--no-save-args",
			"--key-base64-rijndael", key, "--key-base64-hmac", mac,
		},
	}
}
