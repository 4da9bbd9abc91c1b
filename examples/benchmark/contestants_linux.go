// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"encoding/base64"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// contestant opens port 22 of a host for the address that knocks.
type contestant struct {
	name string
	// serve sets it up on the host.
	serve func(l *lab, host string) error
	// knock is the command of its client, nil if there is none.
	knock []string
	// send prepares a knock of the same kind and returns what puts it on the wire.
	send func() (func() error, error)
}

// plainGate drops what comes to port 22, but for the addresses in a set.
const plainGate = `table inet k {
	set ok { type ipv4_addr; flags timeout; }
	chain c { type filter hook input priority 0; tcp dport 22 ip saddr != @ok drop; }
}`

func withCaddy(caddy, client string) contestant {
	return contestant{
		name: "caddy-knock, nftables",
		serve: func(l *lab, host string) error {
			file, err := l.file("Caddyfile", `{
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
`)
			if err != nil {
				return err
			}
			log, err := l.start(host, caddy, "run", "--config", file)
			if err != nil {
				return err
			}
			return l.await(log, "serving initial configuration")
		},
		send: func() (func() error, error) {
			d := &wire.Datagram{Method: knockcore.MethodUDP, Port: 22, Time: time.Now().UnixMilli()}
			b, err := d.Seal(credential)
			return func() error { return datagram(b) }, err
		},
		knock: []string{client, "send", "--client", "bench", "--secret", secret, "192.0.2.1", "22"},
	}
}

func withKnockd() contestant {
	return contestant{
		name: "knockd, nft command",
		serve: func(l *lab, host string) error {
			if err := l.feed(plainGate, "ip", "netns", "exec", host, "nft", "-f", "-"); err != nil {
				return err
			}
			file, err := l.file("knockd.conf", `[options]
	logfile = /dev/stdout
	interface = eth0
[open]
	sequence = 7000,8000,9000
	seq_timeout = 20
	tcpflags = syn
	command = /usr/sbin/nft add element inet k ok { %IP% timeout 60s }
`)
			if err != nil {
				return err
			}
			log, err := l.start(host, "knockd", "-v", "-c", file, "-p", filepath.Join(l.dir, "knockd.pid"))
			if err != nil {
				return err
			}
			return l.await(log, "listening on eth0")
		},
		send: func() (func() error, error) {
			return func() error {
				for _, port := range []int{7000, 8000, 9000} {
					fd, err := syn(port)
					if err != nil {
						return err
					}
					_ = unix.Close(fd)
				}
				return nil
			}, nil
		},
		knock: []string{"knock", "192.0.2.1", "7000", "8000", "9000"},
	}
}

func withFwknop() contestant {
	const encryption, authentication = "an encryption key of 32 bytes!!!", "and a key for the HMAC of 64 bytes, as fwknop --key-gen makes it"
	keys := knockcore.FwknopKeys{Encryption: knockcore.NewSecret([]byte(encryption)), HMAC: knockcore.NewSecret([]byte(authentication))}
	key, mac := base64.StdEncoding.EncodeToString([]byte(encryption)), base64.StdEncoding.EncodeToString([]byte(authentication))
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
		send: func() (func() error, error) {
			f := &wire.Fwknop{
				User: "bench", Time: time.Now().Unix(), Type: wire.FwknopAccess, Allow: netip.IPv4Unspecified(),
				Ports: []knockcore.PortRange{{Protocol: knockcore.TCP, Low: 22, High: 22}},
			}
			b, err := f.Seal(keys)
			return func() error { return datagram(b) }, err
		},
		knock: []string{
			"fwknop", "-A", "tcp/22", "-s", "-D", "192.0.2.1", "--use-hmac", "--no-rc-file", "--no-save-args",
			"--key-base64-rijndael", key, "--key-base64-hmac", mac,
		},
	}
}

// bare is the limit: whoever sends a datagram is put into the set at once, and
// nothing is verified.
func bare() contestant {
	return contestant{
		name: "bare netlink insert",
		serve: func(l *lab, host string) error {
			if err := l.feed(plainGate, "ip", "netns", "exec", host, "nft", "-f", "-"); err != nil {
				return err
			}
			var conn *nftables.Conn
			var in *net.UDPConn
			if err := inside(host, func() (err error) {
				if conn, err = nftables.New(nftables.AsLasting()); err != nil {
					return err
				}
				in, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 62201})
				return err
			}); err != nil {
				return err
			}
			set, err := conn.GetSetByName(&nftables.Table{Name: "k", Family: nftables.TableFamilyINet}, "ok")
			if err != nil {
				return err
			}
			l.ends = append(l.ends, func() { _ = in.Close(); _ = conn.CloseLasting() })
			go func() {
				room := make([]byte, 1500)
				for {
					_, from, err := in.ReadFromUDPAddrPort(room)
					if err != nil {
						return
					}
					_ = conn.SetAddElements(set, []nftables.SetElement{{Key: from.Addr().AsSlice(), Timeout: time.Minute}})
					_ = conn.Flush() // if it fails, the port does not open
				}
			}()
			return nil
		},
		send: func() (func() error, error) {
			return func() error { return datagram(make([]byte, 114)) }, nil
		},
	}
}

// datagram sends one to the host.
func datagram(b []byte) error {
	conn, err := net.Dial("udp4", "192.0.2.1:62201")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(b)
	return err
}

// syn begins a connection to the host.
func syn(port int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{192, 0, 2, 1}}); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}
