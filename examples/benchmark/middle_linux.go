// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

// secret is that of the client "bench".
const secret = "the secret of the benchmark"

// credential is what the client "bench" knocks with.
var credential = func() *knockcore.Credential {
	s := knockcore.NewSecret([]byte(secret))
	return &knockcore.Credential{Client: &knockcore.Client{ID: "bench"}, Secret: s, MAC: knockcore.NewMAC(s.Bytes())}
}()

// middle is a program between clients and an upstream.
type middle struct {
	name string
	port int
	// process is nil if there is nothing in the middle.
	process *process
	// frame says that streams begin with a knock.
	frame bool
	// tls is how clients encrypt; nil if they don't.
	tls *tls.Config
}

// head is what a client sends first.
func (m *middle) head() ([]byte, error) {
	if !m.frame {
		return nil, nil
	}
	f := &wire.TCPFrame{Method: knockcore.MethodEnvelopeV2, Port: uint16(m.port), Time: time.Now().UnixMilli()}
	return f.Seal(credential)
}

// dial connects from an address of 127.0.0.0/8, so that there are ports enough.
func (m *middle) dial(ctx context.Context, from net.IP) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	return d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", m.port))
}

func direct(upstream int) middle { return middle{name: "direct", port: upstream} }

// quiet makes Caddy log errors only, as long as whoever it is compared with logs
// nothing about a connection.
const quiet = "log {\n\t\tlevel ERROR\n\t}"

// throughRelay is knock_relay behind a frame; options go into the block `knock`.
func throughRelay(l *lab, caddy string, upstream int, options string) (middle, error) {
	return throughLoggingRelay(l, caddy, upstream, quiet, options)
}

// throughLoggingRelay is throughRelay with other global options.
func throughLoggingRelay(l *lab, caddy string, upstream int, global, options string) (middle, error) {
	port, err := freePort()
	if err != nil {
		return middle{}, err
	}
	m := middle{name: "knock_relay", port: port, frame: true}
	m.process, err = startCaddy(l, caddy, fmt.Sprintf(`{
	admin off
	%s
	knock {
		client bench {
			secret "%s"
			services bench
		}
		service bench tcp/%d
		%s
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock {
					admit {
						knock_relay 127.0.0.1:%d
					}
				}
			}
		}
	}
}
`, global, secret, port, options, port, upstream))
	if err != nil {
		return m, err
	}
	if err := l.awaitPort(port, m.process.log); err != nil {
		return m, err
	}
	// A new store refuses frames of the millisecond that it was made in, and of those
	// before; the port may be open within the same.
	time.Sleep(2 * time.Millisecond)
	return m, nil
}

// throughProxy is caddy-l4's proxy, behind the handlers that are given.
func throughProxy(l *lab, caddy string, upstream int, handlers string) (middle, error) {
	port, err := freePort()
	if err != nil {
		return middle{}, err
	}
	m := middle{name: "caddy-l4 proxy", port: port}
	m.process, err = startCaddy(l, caddy, fmt.Sprintf(`{
	admin off
	%s
	layer4 {
		127.0.0.1:%d {
			route {
				%s
				proxy 127.0.0.1:%d
			}
		}
	}
}
`, quiet, port, handlers, upstream))
	if err != nil {
		return m, err
	}
	return m, l.awaitPort(port, m.process.log)
}

func startCaddy(l *lab, caddy, config string) (*process, error) {
	return startCaddyWith(l, caddy, "Caddyfile", config)
}

func startCaddyJSON(l *lab, caddy, config string) (*process, error) {
	return startCaddyWith(l, caddy, "caddy.json", config)
}

// startCaddyWith runs Caddy with a configuration file of this name.
func startCaddyWith(l *lab, caddy, name, config string) (*process, error) {
	dir, err := os.MkdirTemp(l.dir, "caddy-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	// A home of its own, and so a store of its own.
	p, err := l.launch("env", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, caddy, "run", "--config", file)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// throughHAProxy is HAProxy in TCP mode with splicing, as many threads as
// processors, and buffers of 32 KiB, as caddy-l4's proxy has them.
func throughHAProxy(l *lab, upstream int) (middle, error) {
	if err := need("haproxy"); err != nil {
		return middle{}, err
	}
	port, err := freePort()
	if err != nil {
		return middle{}, err
	}
	file, err := l.file("haproxy.cfg", fmt.Sprintf(`global
	maxconn 5000
	nbthread %d
	tune.bufsize 32768
defaults
	mode tcp
	option splice-auto
	timeout connect 5s
	timeout client 5m
	timeout server 5m
frontend f
	bind 127.0.0.1:%d
	default_backend u
backend u
	server s 127.0.0.1:%d
`, runtime.NumCPU(), port, upstream))
	if err != nil {
		return middle{}, err
	}
	return serving(l, middle{name: "HAProxy, splicing", port: port}, "haproxy", "-db", "-f", file)
}

// streamModule is where Debian has nginx's.
const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// throughNginx is nginx's stream module, as many processes as processors, and
// buffers of 32 KiB.
func throughNginx(l *lab, upstream int) (middle, error) {
	if err := need("nginx"); err != nil {
		return middle{}, err
	}
	load := ""
	if _, err := os.Stat(streamModule); err == nil {
		load = "load_module " + streamModule + ";"
	} else if out, _ := exec.Command("nginx", "-V").CombinedOutput(); !bytes.Contains(out, []byte("--with-stream ")) {
		return middle{}, fmt.Errorf("%w: nginx has no stream module", errMissing)
	}
	port, err := freePort()
	if err != nil {
		return middle{}, err
	}
	file, err := l.file("nginx.conf", fmt.Sprintf(`%s
daemon off;
worker_processes %d;
pid %s/nginx.pid;
error_log stderr;
events { worker_connections 8000; }
stream {
	proxy_buffer_size 32k;
	server {
		listen 127.0.0.1:%d reuseport;
		proxy_pass 127.0.0.1:%d;
	}
}
`, load, runtime.NumCPU(), l.dir, port, upstream))
	if err != nil {
		return middle{}, err
	}
	return serving(l, middle{name: "nginx stream", port: port}, "nginx", "-p", l.dir, "-c", file)
}

// serving starts a program and waits until it listens.
func serving(l *lab, m middle, args ...string) (middle, error) {
	var err error
	if m.process, err = l.launch(args...); err != nil {
		return m, err
	}
	return m, l.awaitPort(m.port, m.process.log)
}

// awaitPort waits until something listens.
func (l *lab) awaitPort(port int, log string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) || l.ctx.Err() != nil {
			return fmt.Errorf("nothing listens on port %d: %s", port, tail(log))
		}
	}
}

// claims keep the ports of freePort until the process ends.
var claims []net.Listener

// freePort finds a port that nobody listens on, below those that the kernel gives to
// connections. Tests that run at the same time leave it alone, and it theirs: see
// program.FreePort.
func freePort() (int, error) {
	for range 1000 {
		port := 10_000 + rand.IntN(22_000)
		claim, err := net.Listen("unix", fmt.Sprintf("@caddy-knock-test-port-%d", port))
		if err != nil {
			continue
		}
		claims = append(claims, claim)
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			return port, ln.Close()
		}
	}
	return 0, errors.New("no port is free")
}
