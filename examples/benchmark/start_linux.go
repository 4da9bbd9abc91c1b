// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(386 || arm || mips || mipsle)

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// start measures how long programs take from their start until they serve: Caddy
// with many clients until it accepts a connection, caddy-knock until the first byte
// came through it.
func start(ctx context.Context, o options, r *report) error {
	clients := o.some(10_000)
	if err := r.compare(ctx, 3*o.rounds, "caddy, from its start to its first connection", []quantity{{unit: "ms", less: true}},
		subject{fmt.Sprintf("%s clients in a clients_file, JSON", figure(float64(clients))), nil, o.starting(clients, clientsFile)},
		subject{"plain Caddy with caddy-l4 proxy, JSON", map[int]float64{0: 1.2}, o.starting(0, plain)},
		subject{"the same clients in the Caddyfile", nil, o.starting(clients, caddyfile)},
	); err != nil {
		return err
	}
	return clientStart(ctx, o, r)
}

// starting starts Caddy with a configuration for a port.
func (o options) starting(clients int, config func(l *lab, port, clients int) (file string, err error)) func(context.Context) ([]float64, error) {
	return func(ctx context.Context) ([]float64, error) {
		l, err := newLab(ctx)
		if err != nil {
			return nil, err
		}
		defer l.close()
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		file, err := config(l, port, clients)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		p, err := l.launch(o.caddy, "run", "--config", file)
		if err != nil {
			return nil, err
		}
		err = l.awaitPort(port, p.log)
		return []float64{time.Since(begin).Seconds() * 1000}, err
	}
}

func caddyfile(l *lab, port, clients int) (file string, err error) {
	var b strings.Builder
	b.WriteString("{\n\tadmin off\n\tknock {\n")
	for i := range clients {
		fmt.Fprintf(&b, "\t\tclient c%05d {\n\t\t\tsecret \"%s %d\"\n\t\t\tservices bench\n\t\t}\n", i, secret, i)
	}
	fmt.Fprintf(&b, `		service bench tcp/%d
	}
	layer4 {
		127.0.0.1:%d {
			route {
				knock {
					admit {
						knock_relay 127.0.0.1:9
					}
				}
			}
		}
	}
}
`, port, port)
	return l.file("Caddyfile", b.String())
}

// object is a JSON object.
type object = map[string]any

func clientsFile(l *lab, port, clients int) (file string, err error) {
	list := make([]object, clients)
	for i := range list {
		list[i] = object{"id": fmt.Sprintf("c%05d", i), "secrets": []string{fmt.Sprintf("%s %d", secret, i)}, "services": []string{"bench"}}
	}
	b, err := json.Marshal(object{"clients": list})
	if err != nil {
		return "", err
	}
	path, err := l.file("clients.json", string(b))
	if err != nil {
		return "", err
	}
	return layer4JSON(l, port, object{"knock": object{
		"clients_file": path, "services": []object{{"name": "bench", "ports": []string{fmt.Sprintf("tcp/%d", port)}}},
	}}, object{"handler": "knock", "admit": []object{{"handler": "knock_relay", "upstreams": []string{"127.0.0.1:9"}}}})
}

func plain(l *lab, port, _ int) (file string, err error) {
	return layer4JSON(l, port, object{}, object{"handler": "proxy", "upstreams": []object{{"dial": []string{"127.0.0.1:9"}}}})
}

// layer4JSON writes a configuration with a handler for all streams to a port.
func layer4JSON(l *lab, port int, apps, handler object) (file string, err error) {
	apps["layer4"] = object{"servers": object{"bench": object{
		"listen": []string{fmt.Sprintf("127.0.0.1:%d", port)},
		"routes": []object{{"handle": []object{handler}}},
	}}}
	b, err := json.Marshal(object{"admin": object{"disabled": true}, "apps": apps})
	if err != nil {
		return "", err
	}
	return l.file("caddy.json", string(b))
}

// clientStart runs caddy-knock for one byte.
func clientStart(ctx context.Context, o options, r *report) error {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	upstream, err := l.serve(echoByte)
	if err != nil {
		return err
	}
	m, err := throughRelay(l, o.caddy, upstream, "")
	if err != nil {
		return err
	}
	connect := func(ctx context.Context) ([]float64, error) {
		cmd := exec.CommandContext(ctx, o.client, "connect", "--client", "bench", "--secret", secret, fmt.Sprintf("127.0.0.1:%d", m.port))
		cmd.Stdin = strings.NewReader("!")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		n, err := out.Read(make([]byte, 1))
		took := time.Since(begin)
		if n != 1 {
			_ = cmd.Wait()
			return nil, fmt.Errorf("no byte came: %w: %s", err, said.String())
		}
		return []float64{took.Seconds() * 1000}, cmd.Wait()
	}
	if err := r.compare(ctx, 4*o.rounds, "caddy-knock, from its start", []quantity{{unit: "ms", less: true}},
		subject{"to the first byte through Caddy", map[int]float64{0: 15}, connect},
		subject{"to the end of `caddy-knock version`", nil, func(ctx context.Context) ([]float64, error) {
			begin := time.Now()
			err := exec.CommandContext(ctx, o.client, "version").Run()
			return []float64{time.Since(begin).Seconds() * 1000}, err
		}}); err != nil {
		return err
	}
	return r.compare(ctx, 1, "size of the program", []quantity{{unit: "MB", less: true}}, size(o.client, "caddy-knock"), size(o.caddy, "the ready Caddy"))
}

func size(path, name string) subject {
	return subject{name, nil, func(context.Context) ([]float64, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		return []float64{float64(info.Size()) / 1e6}, nil
	}}
}
