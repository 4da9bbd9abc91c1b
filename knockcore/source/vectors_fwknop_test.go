// SPDX-FileCopyrightText: 2026 The caddy-knock authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-knock/caddy-knock/knockcore"
	"github.com/caddy-knock/caddy-knock/knockcore/wire"
)

func TestFwknopVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name, Kind    string
			KeyBase64     string `json:"key_base64"`
			HMACKeyBase64 string `json:"hmac_key_base64"`
			HMACType      string `json:"hmac_type"`
			Mode          string `json:"encryption_mode"`
			Packet        string
			PacketHex     hexBytes `json:"packet_hex"`
			Now           int64
			Fields        struct {
				Type    int    `json:"message_type"`
				AllowIP string `json:"allow_ip"`
				Timeout int    `json:"client_timeout"`
				Ports   []struct {
					Proto string
					Port  uint16
				}
			}
			Policy struct {
				OpenPorts       []string `json:"open_ports"`
				RequireSource   bool     `json:"require_source_address"`
				RequireUsername string   `json:"require_username"`
				SeenPackets     []string `json:"seen_packets"`
			}
		}
	}
	loadVectors(t, "fwknop.json", &file)
	decode := func(s string) knockcore.Secret {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return knockcore.NewSecret(b)
	}
	accepted, refused := 0, 0
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			reachable := []*knockcore.Service{service("ssh", "tcp/22"), service("more", "tcp/443", "tcp/3306", "tcp/20000-20010", "udp/1194", "udp/51820")}
			if v.Policy.OpenPorts != nil || v.Name == "n35-restricted-port" {
				reachable = reachable[:1]
			}
			keys := knockcore.FwknopKeys{Encryption: decode(v.KeyBase64), HMAC: decode(v.HMACKeyBase64), HMACType: v.HMACType}
			g := newGuard(t, setup{
				clients:  []*knockcore.Client{{ID: "c", AllServices: true, Fwknop: []knockcore.FwknopKeys{keys}, RemoteBits4: 32}},
				services: reachable, now: time.Unix(v.Now, 0),
			})
			packet := []byte(v.Packet)
			if v.PacketHex != nil {
				packet = v.PacketHex
			}
			if v.Policy.SeenPackets != nil {
				_ = g.send(stranger, packet)
				g.granted()
			}
			err := g.send(stranger, packet)
			granted := g.granted()
			supported := v.HMACType != "" && v.Mode == "cbc" && (v.Fields.Type == wire.FwknopAccess || v.Fields.Type == wire.FwknopAccessTimeout)
			// What fwknopd refuses by options that we do not have.
			ours := v.Policy.RequireSource || v.Policy.RequireUsername != "" || v.Name == "n22-wrong-mode"
			if v.Kind == "positive" && supported {
				accepted++
				if err != nil {
					t.Fatal(err)
				}
				for _, grant := range granted {
					want := netip.MustParseAddr(v.Fields.AllowIP)
					if want.IsUnspecified() {
						want = stranger.Addr()
					}
					length := time.Duration(v.Fields.Timeout) * time.Second
					if length == 0 {
						length = knockcore.DefaultOpenFor
					}
					if grant.Prefix.Addr() != want || grant.Expires.Sub(grant.Made) != length {
						t.Errorf("granted %v for %v", grant.Prefix, grant.Expires.Sub(grant.Made))
					}
				}
				if len(granted) == 0 {
					t.Error("nothing was granted")
				}
				return
			}
			refused++
			if !ours && (err == nil || len(granted) > 0) {
				t.Errorf("was taken: %d grants", len(granted))
			}
		})
	}
	if accepted < 30 || refused < 60 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
}
